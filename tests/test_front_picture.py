"""The picture of the README is what the shipped models answer now."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("front_picture", DOCS / "front_picture.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def answers(script):
    return script.asked()


def test_the_frameworks_agree_on_what_it_shows(answers):
    np.testing.assert_array_less(answers.apart(answers.probabilities), 1e-5)
    np.testing.assert_array_less(answers.apart(answers.painted), 2e-5)  # of pixels from -1 to 1
    assert answers.classes["torch"] == answers.classes["tf"] == answers.classes["flax"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_committed_picture_is_the_one_that_the_script_draws(script, answers, theme):
    """But for a few digits of rounding, which another processor may write otherwise, of 300 pixels each."""
    drawn = script.drawn(answers, script.THEMES[theme]).convert("RGB")
    committed = Image.open(DOCS / "pictures" / f"front-{theme}.png").convert("RGB")
    assert committed.size == drawn.size, "make pictures"
    differ = (np.abs(np.asarray(drawn, int) - np.asarray(committed, int)) > 32).any(axis=-1)
    np.testing.assert_array_less(differ.sum(), 1500, err_msg="make pictures")
