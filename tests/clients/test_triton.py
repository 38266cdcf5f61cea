"""NVIDIA's own client of the Open Inference Protocol asks `vitriad serve`: make test-triton."""

import json
import os
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from backends import INSTALLED
from serving import serving

import vitriad
from vitriad import models
from vitriad.classify import predict, read_pixels
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import WebLimits

pytestmark = [pytest.mark.triton, pytest.mark.timeout(600)]

CLIENT = Path(__file__).with_name("triton_client.py")
FILES = [file.read_bytes() for file in models.digit_files()[:4]]
LIMITS = ServeLimits(WebLimits(), BatchLimits(rows=8))


@pytest.fixture(scope="module")
def served():
    return open_served("digits-vit", INSTALLED[0])


@pytest.fixture(scope="module")
def pixels(served):
    return np.stack([read_pixels(file, served.processor, served.config) for file in FILES])


@pytest.fixture(scope="module")
def pictures(served):
    return np.arange(2 * 30 * 20 * served.config.num_channels, dtype=np.uint8).reshape(2, 30, 20, -1)


@pytest.fixture(scope="module")
def asked(served, pixels, pictures, tmp_path_factory):
    """What the client was told, and the arrays that it got."""
    folder = tmp_path_factory.mktemp("triton")
    files = {f"file{i}": np.frombuffer(file, np.uint8) for i, file in enumerate(FILES)}
    np.savez(folder / "given.npz", pixels=pixels, pictures=pictures, **files)
    with serving(lambda port: application(Service([served], LIMITS), port=port), LIMITS.web) as port:
        words = [os.environ["VITRIAD_TRITON"], str(CLIENT), f"127.0.0.1:{port}", "given.npz", "found.npz"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz") as found:
        return json.loads(done.stdout), dict(found)


def test_its_tensors_give_what_the_library_gives(asked, served, pixels, pictures):
    model, (_, found) = vitriad.load("digits-vit", INSTALLED[0]), asked
    want = predict(model, pixels)
    for name in ("json", "binary", "bytes", "version"):
        np.testing.assert_array_equal(found[name], want)
    np.testing.assert_array_equal(found["fp16"], predict(model, pixels.astype(np.float16).astype(np.float32)))
    np.testing.assert_array_equal(found["bf16"], predict(model, pixels.astype(ml_dtypes.bfloat16).astype(np.float32)))
    prepared = np.stack(served.processor([*pictures], input_data_format="channels_last")["pixel_values"])
    for name in ("uint8", "uint8_json"):
        np.testing.assert_array_equal(found[name], predict(model, prepared))
    features = vitriad.Embedder("digits-vit", INSTALLED[0], features=("class_token", "patch_mean"))
    for name, values in features({"pixel_values": pixels}).items():
        np.testing.assert_array_equal(found[name], values)
    np.testing.assert_allclose(found["together"], np.stack([want] * 8), rtol=1e-5, atol=1e-5)  # in other batches


def test_it_understands_health_metadata_and_refusals(asked, pixels):
    said, _ = asked
    assert said["health"] == [True, True, True] and said["server"]["name"] == "vitriad"
    assert said["model"]["inputs"][0] == {
        **{"name": "pixel_values", "datatype": "FP32"},
        "shape": [-1, *pixels.shape[1:]],
    }
    assert said["config"]["max_batch_size"] == 8
    assert [each["name"] for each in said["index"]] == ["digits-vit", "digits-vit.embed"]
    assert [status for status, _ in said["refusals"]] == ["422", "404", "422"]
    assert "expected (images, " in said["refusals"][0][1]
