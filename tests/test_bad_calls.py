"""Every backend refuses the same calls with the same words, naming what was called."""

import re
from functools import cache

import numpy as np
import pytest
from backends import INSTALLED
from bad_calls import CALLS, CLASSIFIER, IMAGES, MAE, MIM, VALUES, VIT, small_config

from vit_core import InputError
from vitriad.auto import model_class
from vitriad.backends import BACKENDS


@cache
def model(backend, name):
    return model_class(name, backend)(small_config(name))


def refusal(backend, name, **inputs):
    with pytest.raises(InputError) as error:
        model(backend, name)(**{"pixel_values": IMAGES, **inputs})
    return str(error.value).replace(f"{BACKENDS[backend].prefix}ViT", "ViT")


@pytest.mark.parametrize("number", range(len(CALLS + VALUES)))
def test_refused_with_the_same_words(number):
    name, what, inputs, why = (CALLS + VALUES)[number]
    texts = [refusal(backend, name, **inputs) for backend in INSTALLED]
    for text in texts:
        assert re.search(why, text) and what in text, text
        assert len(text.splitlines()) <= 3
    assert len({text.partition(": ")[2] for text in texts}) == 1, texts


# What holds no real numbers, and names of what no call takes


NO_NUMBERS = "expected an array or a tensor of real numbers, got"
KINDS = {  # of images: test_forgotten_stars.py
    "a mask of texts": (VIT, "head_mask", np.full((2, 2), "x"), "ndarray of <U1"),
    "a complex mask": (CLASSIFIER, "head_mask", np.ones((2, 2), complex), "ndarray of complex128"),
    "text for labels": (CLASSIFIER, "labels", "cat", "str"),
    "texts for labels": (CLASSIFIER, "labels", ["cat", "dog"], "list"),
    "objects for labels": (CLASSIFIER, "labels", np.ones(2, object), "ndarray of object"),
    "a dictionary for noise": (MAE, "noise", {"noise": 1}, "dict"),
}


@pytest.mark.parametrize("case", KINDS)
def test_what_holds_no_real_numbers(case):
    name, what, value, got = KINDS[case]
    for backend in INSTALLED:
        assert refusal(backend, name, **{what: value}) == f"{name}: {what}: {NO_NUMBERS} {got}."


@pytest.mark.parametrize("name", [VIT, CLASSIFIER, MIM, MAE])
def test_unknown_keywords(name):
    for backend in INSTALLED:
        text = refusal(backend, name, pixel_value=IMAGES, attention_mask=None)
        assert text == f"{name}: a call takes no 'pixel_value', 'attention_mask'; did you mean 'pixel_values'?"
        assert refusal(backend, name, zzz=1) == f"{name}: a call takes no 'zzz'."
        with pytest.raises(TypeError, match="zzz"):
            model(backend, name)(IMAGES, zzz=1)


SHAPES = [
    (CLASSIFIER, {"pixel_values": IMAGES[..., :4]}),
    (CLASSIFIER, {"head_mask": np.ones((5, 2))}),
    (MIM, {"pixel_values": IMAGES[:, :2]}),
    (MAE, {"noise": np.zeros((1, 4))}),
    (MAE, {"pixel_values": (9 * IMAGES).astype(np.int32)}),
    *((name, inputs) for name, _, inputs, _ in VALUES),
    (CLASSIFIER, {"pixel_values": IMAGES * np.nan}),
    (CLASSIFIER, {"head_mask": np.full((2, 2), np.inf)}),
    (MAE, {"pixel_values": IMAGES * np.inf}),
]


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_checks_name_the_class_that_was_called(number):
    name, inputs = SHAPES[number]
    said = f"{name}: {next(iter(inputs))}"
    for backend in INSTALLED:
        assert refusal(backend, name, **inputs).startswith((f"{said}: ", f"{said} or bool_masked_pos: "))
