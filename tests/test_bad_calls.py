"""Every backend refuses the same calls with the same words."""

import re

import pytest
from backends import INSTALLED
from bad_calls import CALLS, IMAGES, VALUES, small_config

from vit_core import InputError
from vitriad.auto import model_class
from vitriad.backends import BACKENDS


def refusal(backend: str, name: str, inputs: dict) -> str:
    model = model_class(name, backend)(small_config(name))
    with pytest.raises(InputError) as error:
        model(**{"pixel_values": IMAGES, **inputs})
    return str(error.value).replace(f"{BACKENDS[backend].prefix}ViT", "ViT")


@pytest.mark.parametrize("number", range(len(CALLS + VALUES)))
def test_refused_with_the_same_words(number):
    name, what, inputs, why = (CALLS + VALUES)[number]
    texts = [refusal(backend, name, inputs) for backend in INSTALLED]
    for text in texts:
        assert re.search(why, text) and what in text, text
        assert len(text.splitlines()) <= 3
    assert len({text.partition(": ")[2] for text in texts}) == 1, texts
