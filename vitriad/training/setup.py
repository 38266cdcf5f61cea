"""What a recipe stands for: images to learn from and to be judged by, and a model to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conversion.auto import configuration
from conversion.loading import load_pretrained
from vit_core.config import PretrainedConfig, ViTConfig, ViTMAEConfig, pair
from vit_core.config.presets import PRESETS
from vit_core.errors import CheckpointError, InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.parameters import draw, parameter_table
from vit_core.tensors import Array
from vit_core.training.data import DataSet, check_classes, split
from vit_core.training.data_files import read_data
from vit_core.training.feeding import Feed
from vit_core.training.recipe import Recipe
from vitriad.classify import load_processor
from vitriad.models import find
from vitriad.viewing import processed_size

CLASSES = {
    "classification": "ViTForImageClassification",
    "mae": "ViTMAEForPreTraining",
    "mim": "ViTForMaskedImageModeling",
}


class Setup(NamedTuple):
    """A run before its first step.

    Attributes:
        recipe: of the run.
        cls: canonical name of the model class.
        feed: its batches; knows the configuration and the processor too.
        tensors: the weights that it begins with, by canonical name.
        fresh: those of them that come from no checkpoint.
        held_out, judged: data that it is judged by, and which of their images.
    """

    recipe: Recipe
    cls: str
    feed: Feed
    tensors: dict[str, Array]
    fresh: list[str]
    held_out: DataSet
    judged: Array

    @property
    def config(self) -> PretrainedConfig:
        """The configuration of the model."""
        return self.feed.config

    def digest(self) -> str:
        """What changes when the images or their labels do."""
        return f"{self.feed.data.digest()} {self.held_out.digest()}"


def set_up(recipe: Recipe) -> Setup:
    """Reads the data and the model of a recipe; imports no framework.

    Raises:
        InputError, CheckpointError, ConfigError: they cannot be used, or do not fit one another.
    """
    data, held_out, rows, judged = _data(recipe)
    cls = CLASSES[recipe.objective]
    if recipe.model is not None:
        config, tensors, fresh = _loaded(recipe, cls, data)
        processor = load_processor(None, find(recipe.model), configuration(find(recipe.model)))
    else:
        config = fresh_config(recipe, data)
        tensors, processor = draw(config, cls, recipe.seed), _fresh_processor(config)
        fresh = [*tensors]
    if recipe.objective == "classification":
        data, held_out = (each.with_classes([*config.id2label.values()]) for each in (data, held_out))
    processor = _sized(processor, config)
    return Setup(recipe, cls, Feed(recipe, config, processor, data, rows), tensors, fresh, held_out, judged)


def _data(recipe: Recipe) -> tuple[DataSet, DataSet, Array, Array]:
    """What to learn from and what to be judged by, and which of their images."""
    with_labels = recipe.objective == "classification"
    data = read_data(recipe.data, with_labels=with_labels)
    if not isinstance(recipe.held_out, str):
        if with_labels:
            check_classes(data, data)
        rows, judged = split(data.labels, len(data), recipe.held_out, recipe.seed, data.classes)
        return data, data, rows, judged
    held_out = read_data(recipe.held_out, with_labels=with_labels)
    if with_labels:
        check_classes(data, held_out)
    if both := {*data.names} & {*held_out.names}:
        raise InputError(f"{recipe.held_out}: {min(both)} is held out and learned from.")
    return data, held_out, np.arange(len(data)), np.arange(len(held_out))


def _loaded(recipe: Recipe, cls: str, data: DataSet) -> tuple[PretrainedConfig, dict[str, Array], list[str]]:
    """Configuration and weights of a checkpoint; what it lacks, and the head of other classes, is drawn by the seed.

    Raises:
        CheckpointError: it lacks a part of the encoder.
    """
    path = find(str(recipe.model))
    known = configuration(path)
    changed = _fields(recipe, known.patch_size)
    has_labels = {*known.id2label.values()} == {*data.classes}
    if recipe.objective == "classification" and not has_labels:
        changed["id2label"] = dict(enumerate(data.classes))
    loaded = load_pretrained(path, cls, {**changed, "strict": False})
    table = parameter_table(loaded.config, cls, **loaded.options)
    if lost := [name for name in loaded.missing if table[name].part == "encoder"]:
        raise CheckpointError(
            f"{recipe.model}: lacks {lost[0]} ({len(lost)} parameters of the encoder).\n"
            "Give a checkpoint of a whole encoder, or --config for fresh weights."
        )
    head = [name for name in table if recipe.objective == "classification" and table[name].part == "classifier"]
    fresh = [*dict.fromkeys([*loaded.missing, *([] if has_labels else head)])]
    drawn = draw(loaded.config, cls, recipe.seed, **loaded.options) if fresh else {}
    tensors = {name: drawn[name] if name in fresh else np.array(loaded.tensors[name]) for name in table}
    loaded.config.problem_type = None
    return loaded.config, tensors, fresh


def fresh_config(recipe: Recipe, data: DataSet | None = None) -> PretrainedConfig:
    """The configuration of fresh weights: a preset, or a file.

    Raises:
        InputError: no such preset or file.
    """
    kind = ViTMAEConfig if recipe.objective == "mae" else ViTConfig
    name = str(recipe.config)
    labels = {"id2label": dict(enumerate(data.classes))} if data is not None and data.classes else {}
    if name in PRESETS[kind.model_type]:
        fields = PRESETS[kind.model_type][name]
        return kind(**{**fields, **_fields(recipe, fields["patch_size"]), **labels})
    if not Path(name).exists():
        known = ", ".join(PRESETS[kind.model_type])
        raise InputError(f"config: expected a file, or one of {known}, got {name!r}.")
    patch_size = kind.from_pretrained(name).patch_size
    changed: Any = {**_fields(recipe, patch_size), **labels}
    config: PretrainedConfig = kind.from_pretrained(name, **changed)
    return config


def _fields(recipe: Recipe, patch_size: Any) -> dict[str, Any]:
    """The fields of a configuration that a recipe settles."""
    found: dict[str, Any] = {"drop_path_rate": recipe.drop_path}
    if recipe.image_size is not None:
        found["image_size"] = recipe.image_size
    if recipe.objective == "mae":
        found |= {"mask_ratio": recipe.mask_ratio, "norm_pix_loss": recipe.norm_pix_loss}
    if recipe.objective == "mim":
        found["encoder_stride"] = patch_size
    return found


def _fresh_processor(config: PretrainedConfig) -> ViTImageProcessor:
    height, width = pair(config.image_size)
    halves = [0.5] * config.num_channels
    return ViTImageProcessor(size={"height": height, "width": width}, image_mean=halves, image_std=halves)


def _sized(processor: ViTImageProcessor, config: PretrainedConfig) -> ViTImageProcessor:
    """The processor, giving images the size of the model.

    Raises:
        InputError: it does not give every image one size, or normalises another number of channels.
    """
    wanted = pair(config.image_size)
    if processed_size(processor, config) != wanted:
        options = processor.to_dict()
        options["size"] = {"height": wanted[0], "width": wanted[1]}
        if options.get("do_center_crop"):
            options["crop_size"] = options["size"]
        processor = ViTImageProcessor.from_dict(options)
    if (got := processed_size(processor, config)) != wanted:
        raise InputError(f"image processor: expected images of {wanted[0]}x{wanted[1]} pixels, got {got[0]}x{got[1]}.")
    return processor
