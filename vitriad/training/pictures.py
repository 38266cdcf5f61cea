"""What a run draws: the curves of everything it measures, and what a masked autoencoder paints after each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_core.tensors import Array
from vit_core.training.feeding import Fed
from vitriad.drawing import sheet
from vitriad.reconstruct import COLUMNS, note_on_pixels, painted_pixels, tiles
from vitriad.training.charts import Curve, charts
from vitriad.training.setup import Setup
from vitriad.viewing import save_picture

CURVES, RECONSTRUCTIONS = "curves.png", "reconstructions"
_POINTS = 400  # that a curve of steps is drawn with, each the mean of its neighbours
_SHOWN = 4  # images whose reconstructions are drawn


def draw_curves(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws the losses, the learning rate and the accuracy of a run."""
    steps, epochs = ([line for line in lines if name in line] for name in ("rate", "epoch"))
    held_out = [(line["step"], line["held_out_loss"]) for line in epochs]
    panels: dict[str, dict[str, Curve]] = {"loss": {"held out": held_out, "training": _smooth(steps, "loss")}}
    if any("accuracy" in line for line in epochs):
        panels["accuracy on held-out images"] = {"": [(line["step"], line["accuracy"]) for line in epochs]}
    panels["learning rate"] = {"": _smooth(steps, "rate")}
    save_picture(charts(panels, "step"), folder / CURVES)


def _smooth(lines: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """The values of the steps, as means of as many neighbours as leave few enough points."""
    pieces = np.array_split(np.arange(len(lines)), min(len(lines), _POINTS)) if lines else []
    means = [(np.mean([lines[i]["step"] for i in piece]), np.mean([lines[i][name] for i in piece])) for piece in pieces]
    return [(float(x), float(y)) for x, y in means]


def draw_reconstructions(folder: Path, epoch: int, fed: Fed, output: Mapping[str, Array], setup: Setup) -> None:
    """Draws what a masked autoencoder paints into the first held-out images; the same patches are always hidden."""
    if fed.batch is None:
        return
    pixels, removed = fed.batch.pixel_values[:_SHOWN], output["mask"][:_SHOWN] == 1
    painted = painted_pixels(setup.config, pixels, output["logits"][:_SHOWN])
    rows = {
        f"{number + 1}: {Path(fed.names[number]).name}": tiles(*each, setup.config, setup.feed.processor)
        for number, each in enumerate(zip(pixels, painted, removed, strict=True))
    }
    path = folder / RECONSTRUCTIONS / f"epoch-{epoch:04}.png"
    save_picture(sheet(COLUMNS, rows, [f"After epoch {epoch}.", note_on_pixels(setup.config)]), path)
