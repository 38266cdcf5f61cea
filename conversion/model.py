"""Loading and saving, as the model classes of all backends do it: over `from_tensors` and `canonical_tensors`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import conversion
from conversion.keywords import check_saving
from vit_core.config import PretrainedConfig
from vit_core.files.reading import uncollected
from vit_core.model import NeutralModel
from vit_core.parameters import class_name
from vit_core.tensors import Array


class PortableModel(NeutralModel):
    """Base of every model class of every backend: one whose checkpoints all backends load.

    A backend says how a model is made of tensors (`from_tensors`), and which tensors a model holds
    (`canonical_tensors`).
    """

    @classmethod
    def from_tensors(cls, config: PretrainedConfig, tensors: Mapping[str, Any], **options: Any) -> Self:
        """A model with exactly these weights, copied, by canonical name.

        Raises:
            CheckpointError: a name is missing or unknown, or a shape is wrong.
        """
        raise NotImplementedError

    def canonical_tensors(self) -> dict[str, Array]:
        """Canonical name -> values in the canonical layout: what `from_tensors` of every backend takes."""
        raise NotImplementedError

    @classmethod
    def _load(
        cls,
        name_or_path: str | Path | None,
        keywords: Mapping[str, Any],
        build: Callable[[conversion.Loaded], Self],
        *,
        tensors: Mapping[str, Array] | None = None,
    ) -> tuple[Self, conversion.Loaded]:
        """The model of a checkpoint, and what loading found.

        Args:
            name_or_path: see `conversion.load_pretrained`, also for `keywords` and `tensors`.
            build: makes the model of what was loaded, whose tensors it reads, with fresh values where some are missing.

        Raises:
            CheckpointError: the weights are missing, damaged or do not fit.
            ConfigError: the configuration, with its overrides, is invalid.
            InputError: a keyword that means nothing here.
        """
        loaded = conversion.load_pretrained(name_or_path, cls, keywords, tensors=tensors, wait=False)
        with uncollected(), loaded.reading():
            model = build(loaded)
        loaded.check()  # before anybody gets the model
        return model, loaded

    def _save(
        self,
        folder: str | Path,
        keywords: Mapping[str, Any],
        is_main_process: bool,
        tensors: Callable[[], Mapping[str, Array]],
        **settings: Any,
    ) -> None:
        """Writes config.json and model.safetensors, which every backend and transformers load.

        Args:
            folder: made where missing; an older checkpoint in it is replaced as a whole.
            keywords: those that change nothing here, see `conversion.keywords.check_saving`.
            is_main_process: False writes nothing: another process does.
            tensors: called for what is to be written, by canonical name.
            **settings: see `conversion.save_pretrained`.

        Raises:
            ConfigError: a callable activation cannot be saved.
            CheckpointError: the folder cannot be written, or the tensors are not those of the class.
            InputError: a keyword that means nothing here.
        """
        check_saving(f"{type(self).__name__}.save_pretrained", keywords)
        if is_main_process:
            name = class_name(type(self))
            conversion.save_pretrained(folder, self.config, tensors(), class_name=name, **settings)
