"""Photographs, decoded already, to pixel values of 224 x 224."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group
from benchmarks.contenders.forward import Calls

BATCHES = {"32 images of 640 x 480": (32, 480, 640), "4 images of 12 megapixels": (4, 3000, 4000)}


def photographs(count: int, height: int, width: int) -> list[Any]:
    """Smooth pictures, as photographs are."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    spots = [Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize((width, height), Image.Resampling.BICUBIC) for image in spots]


def batches(tiny: bool) -> dict[str, list[Any]]:
    return {case: photographs(*([2, 48, 64] if tiny else sides)) for case, sides in BATCHES.items()}


def resizing(folder: Path, tiny: bool) -> Calls:
    from PIL import Image

    def run(images: list[Any]) -> None:
        for image in images:
            image.resize((224, 224), Image.Resampling.BILINEAR)

    return {case: partial(run, images) for case, images in batches(tiny).items()}


def processing(package: str, options: dict[str, Any], folder: Path, tiny: bool) -> Calls:
    from importlib import import_module

    process = import_module(package).ViTImageProcessor()
    kind = "pt" if package == "transformers" else "np"  # what its processor of 5.24 makes in any case

    def run(images: list[Any]) -> None:
        process(images, return_tensors=kind, **options)

    return {case: partial(run, images) for case, images in batches(tiny).items()}


ONE, TWO = "ViTImageProcessor, 1 thread", "ViTImageProcessor, 2 threads"
GROUPS = {
    "preprocessing": Group(
        "The image processor",
        {
            "Pillow's bare resize, one by one": Contender(resizing, "floor"),
            ONE: Contender(partial(processing, "vit_core", {"num_threads": 1}), "ours"),
            TWO: Contender(partial(processing, "vit_core", {"num_threads": 2}), "ours"),
            "transformers 4.57.6": Contender(partial(processing, "transformers", {}), "peer", ONE, "hf4"),
            "transformers 5.24.0": Contender(partial(processing, "transformers", {}), "peer", ONE, "hf5"),
        },
    )
}
