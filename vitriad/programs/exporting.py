"""Models as programs for other engines, each with a certificate that it computes the same."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tqdm import tqdm

from conversion.auto import architecture
from conversion.detecting import open_source
from conversion.processors import find_processor
from vit_core.config import pair
from vit_core.errors import BackendError, CheckpointError, InputError, VitError
from vit_core.files.atomic_folder import replacing, sync_files
from vit_core.files.targets import check_target
from vit_core.images.processor import ViTImageProcessor
from vit_core.installing import own_version
from vit_core.parameters import class_name
from vit_core.programs import FILES, Program, pixels_of, settle
from vit_core.tensors import Array, digest
from vitriad.artefacts import CERTIFICATE, Artefact, records
from vitriad.auto import model_class
from vitriad.backends import BACKENDS, backend_name
from vitriad.engines import DESCRIPTION, ENGINES, engine_of
from vitriad.identity import encoder_digest
from vitriad.models import digit_files, find
from vitriad.programs.certificate import Certificate, certify, check, picture_batches, text
from vitriad.programs.held_out import against_float32
from vitriad.programs.precision import (
    COSINES,
    Tool,
    check_calibration,
    is_made_from_file,
    quantise_file,
    reduced_model,
    tool_of,
)

_STAGES = ("convert", "certify", "sync")
_NAMES = {"pt": "torch", "tf": "tf", "jax": "flax", "flax": "flax"}  # model.framework -> backend


class Format(NamedTuple):
    """How programs of a format are written.

    Attributes:
        converters: which backends can write it, the usual one first -> what pip calls the libraries that do.
        folders: folders that it has beside its files.
        opens_files: whether its programs can open and resize image files.
        one_size: backends whose converter writes programs for images of one size only -> the converter that was tried.
    """

    converters: Mapping[str, tuple[str, ...]]
    folders: tuple[str, ...] = ()
    opens_files: bool = False
    one_size: Mapping[str, str] = MappingProxyType({})


FORMATS = {
    "onnx": Format(
        {"torch": ("torch", "onnxscript"), "tf": ("tensorflow", "tf2onnx"), "flax": ("jax", "flax", "jax2onnx")},
        one_size={"flax": "jax2onnx 0.17.1"},
    ),
    "openvino": Format({"torch": ("torch", "openvino")}),
    "pt2": Format({"torch": ("torch",)}),
    "aoti": Format({"torch": ("torch",)}),
    "litert": Format({"tf": ("tensorflow",)}),
    "savedmodel": Format({"tf": ("tensorflow", "keras")}, ("variables", "assets"), opens_files=True),
    "stablehlo": Format({"flax": ("jax", "flax")}),
}


def export(
    model: Any,
    path: str | Path,
    to: str = "onnx",
    *,
    outputs: str | None = None,
    layers: Sequence[int] = (),
    dynamic: str = "batch",
    image_size: int | tuple[int, int] | None = None,
    image_processor: ViTImageProcessor | None = None,
    preprocessing: str | None = None,
    dtype: str = "float32",
    int8: str | None = None,
    calibration: Sequence[str | Path] = (),
    min_cosine: float | None = None,
    pictures: Sequence[str | Path] = (),
    force: bool = False,
    backend: str = "auto",
) -> Certificate:
    """Writes a model as a program that runs without vitriad, once an engine has shown that it computes the same.

    The folder gets the program, `vitriad.json`, which describes it, and `certificate.json`. `vitriad.load` of the
    folder gives a function like the model. The batch may have any size.

    Args:
        model: of any backend, or what `vitriad.load` takes.
        path: folder to write; it appears as a whole, or not at all.
        to: "onnx", "openvino", "pt2" (torch.export), "aoti" (the same, compiled to machine code), "litert" or
            "savedmodel" (TensorFlow), "stablehlo" (jax.export).
        outputs: "logits", "features" (class token, mean of the patches, tokens), "reconstruction" or "attentions"; None
            for what the class is for.
        layers: of features: hidden states to return as well, by layer; 0 is what enters the first one.
        dynamic: "batch", or "size" as well: images of any height and width, their positions resized inside.
        image_size: pixels, int or (height, width), for another fixed size than the configuration's.
        image_processor: recorded in `vitriad.json`, and what `preprocessing` takes; of a model given by name its own.
        preprocessing: "nhwc" or "nchw": the program takes uint8 images in this layout, and rescales and normalises them
            as the image processor does, bit for bit. "bytes" or "base64", of a SavedModel: image files, which it also
            opens and resizes; the certificate says how far that is from Pillow.
        dtype: "float32", or "bfloat16" or "float16": of its weights and of what it computes in.
        int8: "weights", "dynamic" or "static", for matrices of 8-bit integers; see docs/guides/export.md for which
            formats have it.
        calibration: image files that int8="static" takes its scales from.
        min_cosine: the smallest cosine with the oracle that a picture may have in int8; None for 0.997, or of "static"
            0.99.
        pictures: image files that the certificate is made with, beside random numbers; none means digits.
        force: replace what is there.
        backend: of a model given by name.

    Raises:
        InputError: a choice that the model or the format does not have.
        BackendError: a package is missing, or the converter refuses the model.
        CheckpointError: the program computes something else, or the folder cannot be written.
        ImageError: a picture cannot be read.
    """
    if to not in FORMATS:
        raise InputError(f"to: expected one of {', '.join(FORMATS)}, got {str(to)[:80]!r}.")
    engine_of(to)
    check_target(path, is_folder=True, error=CheckpointError)
    if not force and os.path.isdir(path) and os.listdir(path):
        raise CheckpointError(f"{path}: something is there already.\nforce=True (--force) replaces it.")
    if isinstance(model, str | os.PathLike):
        model, found = loaded(model, to, backend)
        image_processor = image_processor or found
    _check_framework(model, to, dynamic)
    if preprocessing in FILES and not FORMATS[to].opens_files:
        able = ", ".join(name for name, known in FORMATS.items() if known.opens_files)
        raise InputError(f"preprocessing: {preprocessing}: image files are opened by programs of {able}, got {to}.")
    program, model = settled(model, outputs, layers, dynamic, image_size, image_processor, preprocessing, dtype, int8)
    job = _job(program, to, _NAMES[model.framework], image_processor, calibration, pictures, min_cosine)
    return _written(model, Path(path), job)


def loaded(
    name_or_path: str | os.PathLike[str], to: str, backend: str = "auto", cls: str | None = None, **options: Any
) -> tuple[Any, ViTImageProcessor | None]:
    """A model in a backend that writes a format, and how its images are prepared, where that is known.

    Args:
        name_or_path: what `vitriad.load` takes.
        to: the format.
        backend: "auto" for the usual one.
        cls: class to read it for; None for the one that it asks for.
        **options: as for `from_pretrained`.

    Raises:
        InputError: the backend does not write the format, or the checkpoint lacks weights of the class. A ViTModel
            without weights for a pooler has none.
    """
    known, path = [*FORMATS[to].converters], find(str(name_or_path))
    chosen = known[0] if backend == "auto" else backend_name(backend)
    if chosen not in known:
        raise InputError(f"to: {to} is written from {' or '.join(known)}, got backend={backend!r}.")
    config, name, parts = architecture(path, **options)
    model_type = model_class(cls or name, chosen)
    model, info = model_type.from_pretrained(path, output_loading_info=True, **{**parts, **options})
    drawn = [*info["missing_keys"], *info["mismatched_keys"]]
    if drawn and all(each.startswith("pooler.") for each in drawn):
        model, drawn = model_type.from_pretrained(path, **{**options, "add_pooling_layer": False}), []
    if drawn:
        raise InputError(
            f"export: {path}: as a {cls or name} it lacks {drawn[0]}, which would be random numbers.\n"
            "Name a class that has no such part: cls= (--class)."
        )
    source = open_source(path, revision=config.hub_commit, verify=False)
    return model, find_processor(source, model.config).processor


def _check_framework(model: Any, to: str, dynamic: str) -> None:
    known, one_size = [*FORMATS[to].converters], FORMATS[to].one_size
    found = _NAMES.get(getattr(model, "framework", ""), type(model).__name__)
    if found not in known:
        raise InputError(
            f"to: {to} is written from {' or '.join(known)}, got a model of {found}.\n"
            f"Save it, and export the folder: vitriad.export(folder, ..., to={to!r})."
        )
    if dynamic == "size" and found in one_size:
        raise BackendError(
            f"{to}: {one_size[found]} writes programs of {found} for images of one size only, got dynamic='size'.\n"
            f"Write it from {' or '.join(name for name in known if name not in one_size)}, or fix the size: image_size."
        )


def _source(model: Any) -> dict[str, str]:
    """What a program is made from: of the hub its name and commit, and digests of the whole model and the encoder."""
    config = model.config
    hub = {"repository": f"{config.name_or_path}@{config.hub_commit}"} if config.hub_commit else {}
    return {**hub, "weights_sha256": digest(model.canonical_tensors()), "encoder_sha256": encoder_digest(model)}


def settled(
    model: Any,
    outputs: str | None,
    layers: Sequence[int],
    dynamic: str,
    image_size: int | tuple[int, int] | None,
    processor: ViTImageProcessor | None,
    preprocessing: str | None,
    dtype: str = "float32",
    int8: str | None = None,
) -> tuple[Program, Any]:
    """What is to be written, and the model that computes it: of features and attentions the encoder."""
    if dynamic not in ("batch", "size"):
        raise InputError(f"dynamic: expected batch or size, got {dynamic!r}.")
    if dynamic == "size" and image_size is not None:
        raise InputError("image_size fixes the size of images, and dynamic='size' leaves it open: give one of them.")
    if preprocessing is not None and processor is None:
        raise InputError("preprocessing: needs an image_processor, whose rescaling and normalisation to take.")
    if getattr(model, "training", False):  # of torch; the others compute as in evaluation unless they are told
        raise InputError(
            "export: the model is in training mode, where dropout draws numbers.\nCall model.eval() first."
        )
    config = model.config
    size = None if dynamic == "size" else pair(image_size or config.image_size)
    pixels = None if preprocessing is None else pixels_of(processor, config.num_channels, preprocessing, size)  # type: ignore[arg-type]
    chosen: dict[str, Any] = {"purpose": outputs, "size": size, "layers": tuple(layers), "pixels": pixels}
    chosen |= {"dtype": dtype, "int8": int8}
    name = class_name(type(model))
    program = settle(name, config, **chosen)
    if program.model == name:
        has_pooler = bool(model.options.get("add_pooling_layer"))
        program = settle(name, config, **chosen, has_pooler=has_pooler)
    encoder = model if program.model == name else model.base_model
    dtypes = {array.dtype.name for array in encoder.canonical_tensors().values()}
    if dtypes != {"float32"}:
        raise InputError(f"export: expected a model in float32, got {', '.join(sorted(dtypes))}.")
    return program, encoder


class _Job(NamedTuple):
    """An export once it is known that it can be done."""

    program: Program
    to: str
    backend: str
    processor: ViTImageProcessor | None
    tool: Tool
    calibration: Sequence[Mapping[str, Array]]
    pictures: Sequence[str | Path]
    min_cosine: float | None

    @property
    def packages(self) -> tuple[str, ...]:
        """What pip calls the libraries that write the program."""
        return (*FORMATS[self.to].converters[self.backend], *self.tool.distributions)


def _job(
    program: Program,
    to: str,
    backend: str,
    processor: ViTImageProcessor | None,
    calibration: Sequence[str | Path],
    pictures: Sequence[str | Path],
    min_cosine: float | None,
) -> _Job:
    """Raises for a precision that cannot be had, and for images that cannot be read."""
    tool = tool_of(to, backend, program)
    check_calibration(program.int8, calibration, pictures)
    if min_cosine is not None and program.int8 is None:
        raise InputError(f"min_cosine: only of int8 programs; of {program.dtype} the error is bounded.")
    if program.int8 is not None and min_cosine is None:
        min_cosine = COSINES[program.int8]
    images = picture_batches(program, processor, calibration, 1)
    return _Job(program, to, backend, processor, tool, images, pictures, min_cosine)


def _written(model: Any, path: Path, job: _Job) -> Certificate:
    """Writes the folder, and lets it appear once the certificate holds."""
    size = sum(array.nbytes for array in model.canonical_tensors().values())
    names = {engine.file for engine in ENGINES.values()} | {DESCRIPTION, CERTIFICATE}
    stems = ("model.", "fingerprint.", "keras_metadata.")
    folders = [name for each in FORMATS.values() for name in each.folders]

    def is_replaced(name: str) -> bool:
        return name in names or name.startswith(stems)

    with (
        _progress(job.to) as begin,
        replacing(path, size=2 * size, is_replaced=is_replaced, folders=folders) as new,
    ):
        inside, full = new / ".program", new / ".float32"  # alone, so that only its files are recorded
        inside.mkdir()
        begin("convert")
        _write_program(model, inside, full, job)
        described = (records(inside), _source(model), _versions(job.packages), job.min_cosine)
        artefact = Artefact(inside, job.to, job.program, job.processor, *described)
        begin("certify")
        certificate = certify(artefact, model, job.pictures)
        check(certificate, path)
        if full.exists():
            certificate = _compared(certificate, artefact, full, job)
            shutil.rmtree(full)
        begin("sync")
        for each in inside.iterdir():
            os.replace(each, new / each.name)
        inside.rmdir()
        (new / DESCRIPTION).write_text(artefact.text(), encoding="utf-8")
        (new / CERTIFICATE).write_text(text(certificate), encoding="utf-8")
        sync_files(new)
    return certificate


def _write_program(model: Any, inside: Path, full: Path, job: _Job) -> None:
    """Fills a folder with the program, and of one in less than float32 another one with the same in float32."""
    to, program = job.to, job.program
    exporting = import_module(f"{BACKENDS[job.backend].package}.exporting")
    file = ENGINES[to].file
    with _in_our_words(job):
        if program.precision == "float32":
            exporting.export_program(model, inside / file, to, program)
            return
        full.mkdir()
        exporting.export_program(model, full / file, to, program._replace(dtype="float32", int8=None))
        if is_made_from_file(to, program):
            quantise_file(full, inside, model, to, program, job.tool, job.calibration)
        else:
            reduced = reduced_model(model, job.backend, to, program, job.tool)
            exporting.export_program(reduced, inside / file, to, program)


@contextmanager
def _in_our_words(job: _Job) -> Iterator[None]:
    """Says of an error of a converter which one it is."""
    try:
        yield
    except (VitError, OSError, MemoryError):  # a full disk is not the converter's fault
        raise
    except ImportError as problem:
        raise BackendError(
            f"{job.to}: a package is missing: {problem}.\nInstall it with: pip install {' '.join(job.packages)}"
        ) from None
    except Exception as problem:
        versions = ", ".join(f"{name} {version(name)}" for name in job.packages)
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        raise BackendError(
            f"{job.to}: {versions} cannot write this {job.program.model}:\n{lines[0][:300]}"
        ) from problem


@contextmanager
def _progress(to: str) -> Iterator[Callable[[str], None]]:
    """A bar on stderr at a terminal, and what to call as each of its stages begins."""
    hidden = not sys.stderr.isatty()
    with tqdm(_STAGES, unit="stage", leave=False, file=sys.stderr, disable=hidden) as bar:

        def begin(stage: str) -> None:
            bar.set_description(f"{to}: {stage}", refresh=False)
            bar.n = _STAGES.index(stage)
            bar.refresh()

        yield begin


def _compared(certificate: Certificate, artefact: Artefact, full: Path, job: _Job) -> Certificate:
    """The certificate with size and speed beside those of the float32 program."""
    if certificate.held_out is None:
        return certificate
    inputs = picture_batches(job.program, job.processor, [*job.pictures[:1]] or digit_files()[:1])[0]
    held_out = against_float32(certificate.held_out, artefact.folder, full, job.to, inputs, job.program.outputs)
    return certificate._replace(held_out=held_out)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {"vitriad": own_version(), **{name: version(name) for name in packages}}
