"""Whether an exported program computes what its model does: run by its real engine, compared with the float64 oracle.

The engine works in a process of its own, in which none of vitriad's backends is imported.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_core.config import pair, patch_grid
from vit_core.errors import BackendError, CheckpointError
from vit_core.files.npz import save_arrays
from vit_core.images.files import open_image
from vit_core.images.processor import ViTImageProcessor
from vit_core.likeness import likeness
from vit_core.masking import noise
from vit_core.parameters import has_pooler
from vit_core.programs import Program
from vit_core.reference import forward
from vit_core.tensors import Array, to_numpy
from vitriad.artefacts import Artefact
from vitriad.engines import engine_version, run_apart
from vitriad.models import digit_files
from vitriad.programs.certificate_files import decoded, encoded, prepared, whole_files
from vitriad.programs.held_out import HeldOut, Kept, measured
from vitriad.programs.precision import FLOATS, RECOMMENDED

_SEED = 0
_TINY = 1e-6  # what counts as the largest value of an output that is all zero

Inputs = dict[str, Array]


class Row(NamedTuple):
    """How far one output is off for one batch; errors are shares of its largest value.

    Attributes:
        output: its name.
        images: "pictures" or "random numbers", and how many of which size.
        worst, mean: error against the oracle.
        source: largest error against the model that was exported, as it computes here.
        cosine: the smallest of any image, with the oracle.
        top1: share of images whose largest logit is the oracle's; None for other outputs.
        top5: mean share of the five largest logits that are among the oracle's five; None for other outputs.
        kl: largest Kullback-Leibler divergence from the oracle's probabilities, in nats; None for other outputs.
    """

    output: str
    images: str
    worst: float
    mean: float
    source: float
    cosine: float
    top1: float | None
    top5: float | None
    kl: float | None


class Certificate(NamedTuple):
    """What the comparison found.

    Attributes:
        to: format of the program.
        engine: name and version of what ran it.
        tolerance: what `worst` may be; of 8-bit integers nothing is asked of it.
        rows: one for each output and batch.
        precision: of the program, such as "float32" or "int8 dynamic".
        min_cosine: what the smallest cosine of the first output has to be on pictures, in 8-bit integers; of the
            other outputs 0.99 is enough. None for floats.
        held_out: what is lost on pictures; None in float32.
        notes: what else was measured, a line each.
    """

    to: str
    engine: str
    tolerance: float | None
    rows: tuple[Row, ...]
    precision: str = "float32"
    min_cosine: float | None = None
    held_out: HeldOut | None = None
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """The largest error against the oracle; NaN if any output has one."""
        return float(np.max([row.worst for row in self.rows]))

    @property
    def holds(self) -> bool:
        """Whether every error is within the tolerance, or of 8-bit integers every cosine."""
        if self.tolerance is not None:
            return self.worst <= self.tolerance
        return self.held_out is not None and self.lacking is None and bool(np.isfinite(self.worst))

    @property
    def lacking(self) -> Kept | None:
        """The output whose cosine is too small; None for floats, too."""
        if self.min_cosine is None or self.held_out is None:
            return None
        return self.held_out.lacking(self.min_cosine, min(self.min_cosine, RECOMMENDED))

    @property
    def is_recommended(self) -> bool:
        """Whether so little is lost that nobody need think about it."""
        return self.holds and (self.held_out is None or self.held_out.worst >= RECOMMENDED)

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        held_out = None if self.held_out is None else self.held_out.as_dict()
        rows = [row._asdict() for row in self.rows]
        found = {"worst": self.worst, "holds": self.holds, "recommended": self.is_recommended}
        return {**self._asdict(), "rows": rows, "held_out": held_out, **found}

    def __str__(self) -> str:
        """One line."""
        if self.precision != "float32":
            return self._reduced()
        cosine, notes = min(row.cosine for row in self.rows), "".join(f"; {note}" for note in self.notes)
        classes = [row for row in self.rows if row.top1 is not None]
        agreed = ""
        if classes:
            top1, top5 = (np.mean([getattr(row, name) for row in classes]) for name in ("top1", "top5"))
            agreed = f", top-1 {top1:.0%}, top-5 {top5:.0%}, KL {max(row.kl or 0.0 for row in classes):.1e}"
        batches = len({row.images for row in self.rows})
        return (
            f"{self.to}: {'equal' if self.holds else 'NOT EQUAL'} to the float64 oracle: off by {self.worst:.1e} of "
            f"scale, {self.tolerance:g} allowed; cosine {cosine:.7f}{agreed}; {batches} batches, run by "
            f"{self.engine}{notes}"
        )

    def _reduced(self) -> str:
        if self.tolerance is not None:
            bound = f"off by {self.worst:.1e} of scale, {self.tolerance:g} allowed"
        else:
            bound = f"cosine of at least {self.min_cosine:g} asked for"
        verdict = "" if self.is_recommended else "NOT RECOMMENDED: " if self.holds else "TOO FAR: "
        return f"{self.to} in {self.precision}: {verdict}{bound}; {self.held_out}; run by {self.engine}"


def certify(
    artefact: Artefact, model: Any, pictures: Sequence[str | Path] = (), threads: int | None = None
) -> Certificate:
    """Runs a program and compares what it returns.

    Args:
        artefact: whose folder holds the program.
        model: of the class `artefact.program.model`, in any backend.
        pictures: image files to run it on, beside random numbers; none means the digits that come with vitriad.
        threads: that the engine may use; None leaves that to it.

    Raises:
        BackendError: the engine failed.
    """
    program = artefact.program
    files = pictures or digit_files()
    batches = _batches(program, artefact.processor, files)
    shown = [] if program.precision == "float32" else picture_batches(program, artefact.processor, files)
    whole = [_whole_files(program, files)] if _opens_files(program) else []
    asked = [[inputs for _, inputs in batches], shown, [inputs for _, inputs in whole]]
    computed = iter(run_alone(artefact, [*chain(*asked)], threads))
    found, on_shown, on_whole = ([*islice(computed, len(part))] for part in asked)
    tensors = {name: array.astype(np.float64) for name, array in model.canonical_tensors().items()}
    rows = []
    for (said, inputs), got in zip(batches, found, strict=True):
        named = _for_model(program, inputs)
        exact = program.selected(_exact(program, tensors, named), _mean)
        near = program.selected(_computed(model, named, program.options), _mean)
        for name, *arrays in zip(program.outputs, got, exact, near, strict=True):
            rows.append(_row(name, said, *(np.asarray(array, np.float64) for array in arrays)))
    expected = [program.selected(_exact(program, tensors, _for_model(program, inputs)), _mean) for inputs in shown]
    loss = measured(program.outputs, on_shown, expected) if shown else None
    tolerance = FLOATS[program.dtype] if program.int8 is None else None
    notes = [_file_note(artefact, model, *each, got) for each, got in zip(whole, on_whole, strict=True)]
    stated = (program.precision, artefact.min_cosine, loss, tuple(notes))
    return Certificate(artefact.to, engine_version(artefact.to), tolerance, tuple(rows), *stated)


def check(certificate: Certificate, where: str | Path) -> None:
    """Raises unless a certificate holds.

    Raises:
        CheckpointError: naming the output that is furthest off.
    """
    if certificate.holds:
        return
    if kept := certificate.lacking:
        raise CheckpointError(
            f"{where}: {certificate.to} in {certificate.precision}: {kept.output} has a cosine of {kept.worst:.4f} for "
            f"a picture, {certificate.min_cosine:g} is asked for (of other outputs than the first at most 0.99).\n"
            "Nothing was written. min_cosine (--min-cosine) lowers the bound; other integers or a float may do better."
        )
    worst = max(certificate.rows, key=lambda row: np.nan_to_num(row.worst, nan=np.inf))
    raise CheckpointError(
        f"{where}: the program does not compute what the model does: {worst.output} is off by {worst.worst:.1e} of its "
        f"largest value for {worst.images}, at most {certificate.tolerance:g} is allowed.\n"
        f"Nothing was written. {certificate.engine} ran it; another version of the converter may do better."
    )


# --- what it is run on -----------------------------------------------------------------------------------------------


def _batches(
    program: Program, processor: ViTImageProcessor | None, pictures: Sequence[str | Path]
) -> list[tuple[str, Inputs]]:
    """Batches of one to three images, by what they are: pictures and random numbers in turn."""
    batches = []
    for i, (height, width) in enumerate(_sizes(program)):
        count, is_picture = 1 + i % 3, i % 2 == 0
        if is_picture:
            files = [pictures[(i + j) % len(pictures)] for j in range(count)]
            images = np.stack([_picture(file, program, processor, (height, width)) for file in files])
        else:
            images = _random(program, (count, height, width))
        beside = _beside(program, (count, program.patches(height, width)), i)
        inputs = {program.inputs[0].name: _as_taken(program, images), **beside}
        what = ("picture" if is_picture else "image of random numbers") + "s" * (count > 1)
        batches.append((f"{count} {what} of {height}x{width}", inputs))
    return batches


def picture_batches(
    program: Program, processor: ViTImageProcessor | None, pictures: Sequence[str | Path], count: int = 4
) -> list[Inputs]:
    """All pictures as a program takes them, in batches of its own size, or of the configuration's."""
    size = program.size or pair(program.config.image_size)
    batches = []
    for start in range(0, len(pictures), count):
        images = np.stack([_picture(file, program, processor, size) for file in pictures[start : start + count]])
        beside = _beside(program, (len(images), program.patches(*size)), start)
        batches.append({program.inputs[0].name: _as_taken(program, images), **beside})
    return batches


def _as_taken(program: Program, images: Array) -> Array:
    """Images as a program takes them: as they are, or in files."""
    return encoded(images, program.pixels.layout) if program.pixels and program.pixels.opens_files else images


def _opens_files(program: Program) -> bool:
    return program.pixels is not None and program.pixels.opens_files


def _beside(program: Program, shape: tuple[int, int], step: int) -> Inputs:
    """The other inputs, (batch, patches)."""
    drawn = noise(_SEED, *shape, step=step)
    return {each.name: drawn if each.dtype == "float32" else drawn < 0.5 for each in program.inputs[1:]}


def _whole_files(program: Program, pictures: Sequence[str | Path]) -> tuple[list[str | Path], Inputs]:
    """Pictures of any size, and a batch of what is in them, for a program that opens and resizes files."""
    chosen, files = whole_files(pictures, program.pixels.layout if program.pixels else "")
    return chosen, {"images": files, **_beside(program, (len(files), program.patches(*program.example_size)), 0)}


def _file_note(artefact: Artefact, model: Any, chosen: Sequence[str | Path], inputs: Inputs, got: list[Array]) -> str:
    """How far files that TensorFlow opens and resizes are from the same ones in the processor's hands."""
    program = artefact.program
    if artefact.processor is None or not chosen:
        return "no file to compare with Pillow: give pictures in JPEG, PNG, GIF or BMP"
    pixels = prepared(chosen, artefact.processor, program.config.num_channels)
    named = {**inputs, "pixel_values": pixels}
    del named["images"]
    near = program.selected(_computed(model, named, program.options), _mean)
    scales = [max(float(np.abs(each).max()), _TINY) for each in near]
    off = max(float(np.abs(a - b).max()) / scale for a, b, scale in zip(got, near, scales, strict=True))
    return f"{len(chosen)} files opened and resized by TensorFlow instead of Pillow: outputs {off:.1e} of scale apart"


def _sizes(program: Program) -> list[tuple[int, int]]:
    """(height, width) of each batch: of a program for any size also as many patches in other grids, which would fit a
    position table that the converter took for a constant."""
    if program.size is not None:
        return [program.size] * 3
    rows, columns = patch_grid(program.config)
    height, width = pair(program.config.patch_size)
    parts = [part for part in range(2, rows * columns) if rows * columns % part == 0 and part != rows]
    flat = parts[len(parts) // 2] if parts else 1
    fewer = max(min(rows, 2), rows // 2)  # torch.export takes a single row of patches for a constant
    grids = [(rows, columns), (flat, rows * columns // flat), (rows + 2, columns + 1), (fewer, columns)]
    sizes = [(down * height, across * width) for down, across in grids]
    return [*sizes, ((rows + 1) * height, (columns + 3) * width)]


def _picture(file: str | Path, program: Program, processor: ViTImageProcessor | None, size: tuple[int, int]) -> Array:
    """An image file as the program takes it, resized by Pillow."""
    height, width = size
    channels = program.config.num_channels
    image = open_image(file).convert("L" if channels == 1 else "RGB")
    resized = np.asarray(image.resize((width, height)), np.uint8)
    pixels = resized.reshape(height, width, -1)
    if channels not in (1, 3):
        pixels = np.repeat(pixels[..., :1], channels, axis=2)
    if program.pixels is not None:
        return pixels if program.pixels.layout != "nchw" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    steps: dict[str, Any] = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
    known = processor or ViTImageProcessor(image_mean=[0.5] * channels, image_std=[0.5] * channels)
    found: Array = known.preprocess(pixels, return_tensors="np", **steps)["pixel_values"][0]
    return found.astype(np.float32)


def _random(program: Program, shape: tuple[int, int, int]) -> Array:
    count, height, width = shape
    random, channels = np.random.default_rng([_SEED, *shape]), program.config.num_channels
    if program.pixels is None:
        return random.standard_normal((count, channels, height, width)).astype(np.float32)
    sides = (height, width, channels) if program.pixels.layout != "nchw" else (channels, height, width)
    return random.integers(0, 256, (count, *sides), np.uint8)


def _for_model(program: Program, inputs: Inputs) -> Inputs:
    """The inputs of the model for those of the program: pixel values, by the table, for uint8 images and files."""
    if program.pixels is None:
        return inputs
    images, table = inputs["images"], program.pixels.table
    if program.pixels.opens_files:
        images = decoded(images, program.pixels.layout)
    if program.pixels.layout != "nchw":
        images = images.transpose(0, 3, 1, 2)
    pixel_values = np.stack([table[i][images[:, i]] for i in range(len(table))], axis=1)
    return {"pixel_values": pixel_values, **{name: value for name, value in inputs.items() if name != "images"}}


# --- what runs it ----------------------------------------------------------------------------------------------------


def run_alone(artefact: Artefact, batches: Sequence[Inputs], threads: int | None = None) -> list[list[Array]]:
    """The outputs for every batch, computed by the engine in a process of its own.

    Raises:
        BackendError: the engine failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, taken = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        arrays = {f"{i} {name}": array for i, inputs in enumerate(batches) for name, array in inputs.items()}
        save_arrays(given, arrays)
        asked: dict[str, Any] = {"folder": str(artefact.folder), "to": artefact.to, "outputs": artefact.program.outputs}
        asked |= {"inputs": [each.name for each in artefact.program.inputs], "batches": len(batches)}
        asked["threads"] = threads
        run_apart(
            "worker", asked, [given, taken], f"{artefact.to}: {engine_version(artefact.to)} cannot run the program"
        )
        with np.load(taken) as found:
            return [[found[f"{i} {name}"] for name in artefact.program.outputs] for i in range(len(batches))]


def _exact(program: Program, tensors: Mapping[str, Array], inputs: Inputs) -> dict[str, Any]:
    options: dict[str, Any] = {
        name: value for name, value in program.options.items() if name in ("interpolate_pos_encoding", "mask_ratio")
    }
    pooled = {"add_pooling_layer": has_pooler(program.config, tensors)}
    arguments: dict[str, Any] = {**inputs, **options, **pooled}
    return forward(program.model, program.config, tensors, **arguments)


def _computed(model: Any, inputs: Inputs, options: Mapping[str, Any]) -> dict[str, Any]:
    output = model(**inputs, **options)
    return {
        name: tuple(map(to_numpy, value)) if isinstance(value, tuple) else to_numpy(value)
        for name, value in output.items()
    }


def _mean(patches: Array) -> Array:
    mean: Array = patches.mean(axis=1)
    return mean


# --- comparing -------------------------------------------------------------------------------------------------------


def _row(output: str, images: str, got: Array, exact: Array, near: Array) -> Row:
    if got.shape != exact.shape:
        raise BackendError(f"{output}: the program returns {got.shape} for {images}, the model {exact.shape}.")
    scale = max(float(np.abs(exact).max()), _TINY)
    off = np.abs(got - exact)
    source = float(np.abs(got - near).max()) / scale
    worst, mean = float(off.max()) / scale, float(off.mean()) / scale
    return Row(output, images, worst, mean, source, *likeness(output, got, exact))


def text(certificate: Certificate) -> str:
    """The text of certificate.json."""
    return json.dumps(certificate.as_dict(), indent=2) + "\n"
