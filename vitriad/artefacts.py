"""Exported programs on the disk: a folder with the program, vitriad.json that describes it, and its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_core.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MissingFileError,
    UnsafeFileError,
    VitError,
    reading,
)
from vit_core.files.json import check_text, json_text, read_json
from vit_core.files.links import followed
from vit_core.files.manifest import record_of
from vit_core.images.processor import ViTImageProcessor
from vit_core.inputs import check_per_patch, check_pixel_values, images_given
from vit_core.outputs import (
    BaseModelOutput,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ModelOutput,
    ViTMAEForPreTrainingOutput,
)
from vit_core.parameters import MODEL_CLASSES
from vit_core.plain_values import short
from vit_core.programs import Program, pixels_of, settle
from vit_core.tensors import Array, to_numpy
from vitriad.engines import DESCRIPTION, ENGINES, Run, engine_version, open_program

CERTIFICATE = "certificate.json"
_VERSION = 1  # of the description


@dataclass
class FeaturesOutput(ModelOutput):
    """Output of a program of features.

    Shapes: class_token, patch_mean (batch, hidden); tokens (batch, tokens, hidden); pooler_output (batch,
    pooler_output_size); hidden_states: one (batch, tokens, hidden) for each layer that was chosen.
    """

    class_token: Any = None
    patch_mean: Any = None
    tokens: Any = None
    pooler_output: Any = None
    hidden_states: Any = None


_OUTPUTS: dict[str, type[ModelOutput]] = {
    "ViTForImageClassification": ImageClassifierOutput,
    "ViTMAEForPreTraining": ViTMAEForPreTrainingOutput,
    "ViTForMaskedImageModeling": MaskedImageModelingOutput,
}


class Artefact(NamedTuple):
    """An exported program and what its description says.

    Attributes:
        folder: where it is.
        to: its format, a key of `vitriad.engines.ENGINES`.
        program: what it computes.
        processor: how images are prepared for it, as far as that is known; with `program.pixels` the program itself
            rescales and normalises.
        files: name -> size and SHA-256 of every file of the program.
        source: what it was made from: a digest of the weights, and of a model from the hub the repository and commit.
        versions: of what wrote it.
        min_cosine: what the cosines of a program of 8-bit integers have to be; None for floats.
    """

    folder: Path
    to: str
    program: Program
    processor: ViTImageProcessor | None
    files: Mapping[str, Any]
    source: Mapping[str, str]
    versions: Mapping[str, str]
    min_cosine: float | None = None

    @property
    def input_processor(self) -> ViTImageProcessor | None:
        """The image processor that leaves to the program what the program does itself; None where none is known."""
        if self.processor is None or self.program.pixels is None:
            return self.processor
        done = {"do_rescale": False, "do_normalize": False}
        return ViTImageProcessor.from_dict({**self.processor.to_dict(), **done})

    def text(self) -> str:
        """The text of vitriad.json."""
        program = self.program
        said = {
            "vitriad_program": _VERSION,
            "format": self.to,
            "model": program.model,
            "config": {**program.config.to_diff_dict(), "model_type": program.config.model_type},
            "outputs": program.purpose,
            "layers": [*program.layers],
            "image_size": program.size,
            "preprocessing": program.pixels and program.pixels.layout,
            "has_pooler": program.has_pooler,
            "dtype": program.dtype,
            "int8": program.int8,
            "min_cosine": self.min_cosine,
            "takes": [each._asdict() for each in program.inputs],
            "returns": [*program.outputs],
            "image_processor": self.processor and self.processor.to_dict(),
            "left_to_do": _left_to_do(program),
            "files": dict(self.files),
            "source": dict(self.source),
            "versions": dict(self.versions),
        }
        return check_text(json_text(said), what=DESCRIPTION, limit="index_bytes", error=CheckpointError)


def _left_to_do(program: Program) -> str:
    """What has to be done to an image file before the program sees it, in words."""
    size = "any size" if program.size is None else "{}x{} pixels (height x width)".format(*program.size)
    if program.pixels is not None and program.pixels.opens_files:
        return "nothing: it takes JPEG, PNG, GIF and BMP files"
    if program.pixels is None:
        return f"decode, resize to {size}, rescale and normalise: image_processor says how"
    return f"decode and resize to {size}: image_processor says with which filter"


def records(folder: Path) -> dict[str, Any]:
    """The record of every file in a folder, by its path in there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): record_of(path) for path in files}


def read_artefact(folder: Path, verify: bool = True) -> Artefact:
    """The artefact in a folder. Nothing of it is run.

    Args:
        verify: whether to compare the files with the digests in the description.

    Raises:
        CheckpointError: the description is damaged or of a newer version, a file is missing, or is another one.
        UnsafeFileError: it names files outside its folder.
        ConfigError: the configuration in it is invalid.
    """
    path = folder / DESCRIPTION
    said = read_json(path, limit="index_bytes", error=CheckpointError, within=True)
    if said.get("vitriad_program") != _VERSION:
        raise CheckpointError(
            f"{path}: expected a description of version {_VERSION}, got {short(said.get('vitriad_program'))}.\n"
            "Read it with the release of vitriad that wrote it, or export the model again."
        )
    try:
        artefact = _understood(folder, said)
    except (InputError, TypeError, ValueError, KeyError, AttributeError) as problem:
        if isinstance(problem, ConfigError | CheckpointError):
            raise
        raise CheckpointError(f"{path}: no description of a program: {short(str(problem))}.") from None
    _check_files(folder, artefact, verify)
    return artefact


def _understood(folder: Path, said: Mapping[str, Any]) -> Artefact:
    to, model = said["format"], said["model"]
    if to not in ENGINES or model not in MODEL_CLASSES:
        raise InputError(f"format {short(to)} of a {short(model)}")
    config = MODEL_CLASSES[model].from_dict(said["config"])
    processor = said.get("image_processor")
    made = None if processor is None else ViTImageProcessor.from_dict(processor)
    layout = said.get("preprocessing")
    size = None if said.get("image_size") is None else _pair(said["image_size"])
    program = settle(
        model,
        config,
        purpose=said["outputs"],
        size=size,
        layers=tuple(map(int, said["layers"])),
        pixels=None if layout is None or made is None else pixels_of(made, config.num_channels, layout, size),
        has_pooler=bool(said["has_pooler"]),
        dtype=said.get("dtype", "float32"),
        int8=said.get("int8"),
    )
    min_cosine = None if program.int8 is None else float(said["min_cosine"])
    source, versions = ({str(k): str(v) for k, v in said.get(key, {}).items()} for key in ("source", "versions"))
    return Artefact(folder, to, program, made, dict(said["files"]), source, versions, min_cosine)


def _pair(size: Any) -> tuple[int, int]:
    height, width = size
    return int(height), int(width)


def _check_files(folder: Path, artefact: Artefact, verify: bool) -> None:
    """Raises unless the files of a program are there, inside its folder, as they were written."""
    if ENGINES[artefact.to].file not in artefact.files:
        raise CheckpointError(f"{folder / DESCRIPTION}: files: no {ENGINES[artefact.to].file} among them.")
    for name, known in artefact.files.items():
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name:
            raise UnsafeFileError(f"{folder / DESCRIPTION}: files: {short(name)} is outside its folder.")
        path = followed(folder / name)
        if not path.is_file():
            raise MissingFileError(f"{folder / name}: no such file, and {DESCRIPTION} names it.")
        with reading(path):
            is_same = not verify or record_of(path) == known
        if not is_same:
            raise CheckpointError(f"{folder / name}: not as {DESCRIPTION} records it.\nFetch or export it again.")


def check_format(artefact: Artefact, backend: str) -> None:
    """Raises unless a backend is "auto" or the format of an exported program.

    Raises:
        InputError: it is another one.
    """
    if backend not in ("auto", artefact.to):
        raise InputError(
            f"backend: {artefact.folder} is an exported program of {artefact.to}, got {backend!r}.\n"
            "Load the model itself, or export it to that format."
        )


def check_trusted(artefact: Artefact, machine_code: bool) -> None:
    """Raises for a program of machine code that nobody has vouched for.

    Raises:
        UnsafeFileError: `machine_code` is false.
    """
    if ENGINES[artefact.to].is_machine_code and not machine_code:
        raise UnsafeFileError(
            f"{artefact.folder}: a program of {artefact.to} is machine code, which can do anything on this machine.\n"
            "If you trust whoever wrote it: machine_code=True (--machine-code)."
        )


class ExportedModel:
    """An exported program, called like the model that it was made from.

    Attributes:
        artefact: what it is.
        config: the configuration of the model.
        framework: "np": arrays go in and come out.
    """

    framework = "np"

    def __init__(self, artefact: Artefact, threads: int | None = None, machine_code: bool = False) -> None:
        check_trusted(artefact, machine_code)
        names = [each.name for each in artefact.program.inputs]
        try:
            self._run: Run = open_program(artefact.folder, artefact.to, names, artefact.program.outputs, threads)
        except VitError:
            raise
        except Exception as problem:  # engines have errors of their own
            said = " ".join(str(problem).split()) or type(problem).__name__
            said = said if len(said) < 300 else f"{said[:60]} … {said[-200:]}"  # the reason stands at the end
            raise CheckpointError(
                f"{artefact.folder}: {engine_version(artefact.to)} cannot open this program: {said}"
            ) from problem
        self.artefact, self.config = artefact, artefact.program.config

    def __repr__(self) -> str:
        program = self.artefact.program
        return f"ExportedModel({self.artefact.to}: {program.purpose} of a {program.model}, {self.artefact.folder})"

    def __call__(self, pixel_values: Any = None, **inputs: Any) -> ModelOutput:
        """The outputs of the program, as NumPy arrays.

        Args:
            pixel_values: (batch, channels, height, width) or channels-last, floating; uint8 `images` of a program that
                normalises them itself; the bytes of files, or their base64, of one that opens them.
            **inputs: `noise` or `bool_masked_pos` (batch, patches), where the program takes it; `images`.

        Raises:
            InputError: an argument that does not fit the program.
        """
        first, *others = self.artefact.program.inputs
        if first.name in inputs and pixel_values is None:
            pixel_values = inputs.pop(first.name)
        program, model = self.artefact.program, f"{self.artefact.program.model} ({self.artefact.to})"
        if program.pixels is not None and program.pixels.opens_files:
            images = _files(model, pixel_values)
        else:
            images = self._images(model, to_numpy(images_given(model, pixel_values)))
        arrays = {first.name: images}
        for each in others:
            if inputs.get(each.name) is None:
                raise InputError(f"{model}: expected {each.name}, which this program does not draw itself.")
            array = to_numpy(inputs.pop(each.name))
            height, width = self._sides(images)
            check_per_patch(model, each.name, array.shape, len(images), self.artefact.program.patches(height, width))
            arrays[each.name] = np.ascontiguousarray(array, each.dtype)
        if wrong := [name for name, value in inputs.items() if value is not None]:
            raise InputError(f"{model}: no input called {', '.join(wrong)}; it takes {', '.join(arrays)}.")
        return self._named(self._run(arrays))

    def _images(self, model: str, images: Array) -> Array:
        """The first input, checked and in the program's layout."""
        program = self.artefact.program
        config, is_any = program.config, program.size is None
        config = type(config).from_dict({**config.to_dict(), "image_size": program.size or config.image_size})
        is_float = images.dtype.kind == "f" or images.dtype.name == "bfloat16"
        if program.pixels is not None and images.dtype != np.uint8:
            raise InputError(
                f"{model}: images: expected uint8, got {images.dtype}: this program normalises them itself."
            )
        is_float = is_float or program.pixels is not None
        is_last = check_pixel_values(model, config, images.shape, is_float=is_float, interpolate=is_any)
        wants_last = program.pixels is not None and program.pixels.layout == "nhwc"
        if is_last != wants_last:
            images = images.transpose((0, 3, 1, 2) if is_last else (0, 2, 3, 1))
        return np.ascontiguousarray(images, program.inputs[0].dtype)

    def _sides(self, images: Array) -> tuple[int, int]:
        pixels = self.artefact.program.pixels
        if pixels is not None and pixels.opens_files:
            return self.artefact.program.example_size
        height, width = images.shape[1:3] if pixels is not None and pixels.layout == "nhwc" else images.shape[2:]
        return height, width

    def _named(self, found: Any) -> ModelOutput:
        """The arrays under the names that the model has for them."""
        program = self.artefact.program
        named: dict[str, Any] = dict(zip(program.outputs, found, strict=True))
        several = "attentions" if program.purpose == "attentions" else "hidden_states"
        parts = tuple(value for name, value in named.items() if name.startswith(f"{several}_"))
        named = {name: value for name, value in named.items() if not name.startswith(f"{several}_")}
        kinds = {"features": FeaturesOutput, "attentions": BaseModelOutput}
        kind = kinds.get(program.purpose) or _OUTPUTS[program.model]
        output: ModelOutput = kind(**named, **({several: parts} if parts else {}))
        return output


def _files(model: str, given: Any) -> Array:
    """Image files (batch,) as a program takes them: bytes, or their base64 as text or bytes."""
    files = [each.encode() if isinstance(each, str) else each for each in ([] if given is None else given)]
    if isinstance(given, str | bytes) or not files or not all(isinstance(each, bytes) for each in files):
        raise InputError(f"{model}: images: expected a list with the content of image files, got {short(repr(given))}.")
    return np.array(files, object)
