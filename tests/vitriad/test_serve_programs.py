"""`vitriad serve` of exported programs: their numbers through every way to ask, and which are refused."""

import json
import struct

import numpy as np
import pytest
from serving import ask, serving

import vitriad
from vit_core.errors import InputError
from vitriad import export, models
from vitriad.classify import probabilities, read_pixels
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service

FILES = [file.read_bytes() for file in models.digit_files()[:3]]
LIMITS = ServeLimits(batch=BatchLimits(rows=4))


def served_of(folder, model, to, **options):
    export(model, folder / to, to, **options)
    served = open_served(str(folder / to), to)
    served.warm_up((1, 4))
    return served


def asked(served, path, body, **headers):
    service = Service([served], LIMITS)
    with serving(lambda port: application(service, port=port), LIMITS.web) as port:
        status, _, content = ask(port, path, body, **headers)
    assert status == 200, content
    return json.loads(content)


@pytest.mark.every_day("[onnx-")
@pytest.mark.parametrize(
    ("to", "preprocessing"), [("onnx", None), ("onnx", "nhwc"), ("stablehlo", None), ("litert", None)]
)
def test_a_classifier_gives_the_numbers_of_its_program(tmp_path, to, preprocessing):
    served = served_of(tmp_path, "digits-vit", to, preprocessing=preprocessing)
    assert ([*served.tasks], served.pixel_dtype) == (["classify"], np.uint8 if preprocessing else np.float32)
    pixels = np.stack([read_pixels(file, served.processor, served.config) for file in FILES])
    logits = vitriad.load(tmp_path / to)(pixels).logits
    answer = asked(served, "/classify?top_k=10", FILES[0])
    want = probabilities(logits)[0]
    np.testing.assert_allclose([row["score"] for row in answer["top"]], np.sort(want)[::-1], atol=1e-6)
    blob = b"".join(struct.pack("<I", len(file)) + file for file in FILES)
    one = {"name": "images", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [one]}).encode()
    answer = asked(served, f"/v2/models/{to}/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
    got = np.reshape(answer["outputs"][0]["data"], (3, 10))
    np.testing.assert_allclose(got, logits, rtol=1e-5, atol=1e-5)


def test_features_are_those_of_the_embedder(tmp_path):
    served = served_of(tmp_path, "digits-vit", "onnx", outputs="features")
    want = vitriad.Embedder(tmp_path / "onnx", features=("class_token",))
    answer = asked(served, "/embed", FILES[0])
    np.testing.assert_array_equal(
        np.float32(answer["class_token"]), want({"pixel_values": want.read(FILES[0])[None]})["class_token"][0]
    )


@pytest.mark.long
def test_programs_that_cannot_be_served_are_refused(tmp_path):
    export("digits-vit-mae", tmp_path / "mae", "onnx")
    with pytest.raises(InputError, match="is of reconstruction, which is not served"):
        open_served(str(tmp_path / "mae"))
    export("digits-vit", tmp_path / "onnx", "onnx")
    with pytest.raises(InputError, match="revision is for checkpoints"):
        open_served(str(tmp_path / "onnx"), revision="main")
