"""The recipe of a run: everything that its result goes by, with the published settings as defaults, in a TOML file."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vit_core.errors import InputError, MissingFileError, reading
from vit_core.plain_values import short
from vit_core.training.augmentation import Augmentation
from vit_core.training.schedules import Kind, Schedule
from vit_core.training.steps import Optimisation, Precision

VERSION = 1
Objective = Literal["classification", "mae", "mim"]


@dataclass(frozen=True)
class Recipe:
    """What a run does. Another recipe is another run; the same one gives the same weights on the same backend.

    Attributes:
        objective: "classification", "mae" (masked autoencoder) or "mim" (masked image modelling).
        data: where the images are; see `vit_core.training.data_files.read_data`.
        backend: "torch", "tf" or "flax".
        model: checkpoint to start from. None: fresh weights.
        config: of fresh weights: the name of a preset, or the path of a config.json.
        held_out: share of the images that the model is judged by, or data of their own.
        image_size: side of the images in pixels; None for the model's.
        seed: of everything that is random.
        epochs: how often every image is seen.
        batch_size: images of a step.
        rate: highest learning rate for a batch of 256 images; a batch of 128 gets half of it.
        warmup: share of the steps in which the rate rises.
        schedule: how it falls then: "cosine", "linear" or "constant".
        weight_decay, layer_decay, freeze, betas, clip, accumulate, average, precision, recompute: see `Optimisation`.
        drop_path: how often the last layer leaves out a branch for an image.
        smoothing: share of each target that is spread over all classes.
        mixup, cutmix: parameters of their beta distributions; 0 for none. See `mixed`.
        class_weights: every class counts the same, however many images it has.
        area, mirror, operations, magnitude, colour, erase: see `Augmentation`.
        mask_ratio: share of the patches that are hidden.
        norm_pix_loss: masked autoencoders paint patches of mean 0 and variance 1.

    Raises:
        InputError: a value that no run can have.
    """

    objective: Objective
    data: str
    backend: str
    epochs: int
    rate: float
    model: str | None = None
    config: str | None = None
    held_out: str | float = 0.1
    image_size: int | None = None
    seed: int = 0
    batch_size: int = 64
    warmup: float = 0.05
    schedule: Kind = "cosine"
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    freeze: Literal["encoder"] | int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    accumulate: int = 1
    average: float | None = None
    precision: Precision = "float32"
    recompute: bool = False
    drop_path: float = 0.0
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: bool = False
    area: tuple[float, float] = (0.08, 1.0)
    mirror: float = 0.5
    operations: int = 0
    magnitude: float = 9.0
    colour: float = 0.0
    erase: float = 0.0
    mask_ratio: float = 0.75
    norm_pix_loss: bool = True

    def __post_init__(self) -> None:
        check_values(asdict(self))
        if (self.model is None) == (self.config is None):
            raise InputError("recipe: expected a model to start from, or the config of a fresh one, and not both.")
        counts = {"epochs": self.epochs, "batch_size": self.batch_size, "image_size": self.image_size or 1}
        if wrong := [name for name, count in counts.items() if count < 1]:
            raise InputError(f"recipe: {wrong[0]}: expected at least 1, got {counts[wrong[0]]}.")
        shares = {"warmup": self.warmup, "drop_path": self.drop_path, "mask_ratio": self.mask_ratio}
        if wrong := [name for name, share in shares.items() if not 0 <= share < 1]:
            raise InputError(f"recipe: {wrong[0]}: expected a number in [0, 1), got {shares[wrong[0]]}.")
        if not 0 < self.rate < math.inf:
            raise InputError(f"recipe: rate: expected more than 0, got {self.rate}.")
        self.optimisation()
        self.augmentation(1)

    def optimisation(self) -> Optimisation:
        """What the backend's step is told."""
        names = {field.name for field in fields(Optimisation)} & {field.name for field in fields(Recipe)}
        return Optimisation(**{name: getattr(self, name) for name in names})

    def augmentation(self, size: int | tuple[int, int]) -> Augmentation:
        """How training images of a size are varied."""
        names = ("area", "mirror", "operations", "magnitude", "colour", "erase")
        return Augmentation(size=size, **{name: getattr(self, name) for name in names})

    def learning_rates(self, steps: int) -> Schedule:
        """The rate of every step of the run.

        Source: the linear rule of Goyal et al., Accurate, Large Minibatch SGD (2017).
        """
        return Schedule(
            self.rate * self.batch_size / 256, steps, min(int(self.warmup * steps), steps - 1), kind=self.schedule
        )

    def differing(self, other: Recipe) -> list[str]:
        """The fields in which two recipes differ, with both values."""
        ours, theirs = asdict(self), asdict(other)
        return [f"{name} ({theirs[name]!r}, now {ours[name]!r})" for name in ours if ours[name] != theirs[name]]

    def text(self) -> str:
        """The text of recipe.toml; what is None is not there."""
        values = {"version": VERSION, **asdict(self)}
        return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items() if value is not None)


def _toml(value: Any) -> str:
    """A text, number, truth value or list in TOML: for these it is JSON, which only lets DEL stand."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file.

    Raises:
        MissingFileError: no such file.
        InputError: not TOML, a recipe of another version, or a field that there is not or whose value is none.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: no such file.")
    try:
        with reading(path, InputError):
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{path}: not a recipe in TOML: {problem}.") from None
    if (version := values.pop("version", None)) != VERSION:
        raise InputError(
            f"{path}: expected a recipe of version {VERSION}, got {short(version)}.\n"
            "Run it with the vitriad that wrote it, or write it anew with --dry-run and --set."
        )
    try:
        return recipe_of(values)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """A recipe with these values, lists for pairs as TOML and JSON have them.

    Raises:
        InputError: a field that is missing, that there is not, or whose value is none.
    """
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    check_values(given)
    given = {name: _as(value, get_type_hints(Recipe)[name]) for name, value in given.items()}
    needed = ("objective", "data", "backend", "epochs", "rate")
    if missing := [name for name in needed if given.get(name) is None]:
        raise InputError(f"recipe: no {missing[0]}, which every recipe has.")
    return Recipe(**given)


def check_values(values: Mapping[str, Any]) -> None:
    """Checks names and types of fields.

    Raises:
        InputError: a field that there is not, or a value of another type.
    """
    hints = get_type_hints(Recipe)
    if unknown := [name for name in values if name not in hints]:
        raise InputError(f"recipe: there is no {short(unknown[0])}; there are {', '.join(hints)}.")
    for name, value in values.items():
        if not _is(value, hints[name]):
            raise InputError(f"recipe: {name}: expected {_said(hints[name])}, got {short(value)}.")


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; whole numbers are floats too, and truth values are no numbers."""
    if isinstance(hint, UnionType) or str(get_origin(hint)) == "typing.Union":
        return any(_is(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_is, value, inner))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint


def _as(value: Any, hint: Any) -> Any:
    """A value as its type has it: whole numbers as floats where floats are meant."""
    if isinstance(value, tuple):
        return tuple(map(float, value))
    kinds = {hint, *get_args(hint)}
    return float(value) if type(value) is int and float in kinds and int not in kinds else value


def _said(hint: Any) -> str:
    """A type in words."""
    if isinstance(hint, UnionType) or str(get_origin(hint)) == "typing.Union":
        return " or ".join(_said(each) for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "two numbers"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[hint]
