"""What a program in less than float32 loses on pictures, and what it gains."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_core.files.npz import save_arrays
from vit_core.likeness import best, cosines, divergences, has_classes, in_common
from vit_core.tensors import Array
from vitriad.engines import run_apart


class Kept(NamedTuple):
    """How near one output stays to the float64 oracle's.

    Attributes:
        output: its name.
        mean, worst: cosine of a picture's numbers with the oracle's.
    """

    output: str
    mean: float
    worst: float


class HeldOut(NamedTuple):
    """What was measured on pictures.

    Attributes:
        pictures: how many.
        outputs: how near each stays; the first one is what the program is for.
        top1: share of pictures whose largest logit is the oracle's; None for programs of no logits.
        kl: mean Kullback-Leibler divergence from the oracle's probabilities, in nats; None likewise.
        bytes: size of the program's files.
        size: the same as a share of the float32 program's; None where that one is not at hand.
        speed: how many times as fast as the float32 program, in the same process and in turn with it; None likewise.
    """

    pictures: int
    outputs: tuple[Kept, ...]
    top1: float | None
    kl: float | None
    bytes: int | None = None
    size: float | None = None
    speed: float | None = None

    @property
    def worst(self) -> float:
        """The smallest cosine of any output and picture; NaN if one is."""
        return float(np.min([kept.worst for kept in self.outputs]))

    def lacking(self, least: float, others: float) -> Kept | None:
        """The output that is furthest below its bound, or None.

        Args:
            least: what the cosines of the first output have to be.
            others: what those of the others have to be.
        """
        bounds = [least, *[others] * (len(self.outputs) - 1)]
        missing = [bound - np.nan_to_num(kept.worst, nan=-1) for kept, bound in zip(self.outputs, bounds, strict=True)]
        place = int(np.argmax(missing))
        return self.outputs[place] if missing[place] > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {**self._asdict(), "outputs": [kept._asdict() for kept in self.outputs], "worst": self.worst}

    def __str__(self) -> str:
        """Part of a line."""
        first = self.outputs[0]
        said = f"{first.output} of {self.pictures} pictures: cosine {first.mean:.5f} (mean), {first.worst:.5f} (worst)"
        if self.top1 is not None and self.kl is not None:
            said += f", top-1 {self.top1:.1%}, KL {self.kl:.1e}"
        if self.size is not None and self.speed is not None:
            said += f"; {self.size:.0%} of float32's size, {self.speed:.2f} x its speed"
        return said


def measured(outputs: Sequence[str], got: Sequence[Sequence[Array]], exact: Sequence[Sequence[Any]]) -> HeldOut:
    """The loss, from what the program returned for every batch and from what the oracle did."""
    joined = [
        [np.concatenate([np.asarray(each[i], np.float64) for each in batches]) for i in range(len(outputs))]
        for batches in (got, exact)
    ]
    kept = []
    for name, *pair in zip(outputs, *joined, strict=True):
        near = cosines(*pair)
        kept.append(Kept(name, float(near.mean()), float(near.min())))
    ours, theirs = joined[0][0], joined[1][0]
    top1 = kl = None
    if has_classes(outputs[0], theirs):
        top1 = float(in_common(best(ours, 1), best(theirs, 1)).mean())
        kl = float(divergences(ours, theirs).mean())
    return HeldOut(len(theirs), tuple(kept), top1, kl)


def against_float32(
    held_out: HeldOut, folder: Path, full: Path, to: str, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> HeldOut:
    """The same with size and speed, beside the float32 program.

    Args:
        folder: of the program alone.
        full: of the same one in float32.
        inputs: one batch.

    Raises:
        BackendError: the engine failed.
    """
    sizes = [sum(path.stat().st_size for path in each.rglob("*") if path.is_file()) for each in (folder, full)]
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "inputs.npz"
        save_arrays(given, inputs)
        asked = {"folders": [str(full), str(folder)], "to": to, "inputs": [*inputs], "outputs": [*outputs]}
        speed = json.loads(run_apart("race", asked, [given], f"{to}: the program cannot be timed"))
        return held_out._replace(bytes=sizes[0], size=sizes[0] / sizes[1], speed=speed)
