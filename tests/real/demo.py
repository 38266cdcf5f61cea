"""`make demo` with a real model: what a DINOv2 ViT-S/14 looks at in photographs, and which of them it finds alike.

The weights and photographs are those of `make test-real`. `python -m real.demo FOLDER` draws into FOLDER.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from real import dinov2
from real.fetching import PHOTOGRAPHS, cache, fetched

import vitriad
from vitriad.cli import main as run

NAMES = ("attention-photographs.png", "nearest-photographs.png")


def model() -> Path:
    """The folder of the model, made from the fetched file once."""
    folder = cache() / "dinov2-vits14"
    if not (folder / "preprocessor_config.json").is_file():
        with tempfile.TemporaryDirectory() as place:
            vitriad.convert(dinov2.write(Path(place) / "dinov2.safetensors"), folder, to="hf", force=True)
        dinov2.PROCESSOR.save_pretrained(folder)
    return folder


def cut(photographs: list[Path], folder: Path) -> None:
    """The left and the right half of each photograph."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in photographs:
        with Image.open(path) as photograph:
            width, height = photograph.size
            for name, left in (("left", 0), ("right", width // 2)):
                half = photograph.convert("RGB").crop((left, 0, left + width // 2, height))
                half.save(folder / f"{path.stem}-{name}.png")


def main(output: Path) -> int:
    """Draws the pictures and says where they are."""
    photographs, folder = list(fetched(PHOTOGRAPHS)), str(model())
    halves, features = output / "halves", str(output / "halves.npz")
    attention, nearest = (str(output / name) for name in NAMES)
    cut(photographs, halves)
    paths = list(map(str, photographs))
    status = run(["attend", *paths, "--model", folder, "--image-size", "336", "--out", attention, "--force"])
    status |= run(["embed", str(halves), "--model", folder, "--out", features, "--batch-size", "4", "--force"])
    command = ["search", features, *paths, "--model", folder, "--top-k", "4", "--out", nearest, "--force"]
    status |= run(command)
    print(f"\nwhat a DINOv2 looks at: {attention}\nthe halves of photographs nearest to each: {nearest}")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
