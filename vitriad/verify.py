"""`vitriad verify`: whether two checkpoints compute the same."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conversion.folds import LOSSY
from conversion.loading import plan
from conversion.report import report_of
from vit_core.config import pair, patch_grid
from vit_core.errors import InputError
from vit_core.images.sources import image_paths
from vit_core.likeness import COLUMNS, Likeness, cells, likeness
from vit_core.masking import noise
from vit_core.tensors import Array, to_numpy
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.engines import artefact_folder, check_engine
from vitriad.models import find
from vitriad.option_groups import check_images, reading_options
from vitriad.printing import print_table
from vitriad.viewing import prepared

_SEED = 0
TOLERANCE = 1e-5  # of an output's largest value
# What says how the same weights are computed with; a conversion may change these if it is allowed to.
_NUMERICS = ("hidden_act", "layer_norm_eps", "pooler_act", "norm_pix_loss")
_SIZES = ("image_size", "num_channels")  # both models have to take the same image
_SIZES_OF = {"ViTForImageClassification": ("num_labels",), "ViTMAEModel": ("patch_size",)}
_SIZES_OF["ViTMAEForPreTraining"] = _SIZES_OF["ViTMAEModel"]
_LEFT_OUT = "left out, as allowed: "
_POOLER = "pooler.dense.weight"


def run(arguments: Namespace) -> int:
    """Prints the largest difference of every output, and what explains it; 1 if one is above the tolerance."""
    check_images(arguments)
    if folder := artefact_folder(arguments.target):
        return _verify_program(arguments, folder)
    check_engine(arguments.target, arguments.backend)
    if arguments.threads or arguments.machine_code:
        raise InputError(f"verify: --threads and --machine-code are for exported programs, {arguments.target} is none.")
    tolerance = TOLERANCE if arguments.tolerance is None else arguments.tolerance
    found = compare(
        arguments.source,
        arguments.target,
        arguments.backend,
        arguments.images,
        arguments.processor,
        **reading_options(arguments),
    )
    rows = found["outputs"]
    worst = max(row["difference"] / row["scale"] for row in rows)
    is_same = bool(worst <= tolerance)  # no NaN is
    if arguments.json:
        print(json.dumps({"same": is_same, "tolerance": tolerance, **found}))
    else:
        table = [("output", "largest difference", "largest value", *COLUMNS)]
        for row in rows:
            table.append((row["output"], f"{row['difference']:.2e}", f"{row['scale']:.3g}", *cells(row)))
        print_table(table)
        for note in found["notes"]:
            print(f"note: {note}")
        print(_verdict(rows, tolerance))
    return 0 if is_same else 1


def _verify_program(arguments: Namespace, folder: Path) -> int:
    """Makes the certificate of an exported program anew, from the checkpoint that it is said to compute."""
    from vitriad.artefacts import check_format, check_trusted, read_artefact
    from vitriad.programs.certificate import certify

    artefact = read_artefact(folder)
    check_trusted(artefact, arguments.machine_code)
    if arguments.processor is not None:
        raise InputError(f"verify: --processor: {arguments.target} is a program, which has its own in vitriad.json.")
    backend = arguments.backend
    if backend not in BACKENDS:  # which are those of the source
        check_format(artefact, backend)
        backend = "auto"
    options = {name: value for name, value in reading_options(arguments).items() if name != "cls"}
    if artefact.program.model == "ViTModel":
        options["add_pooling_layer"] = artefact.program.has_pooler
    model = model_class(artefact.program.model, backend).from_pretrained(find(arguments.source), **options)
    certificate = certify(artefact, model, list(image_paths(arguments.images)), arguments.threads)
    if arguments.tolerance is not None:
        if artefact.program.int8 is not None:
            raise InputError("verify: --tolerance: a program of 8-bit integers is judged by its cosines.")
        certificate = certificate._replace(tolerance=arguments.tolerance)
    print(json.dumps(certificate.as_dict()) if arguments.json else certificate)
    return 0 if certificate.holds else 1


def _verdict(rows: list[dict[str, Any]], tolerance: float) -> str:
    """The last line: how many outputs differ, and by how much the one that differs most."""
    shares = {row["output"]: row["difference"] / row["scale"] for row in rows}
    differing = [name for name, share in shares.items() if not share <= tolerance]  # NaN differs
    if not differing:
        return f"the same: 0 of {len(rows)} outputs differ by more than {tolerance:g} of their largest value"
    most = max(differing, key=lambda name: np.nan_to_num(shares[name], nan=np.inf))
    return (
        f"not the same: {len(differing)} of {len(rows)} outputs differ by more than {tolerance:g} of their largest "
        f"value, {most} by {shares[most]:.2e}"
    )


def compare(
    src: str,
    dst: str,
    backend: str = "auto",
    images: Sequence[str] = (),
    processor: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Every output of two checkpoints for the same images, read for the class that the first one holds.

    Args:
        src, dst: folders, weight files of any dialect, or hub names.
        backend: as for `vitriad.load`.
        images: image files and folders; none for one image of noise of the normal distribution.
        processor: image processor in place of the first checkpoint's: folder, JSON file or hub name.
        **options: as for `conversion.load`.

    Returns:
        outputs: for every one its name, the largest difference, the largest value (at least 1e-6) of the first, and
            the fields of `vit_core.likeness.Likeness`; where the two compute with other constants, also how much of the
            difference these alone make ("expected"), and what is left without them ("rest").
        images: how many.
        notes: what explains a difference, a line each: other constants, and what was left out because it was allowed.

    Raises:
        InputError: the two are of different sizes, or nothing tells how images are prepared.
        ImageError: an image that cannot be used.
        CheckpointError: one of them lacks weights that the class has: what would stand there is drawn at random.
    """
    _, config, name, _ = first = plan(find(src), **options)
    second = plan(find(dst), **{**options, "cls": name})
    other = second[1]
    _check_sizes(name, src, config, dst, other)
    reading = {key: value for key, value in options.items() if key != "cls"}
    if name == "ViTModel":
        reading = {"add_pooling_layer": _has_pooler(src, first, dst, second, options.get("cls") is not None), **reading}
    cls = model_class(name, backend)
    inputs = {"pixel_values": prepared(images, src, config, processor) if images else _noise(config)}
    if config.model_type == "vit_mae":
        inputs["noise"] = noise(_SEED, len(inputs["pixel_values"]), int(np.prod(patch_grid(config))))

    def outputs(path: str, **fields: Any) -> dict[str, Array]:
        output = cls.from_pretrained(find(path), **{**reading, **fields})(**inputs)
        return {key: np.asarray(to_numpy(output[key]), np.float64) for key in output}

    changed = {field: getattr(other, field) for field in _numerics(config, other)}
    one, two = outputs(src), outputs(dst)
    between = outputs(src, **changed) if changed else None
    rows = [_row(key, one, two, between, src, dst) for key in one]
    notes = [_numerics_note(config, changed, src, dst, rows)] if changed else []
    for path, planned in ((src, first), (dst, second)):
        left = [note for note in report_of(*planned).notes if note.startswith(_LEFT_OUT)]
        notes += [
            f"{path}: {note}; its own program computes with it, and how far that is cannot be told" for note in left
        ]
    return {"outputs": rows, "images": len(inputs["pixel_values"]), "notes": notes}


def _has_pooler(src: str, first: Any, dst: str, second: Any, is_asked_for: bool) -> bool:
    """Whether to compare poolers: where both have one. Asked for a ViTModel, what one of them lacks is left out."""
    has, other_has = (_POOLER in fitted.tensors for *_, fitted in (first, second))
    if not has or other_has or is_asked_for:
        return has and other_has
    if any(name.startswith("classifier.") for name in first[0].arrays):
        raise InputError(
            f"verify: {src}: {LOSSY['pre_logits']}; {dst} was written without it (--allow pre_logits).\n"
            "Their logits differ. --class ViTModel compares what is below; --class ViTForImageClassification "
            "--allow pre_logits reads both without the layer."
        )
    raise InputError(f"verify: {src} has a pooler and {dst} has none.\n--class ViTModel compares them without it.")


def _check_sizes(name: str, src: str, config: Any, dst: str, other: Any) -> None:
    for field in (*_SIZES, *_SIZES_OF.get(name, ())):
        one, two = (getattr(each, field) for each in (config, other))
        if one != two:
            advice = "\n--class ViTModel compares them without their heads." if field == "num_labels" else ""
            raise InputError(f"verify: {field} {one} in {src} and {two} in {dst}: nothing to compare.{advice}")


def _numerics(config: Any, other: Any) -> list[str]:
    """The fields by which two configurations compute differently from the same weights."""
    return [field for field in _NUMERICS if getattr(config, field, None) != getattr(other, field, None)]


def _row(
    key: str, first: dict[str, Array], second: dict[str, Array], between: dict[str, Array] | None, src: str, dst: str
) -> dict[str, Any]:
    one, two = first[key], second[key]
    if one.shape != two.shape:
        raise InputError(f"verify: {key}: {one.shape} of {src} and {two.shape} of {dst}: nothing to compare.")
    row = {"output": key, "difference": _largest(one - two), "scale": max(_largest(one), 1e-6)}
    row |= likeness(key, two, one)._asdict() if one.ndim else dict.fromkeys(Likeness._fields)  # no image's: a loss
    if between is not None:
        row |= {"expected": _largest(one - between[key]), "rest": _largest(between[key] - two)}
    return row


def _largest(array: Array) -> float:
    return float(np.abs(array).max())


def _numerics_note(config: Any, changed: dict[str, Any], src: str, dst: str, rows: list[dict[str, Any]]) -> str:
    """What the other constants are, and how far apart they alone put the outputs."""
    said = ", ".join(
        f"{field} {getattr(config, field)!r} in {src} and {changed[field]!r} in {dst}" for field in changed
    )
    worst = max(rows, key=lambda row: row["expected"] / row["scale"])
    expected, rest = (worst[key] / worst["scale"] for key in ("expected", "rest"))
    return (
        f"{said}: with the weights of {src} that alone makes {expected:.2e} of the largest value of {worst['output']}; "
        f"with the same constants {rest:.2e} are left"
    )


def _noise(config: Any) -> Array:
    """One image of random numbers: (1, channels, height, width), float32."""
    shape = (1, config.num_channels, *pair(config.image_size))
    drawn: Array = np.random.default_rng(_SEED).standard_normal(shape).astype(np.float32)
    return drawn
