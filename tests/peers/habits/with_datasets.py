"""`prepare_tf_dataset` over data sets of the library datasets: pictures with a transform, and columns of numbers."""

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_DATASETS_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
import numpy as np
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pictures

import vit_tf

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 36}
SIZES |= {"image_size": 16, "patch_size": 4}
PROCESSOR = vit_tf.ViTImageProcessor(size={"height": 16, "width": 16})


def make_model():
    keras.utils.set_random_seed(0)
    model = vit_tf.TFViTForImageClassification(vit_tf.ViTConfig(**SIZES, num_labels=2))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), metrics=["accuracy"])
    return model


def pictures(folder: Path) -> list[str]:
    """Files of dark pictures and bright ones, in turn."""
    random, paths = np.random.default_rng(3), []
    for index in range(10):
        pixels = random.integers(0, 100, (20, 30, 3), dtype=np.uint8) + 150 * (index % 2)
        paths.append(str(folder / f"{index}.png"))
        Pictures.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def a_transform(folder: Path) -> None:
    """As the examples of transformers do: pictures and labels, made ready row by row by the image processor."""
    columns = {"image": pictures(folder), "label": [index % 2 for index in range(10)]}
    rows = Dataset.from_dict(columns, features=Features({"image": Image(), "label": Value("int64")}))

    def ready(batch):
        return {**PROCESSOR(batch["image"]), "label": batch["label"]}

    model = make_model()
    batches = model.prepare_tf_dataset(rows.with_transform(ready), batch_size=4, shuffle=False, drop_remainder=False)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    images, labels = next(iter(batches))
    expected = PROCESSOR([row["image"] for row in rows.select(range(4))])["pixel_values"]
    np.testing.assert_array_equal(images, np.stack(expected))
    np.testing.assert_array_equal(labels, [0, 1, 0, 1])
    history = model.fit(batches, validation_data=batches, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0] and history["val_accuracy"][-1] == 1


def columns_of_numbers(folder: Path) -> None:
    """Arrays, stored as lists: what is no input is left out, labels become y whatever their column is called."""
    random = np.random.default_rng(4)
    pixels = random.standard_normal((6, 3, 16, 16)).astype(np.float32)
    model = make_model()
    for name in ("label", "labels", "label_ids"):
        rows = Dataset.from_dict({"pixel_values": pixels, name: [0, 1] * 3, "file": ["x"] * 6, "size": [7] * 6})
        batches = model.prepare_tf_dataset(rows, batch_size=3, shuffle=False)
        images, labels = next(iter(batches))
        np.testing.assert_array_equal(images, pixels[:3])
        np.testing.assert_array_equal(labels, [0, 1, 0])
        assert np.isfinite(model.evaluate(batches, verbose=0, return_dict=True)["loss"])


if __name__ == "__main__":
    case, where = sys.argv[1:]
    print(json.dumps(globals()[case](Path(where))))
