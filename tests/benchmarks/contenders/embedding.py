"""`vitriad embed` from files of JPEG to a file of features, beside the model alone on as many batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group
from benchmarks.contenders.forward import Calls, config
from benchmarks.contenders.preprocessing import photographs

IMAGES, BATCH = 16, 8
CASE = f"{IMAGES} photographs of 640 x 480"


def prepare(folder: Path, tiny: bool) -> None:
    import vit_torch
    from vit_core import ViTImageProcessor

    made = config("vit_torch", tiny)
    vit_torch.ViTForImageClassification(made).save_pretrained(folder / "model")
    ViTImageProcessor(size=made.image_size).save_pretrained(folder / "model")
    for number, image in enumerate(photographs(IMAGES, 480, 640)):
        image.save(folder / f"{number:02}.jpg", quality=90)


def embedder(folder: Path) -> Any:
    from vitriad.features import Embedder

    return Embedder(folder / "model", "torch")


def model_alone(folder: Path, tiny: bool) -> Calls:
    import numpy as np

    made = embedder(folder)
    pixels = np.zeros((BATCH, 3, *made.size), np.float32)

    def run() -> None:
        for _ in range(IMAGES // BATCH):
            made({"pixel_values": pixels})

    return {CASE: run}


def end_to_end(folder: Path, tiny: bool) -> Calls:
    from vit_core.images.sources import image_sources
    from vitriad.embed import embed

    made, out = embedder(folder), folder / "features.npz"
    sources = image_sources([str(folder / f"{number:02}.jpg") for number in range(IMAGES)])

    def run() -> None:
        embed(made, sources, out, batch_size=BATCH, force=True)

    return {CASE: run}


GROUPS = {
    "embedding": Group(
        "`vitriad embed` with ViT-B/16 in PyTorch",
        {
            "the model alone, batches of 8": Contender(model_alone, "floor"),
            "from files to a file": Contender(end_to_end, "ours"),
        },
        prepare,
    )
}
