"""What people pass as images before they find the two stars: a batch is taken, all else is told what to write."""

from collections import UserDict

import numpy as np
import pytest
from backends import INSTALLED
from checkpoints import make_config, make_tensors
from PIL import Image

from vit_core import BatchFeature
from vit_core.errors import InputError
from vit_core.inputs import images_given
from vit_core.tensors import from_numpy, to_numpy
from vitriad.auto import model_class

TENSORS = {"torch": "pt", "tf": "tf", "flax": "jax"}
PIXELS = np.random.default_rng(0).standard_normal((2, 3, 8, 12), np.float32)


@pytest.fixture(scope="module", params=INSTALLED)
def model(request):
    config = make_config("ViTForImageClassification")
    tensors = make_tensors("ViTForImageClassification", config)
    return model_class("ViTForImageClassification", request.param).from_tensors(config, tensors)


@pytest.fixture
def tensors(model):
    framework = {"pt": "torch", "tf": "tf", "flax": "flax"}[model.framework]
    return from_numpy(PIXELS, TENSORS[framework])


def test_a_batch_without_stars_is_taken(model, tensors):
    theirs = type("BatchFeature", (UserDict,), {})({"pixel_values": tensors})  # transformers' is a UserDict
    expected = to_numpy(model(pixel_values=tensors).logits)
    for batch in (BatchFeature({"pixel_values": tensors}), theirs):
        np.testing.assert_array_equal(to_numpy(model(batch).logits), expected)
        np.testing.assert_array_equal(to_numpy(model(pixel_values=batch).logits), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pixels": PIXELS}, "got a dict of pixels.\nWrite model(**inputs), with two stars."),
        (Image.new("RGB", (8, 8)), "got Image.\nRun the image processor"),
        ([Image.new("RGB", (8, 8))], "got a list of Image.\nStack them"),
        ([PIXELS[0], PIXELS[1]], "got a list of ndarray.\nStack them"),
        ("cat.jpg", "got str.\nRun the image processor"),
        (np.array(["cat.jpg"]), "got ndarray of <U7.\nRun the image processor"),
        (PIXELS.astype(np.complex64), "got ndarray of complex64.\nRun the image processor"),
    ],
    ids=["dict", "picture", "pictures", "arrays", "text", "array of text", "complex"],
)
def test_what_is_no_array_is_told_what_to_write(model, given, message):
    with pytest.raises(InputError) as caught:
        model(pixel_values=given)
    assert str(caught.value).startswith(f"{type(model).__name__}: pixel_values: expected an array")
    assert message in str(caught.value)


def test_nested_lists_of_numbers_are_arrays():
    numbers = PIXELS.tolist()
    assert images_given("Model", numbers) is numbers
