"""Models as the server has them: what each is for, what it takes and returns, and calls of it with NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_core.config import pair, patch_grid
from vit_core.errors import InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.limits import Limits
from vit_core.tensors import Array, to_numpy
from vitriad.artefacts import ExportedModel, read_artefact
from vitriad.auto import load
from vitriad.backends import BACKENDS
from vitriad.classify import load_processor, probabilities, read_pixels, why_no_classifier
from vitriad.engines import artefact_folder, check_engine, engine_version
from vitriad.features import features_of
from vitriad.models import find
from vitriad.naming import named
from vitriad.reconstruct import drawn_masking, image_losses, reconstruct
from vitriad.serving.batching import Arrays
from vitriad.viewing import processed_size, ready
from vitriad.web import Refusal

TASKS = ("classify", "reconstruct", "embed")  # the first that a model does is what it is for
PIXELS = "pixel_values"
_FEATURES = ("class_token", "patch_mean")
Common = tuple[tuple[str, Any], ...]  # arguments of a task that all images of a call share
Kind = tuple[str, Common]  # a task with them
_FRAMEWORKS = {"pt": "torch", "tf": "tensorflow", "flax": "jax"}  # by the `framework` of a model
_COMPILING = ("tf", "flax", "stablehlo")  # what compiles a program for every shape
_MOST_PATCHES = 4  # times those of the model's own size, of an image of any size


class Tensor(NamedTuple):
    """An array that goes in or comes out: -1 stands for a side that may be any."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Task(NamedTuple):
    """Something that a model does.

    Attributes:
        takes, returns: the arrays; the first axis of each counts the images.
        run: called with arrays by name, and with what all images of a call have in common.
    """

    takes: tuple[Tensor, ...]
    returns: tuple[Tensor, ...]
    run: Callable[..., Arrays]


@dataclass(frozen=True)
class Served:
    """A model of the server.

    Attributes:
        name, version: that requests name it by.
        source: what was loaded.
        engine: what computes, in words.
        size: (height, width) of images, as the processor gives them.
        pixel_dtype: of `pixel_values`: uint8 of a program that normalises them itself, else float32.
        tasks: by name; the first is what the model is for.
        compiles: whether it compiles a program for every shape.
        any_size: whether `pixel_values` may have another size.
    """

    name: str
    version: str
    source: str
    engine: str
    config: Any
    processor: ViTImageProcessor
    size: tuple[int, int]
    pixel_dtype: np.dtype[Any]
    tasks: Mapping[str, Task]
    compiles: bool
    any_size: bool

    def read(self, content: bytes, limits: Limits) -> Array:
        """The bytes of an image file as pixel values (channels, height, width).

        Raises:
            ImageError: they cannot be used.
        """
        return read_pixels(content, self.processor, self.config, expected=self.size, limits=limits)

    def prepared(self, picture: Array) -> Array:
        """A picture (height, width, channels), uint8, as pixel values (channels, height, width)."""
        pixels: Array = self.processor(picture, input_data_format="channels_last")[PIXELS][0]
        return pixels

    def checked(self, pixels: Array, task: str) -> Array:
        """Pixel values (batch, channels, height, width) of a client, as the model takes them.

        Raises:
            InputError: another shape or dtype, or numbers that are none.
        """
        channels, (height, width) = self.config.num_channels, self.size
        is_float = pixels.dtype.kind == "f" or pixels.dtype.name == "bfloat16"
        if is_float != (self.pixel_dtype.kind == "f") or (not is_float and pixels.dtype != self.pixel_dtype):
            raise InputError(f"{PIXELS}: expected {self.pixel_dtype}, got {pixels.dtype}.")
        with np.errstate(over="ignore"):  # what is infinite then is refused below
            pixels = np.require(pixels, self.pixel_dtype, ["C", "W"])  # torch warns of arrays that are read-only
        may_differ = self.any_size and task != "reconstruct"
        is_right = pixels.ndim == 4 and len(pixels) > 0 and pixels.shape[1] == channels
        if not is_right or (pixels.shape[2:] != self.size and not may_differ):
            sides = "height, width" if may_differ else f"{height}, {width}"
            got = ", ".join(map(str, pixels.shape))
            raise InputError(f"{PIXELS}: expected (images, {channels}, {sides}), got ({got}).")
        most = _MOST_PATCHES * math.prod(patch_grid(self.config, self.size))
        if not 1 <= math.prod(patch_grid(self.config, pixels.shape[2:])) <= most:
            raise InputError(f"{PIXELS}: expected at least one patch and at most {most} of {self.config.patch_size}.")
        if is_float and not np.isfinite(pixels).all():
            raise InputError(f"{PIXELS}: not all numbers are finite.")
        return pixels

    def known(self, task: Any) -> str:
        """The name of a task.

        Raises:
            Refusal: the model does not do it.
        """
        if not isinstance(task, str) or task not in self.tasks:
            raise Refusal(404, f"{self.name} does not do that. It does: {', '.join(self.tasks)}.", "no_such_task")
        return task

    def usual(self, task: str) -> Common:
        """What the calls of a task share unless a request says something else."""
        if task != "reconstruct":
            return ()
        return (("mask_ratio", drawn_masking(self.config, "", "", "")["mask_ratio"]),)

    def call(self, kind: Kind, arrays: Arrays) -> Arrays:
        """What a task makes of some images; `kind` is the task, and what they have in common."""
        task, common = kind
        return self.tasks[task].run(**arrays, **dict(common))

    def warm_up(self, sizes: Sequence[int]) -> None:
        """Calls the model with batches of some sizes, so that no request meets a compiler, and a bad model is known."""
        blank = self.prepared(np.zeros((*self.size, self.config.num_channels), np.uint8))
        for task, size in ((task, size) for task in self.tasks for size in sizes):
            arrays = {PIXELS: np.repeat(blank[None], size, axis=0).astype(self.pixel_dtype)}
            if task == "reconstruct":
                patches = math.prod(patch_grid(self.config))
                arrays["noise"] = np.tile(np.linspace(0, 1, patches, dtype=np.float32), (size, 1))
            self.call((task, self.usual(task)), arrays)


# --- opening ---------------------------------------------------------------------------------------------------------


def open_served(
    given: str,
    backend: str = "auto",
    processor: str | None = None,
    *,
    tasks: Sequence[str] = TASKS,
    any_size: bool = False,
    **options: Any,
) -> Served:
    """A model, ready to be called.

    Args:
        given: what `vitriad.load` takes, behind NAME= or NAME@VERSION= if it is to be called something else.
        backend: as for `vitriad.load`.
        processor: as for `vitriad.classify.load_processor`.
        tasks: what it may do; those that it cannot do are left out.
        any_size: whether it takes pixel values of any size, where it can.
        **options: as for `vitriad.load`.

    Raises:
        InputError: a model that does nothing of this.
    """
    name, version, source = named(given)
    is_program = artefact_folder(find(source)) is not None
    opened, model, engine = (_program if is_program else _checkpoint)(source, backend, tasks, **options)
    if not opened:
        raise InputError(f"serve: {given}: a model that can do nothing of: {', '.join(tasks)}.")
    prepared = load_processor(processor, find(source), model.config, options.get("revision"))
    size = processed_size(prepared, model.config)
    pixel_dtype, is_compiled = np.dtype(np.float32), getattr(model, "framework", "") in _COMPILING
    if isinstance(model, ExportedModel):
        program = model.artefact.program
        pixel_dtype, is_compiled = np.dtype(program.inputs[0].dtype), model.artefact.to in _COMPILING
        any_size = any_size and program.size is None
    if "reconstruct" in opened and size != pair(model.config.image_size):
        raise InputError(f"serve: {given}: its image processor gives another size than the decoder paints.")
    served = Served(
        *(name, version, source, engine, model.config, prepared, size, pixel_dtype),
        *(opened, is_compiled, any_size),
    )
    return replace(served, tasks={task: _sized(opened[task], served) for task in TASKS if task in opened})


def _sized(task: Task, served: Served) -> Task:
    """A task whose pixel values have the shape that is known by now."""
    sides = (-1, -1) if served.any_size else served.size
    pixels = Tensor(PIXELS, served.pixel_dtype.name, (-1, served.config.num_channels, *sides))
    return task._replace(takes=(pixels, *task.takes))


def _checkpoint(source: str, backend: str, tasks: Sequence[str], **options: Any) -> tuple[dict[str, Task], Any, str]:
    """The tasks of a checkpoint, its model, and what computes."""
    check_engine(source, backend)
    if wrong := [each for each in ("threads", "machine_code") if options.pop(each, None)]:
        raise InputError(f"serve: {source} is a checkpoint; {wrong[0]} is for exported programs.")
    model, loading = load(source, backend, output_loading_info=True, **options)
    ready(model)
    framework = next(name for name, each in BACKENDS.items() if type(model).__module__.startswith(each.package))
    cls = type(model).__name__.removeprefix(BACKENDS[framework].prefix)
    found = {}
    if "classify" in tasks and not loading["missing_keys"] and not why_no_classifier(model.config, cls):
        found["classify"] = _classifying(model)
    if "reconstruct" in tasks and not loading["missing_keys"] and cls == "ViTMAEForPreTraining":
        found["reconstruct"] = _reconstructing(model)
    if "embed" in tasks:
        found["embed"] = _embedding(model.base_model)
    engine = f"{_FRAMEWORKS[model.framework]}, {getattr(model, 'device', 'its first device')}"
    return found, model, engine


def _program(source: str, backend: str, tasks: Sequence[str], **options: Any) -> tuple[dict[str, Task], Any, str]:
    """The task of an exported program, the program, and what computes."""
    if wrong := [each for each in ("revision", "optimize") if options.pop(each, None)]:
        raise InputError(f"serve: {source} is an exported program; {wrong[0]} is for checkpoints.")
    folder = artefact_folder(find(source)) or Path(source)
    said = read_artefact(folder, verify=False).program
    if said.purpose not in ("logits", "features") or said.inputs[0].dtype == "string":
        kind = "opens files itself" if said.inputs[0].dtype == "string" else f"is of {said.purpose}"
        raise InputError(f"serve: {source}: a program that {kind}, which is not served.\nGive the checkpoint.")
    found = {}
    model = load(folder, backend, **options)
    if said.purpose == "features":
        task, made = "embed", _embedding(model, said.layers)
    else:
        task, made = "classify", _classifying(model)
    if task in tasks:
        found[task] = made
    return found, model, engine_version(model.artefact.to)


# --- tasks -----------------------------------------------------------------------------------------------------------


def _classifying(model: Any) -> Task:
    labels = model.config.num_labels

    def run(pixel_values: Array) -> Arrays:
        is_own = isinstance(model, ExportedModel) or pixel_values.shape[2:] == pair(model.config.image_size)
        options = {} if is_own else {"interpolate_pos_encoding": True}
        logits = to_numpy(model(pixel_values=pixel_values, **options).logits)
        return {"logits": logits, "probabilities": probabilities(logits, model.config.problem_type)}

    returns = (Tensor("logits", "float32", (-1, labels)), Tensor("probabilities", "float64", (-1, labels)))
    return Task((), returns, run)


def _embedding(encoder: Any, states: Sequence[int] | None = None) -> Task:
    names = _FEATURES if encoder.config.use_class_token else _FEATURES[1:]

    def run(pixel_values: Array) -> Arrays:
        return features_of(encoder, pixel_values, names, states=states)

    shape = (-1, encoder.config.hidden_size)
    return Task((), tuple(Tensor(name, "float32", shape) for name in names), run)


def _reconstructing(model: Any) -> Task:
    config = model.config
    patches = math.prod(patch_grid(config))

    def run(pixel_values: Array, noise: Array, mask_ratio: float) -> Arrays:
        painted, removed, _ = reconstruct(model, pixel_values, noise=noise, mask_ratio=mask_ratio)
        losses = image_losses(pixel_values, painted, removed, config)
        return {"reconstruction": painted, "mask": removed.astype(np.uint8), "loss": losses}

    rows, columns = patch_grid(config)
    height, width = pair(config.patch_size)
    painted = Tensor("reconstruction", "float64", (-1, config.num_channels, rows * height, columns * width))
    returns = (painted, Tensor("mask", "uint8", (-1, patches)), Tensor("loss", "float64", (-1,)))
    return Task((Tensor("noise", "float32", (-1, patches)),), returns, run)
