"""Draws what the commands that draw write, for the guides: `verb_pictures.py [FOLDER] [--real MODEL]`.

Those of the shipped models are drawn on the digits that come along. The two of a photograph and of photographs need a
real model, and are left as they are without `--real`: the folder of a DINOv2 ViT-S/14 (`make test-real` fetches it).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vitriad.cli import main as vitriad
from vitriad.models import digit_files

DOCS = Path(__file__).parent
PHOTO = DOCS / "pictures" / "coffee.jpg"
DIGITS = [str(path) for path in digit_files()]


def run(*words: str) -> None:
    """One command line, as it would be typed."""
    if status := vitriad([*words]):
        raise SystemExit(f"vitriad {words[0]}: exit code {status}")


def reconstruct(out: str) -> None:
    """Four digits under a mask."""
    run("reconstruct", *DIGITS[6:14:2], "--seed", "3", "--mask-ratio", "0.5", "--out", out)


def search(out: str) -> None:
    """The nearest of twenty digits to two of them."""
    features = f"{out}.npz"
    run("embed", *DIGITS, "--out", features, "--batch-size", "4")
    run("search", features, DIGITS[6], DIGITS[14], "--top-k", "4", "--out", out)


def compare(out: str) -> None:
    """The classifier and the masked autoencoder of the digits."""
    run("compare", "digits-vit", "digits-vit-mae", *DIGITS, "--out", out)


VERBS = {"reconstruct": reconstruct, "search": search, "compare": compare}


def drawn(name: str, folder: str) -> Image.Image:
    """The picture of a command."""
    out = f"{folder}/{name}.png"
    VERBS[name](out)
    with Image.open(out) as picture:
        picture.load()
    return picture


def save(picture: Image.Image, path: Path) -> None:
    """Few colours make a small file."""
    picture.quantize(192, Image.Quantize.MEDIANCUT).save(path, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Every picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS / "pictures")
    parser.add_argument("--real", metavar="MODEL", help="folder of a DINOv2 ViT-S/14")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in VERBS:
            save(drawn(name, folder), asked.folder / f"verb-{name}.png")
        if asked.real:
            out = f"{folder}/attend.png"
            run("attend", str(PHOTO), "--model", asked.real, "--image-size", "448x672", "--out", out)
            save(Image.open(out), asked.folder / "verb-attend.png")


if __name__ == "__main__":
    main()
