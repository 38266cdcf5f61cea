"""Pipelines of transformers over models and processors of vit_torch."""

import numpy as np
import torch
import transformers
from cases import main, make_model, make_processor, picture
from transformers import pipeline


def image_classification(folder):
    """The same answers as with transformers' own model of the same weights."""
    model, processor = make_model().eval(), make_processor()
    model.save_pretrained(folder)
    found = pipeline("image-classification", model=model, image_processor=processor)(picture(), top_k=3)
    theirs = transformers.ViTForImageClassification.from_pretrained(folder)
    expected = pipeline("image-classification", model=theirs, image_processor=processor)(picture(), top_k=3)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    np.testing.assert_allclose([entry["score"] for entry in found], [entry["score"] for entry in expected], atol=1e-5)
    return found


def batches(folder):
    classify = pipeline("image-classification", model=make_model().eval(), image_processor=make_processor())
    found = classify([picture(0), picture(1), picture(2)], batch_size=2, top_k=1)
    for index, entries in enumerate(found):
        alone = classify(picture(index), top_k=1)
        assert [entry["label"] for entry in entries] == [entry["label"] for entry in alone]
        np.testing.assert_allclose(entries[0]["score"], alone[0]["score"], atol=1e-6)
    return len(found)


def image_feature_extraction(folder):
    """Which of the outputs is the first one, transformers asks only of its own class and of tuples."""
    model, processor = make_model("ViTModel").eval(), make_processor()
    pixels = processor(picture(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        outputs = model(pixels)
    pooled = pipeline("image-feature-extraction", model=model, image_processor=processor, pool=True)
    np.testing.assert_allclose(pooled(picture()), outputs.pooler_output, atol=1e-6)
    model.config.return_dict = False
    extract = pipeline("image-feature-extraction", model=model, image_processor=processor)
    np.testing.assert_allclose(extract(picture()), outputs.last_hidden_state, atol=1e-6)
    return list(np.shape(extract(picture())))


if __name__ == "__main__":
    main(globals())
