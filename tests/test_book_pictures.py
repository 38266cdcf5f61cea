"""The pictures of the book are what its script draws now."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"
SPEC = importlib.util.spec_from_file_location("book_pictures", DOCS / "book_pictures.py")
script = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [*script.PICTURES])
def test_the_committed_picture_is_the_one_that_the_script_draws(name, theme):
    """But for edges of letters, and colours that a palette of 192 rounds otherwise: one pixel in two hundred."""
    drawn = script.PICTURES[name](script.THEMES[theme]).convert("RGB")
    committed = Image.open(DOCS / "pictures" / f"{name}-{theme}.png").convert("RGB")
    np.testing.assert_equal(committed.size, drawn.size, "make pictures")
    differ = (np.abs(np.asarray(drawn, int) - np.asarray(committed, int)) > 48).any(axis=-1)
    np.testing.assert_array_less(differ.mean(), 0.005, err_msg="make pictures")


def test_every_picture_is_on_a_page_in_both_themes():
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md") if "_build" not in page.parts)
    missing = [f"{n}-{t}" for n in script.PICTURES for t in script.THEMES if f"pictures/{n}-{t}.png" not in pages]
    assert missing == []
