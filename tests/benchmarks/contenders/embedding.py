"""`vitriad embed` from files of JPEG to a file of features, beside the model alone on as many batches.

Both are measured twice: in a process that has its model, and as whole processes, which import and load it first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group
from benchmarks.contenders.forward import Calls, config
from benchmarks.contenders.importing import runner
from benchmarks.contenders.preprocessing import photographs

COUNTS, BATCH = (16, 64), 8  # photographs; a batch as `embed` takes it where it tries none
PROCESS = f"a process for {COUNTS[0]} photographs"
ALONE = """
import numpy as np
from vit_torch import ViTModel
model = ViTModel.from_pretrained({folder!r}, add_pooling_layer=False)
pixels = np.zeros(({batch}, 3, *[model.config.image_size] * 2), np.float32)
for _ in range({calls}):
    model(pixels)
"""


def prepare(folder: Path, tiny: bool) -> None:
    import vit_torch
    from vit_core import ViTImageProcessor

    made = config("vit_torch", tiny)
    vit_torch.ViTForImageClassification(made).save_pretrained(folder / "model")
    ViTImageProcessor(size=made.image_size).save_pretrained(folder / "model")
    for number, image in enumerate(photographs(max(COUNTS), 480, 640)):
        image.save(folder / f"{number:02}.jpg", quality=90)


def embedder(folder: Path) -> Any:
    from vitriad.features import Embedder

    return Embedder(folder / "model", "torch")


def files(folder: Path, count: int) -> list[str]:
    return [str(folder / f"{number:02}.jpg") for number in range(count)]


def case(count: int) -> str:
    return f"{count} photographs of 640 x 480"


def model_alone(folder: Path, tiny: bool) -> Calls:
    import numpy as np

    made = embedder(folder)
    pixels = np.zeros((BATCH, 3, *made.size), np.float32)

    def run(count: int) -> None:
        for _ in range(count // BATCH):
            made({"pixel_values": pixels})

    return {case(count): partial(run, count) for count in COUNTS}


def end_to_end(folder: Path, tiny: bool) -> Calls:
    from vit_core.images.sources import image_sources
    from vitriad.embed import embed

    made = embedder(folder)

    def run(count: int) -> None:
        embed(made, image_sources(files(folder, count)), folder / "features.npz", force=True)

    return {case(count): partial(run, count) for count in COUNTS}


def process_alone(folder: Path, tiny: bool) -> Calls:
    python = runner(folder)

    def run(calls: int) -> None:
        python(["-W", "ignore", "-c", ALONE.format(folder=str(folder / "model"), batch=BATCH, calls=calls)])

    run(0)  # compiles
    return {"a process for none": partial(run, 0), PROCESS: partial(run, COUNTS[0] // BATCH)}


def command(folder: Path, tiny: bool) -> Calls:
    python = runner(folder)
    options = ["--model", str(folder / "model"), "--backend", "torch", "--out", str(folder / "out.npz"), "--force"]

    def run(count: int) -> None:
        python(["-m", "vitriad", "embed", *files(folder, count), *options])

    run(1)  # compiles
    return {PROCESS: partial(run, COUNTS[0])}


GROUPS = {
    "embedding": Group(
        "`vitriad embed` with ViT-B/16 in PyTorch",
        {
            "the model alone, batches of 8": Contender(model_alone, "floor"),
            "from files to a file": Contender(end_to_end, "ours"),
            "imports, loading, the model alone": Contender(process_alone, "floor"),
            "`vitriad embed`": Contender(command, "ours"),
        },
        prepare,
    )
}
