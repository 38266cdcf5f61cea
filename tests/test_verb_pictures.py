"""The pictures of commands in the guides are what the commands draw now."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"
SPEC = importlib.util.spec_from_file_location("verb_pictures", DOCS / "verb_pictures.py")
script = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


@pytest.mark.parametrize("name", [*script.VERBS])
def test_the_committed_picture_is_the_one_that_the_command_draws(name, tmp_path):
    """But for edges of letters, and colours that a palette rounds otherwise: one pixel in two hundred."""
    drawn = script.drawn(name, str(tmp_path)).convert("RGB")
    with Image.open(DOCS / "pictures" / f"verb-{name}.png") as committed:
        np.testing.assert_equal(committed.size, drawn.size, "make pictures")
        differ = (np.abs(np.asarray(drawn, int) - np.asarray(committed.convert("RGB"), int)) > 48).any(axis=-1)
    np.testing.assert_array_less(differ.mean(), 0.005, err_msg="make pictures")


def test_every_picture_of_a_command_is_on_a_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "guides").glob("*.md"))
    pictures = {path.name for path in (DOCS / "pictures").glob("verb-*.png")}
    assert {f"verb-{name}.png" for name in (*script.VERBS, "attend", "probe")} == pictures
    assert [name for name in pictures if f"../pictures/{name}" not in pages] == []
