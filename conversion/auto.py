"""The model class of a checkpoint: by its config.json, or by the weights in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, Unpack, overload

from conversion.keywords import AutoKeywords, LoadingInfo
from conversion.loading import describe
from vit_core.config import AutoConfig, PretrainedConfig, read_config
from vit_core.config.relatives import is_relative
from vit_core.errors import CheckpointError, ConfigError, MissingFileError
from vit_core.hub.download import HUB_OPTIONS
from vit_core.parameters import MODEL_CLASSES

Model = TypeVar("Model")

_SILENT = ("attn_implementation", "output_loading_info")  # without influence on what a checkpoint is


def architecture(name_or_path: str | Path, **kwargs: Any) -> tuple[PretrainedConfig, str, dict[str, bool]]:
    """The configuration of a checkpoint, the canonical name of its class, and options of the class.

    The class is the one that config.json names ("TFViTModel" counts as "ViTModel"), in another program's checkpoint the
    one whose weights it holds.

    Args:
        name_or_path: folder, "owner/name" on the hub, or a weight file of any dialect.
        **kwargs: as for `from_pretrained`.

    Raises:
        CheckpointError: no class, several, or none that exists here.
    """
    config, name, options = _described(name_or_path, kwargs)
    return config, name or _named(config, name_or_path), options


def configuration(name_or_path: str | Path, **kwargs: Any) -> PretrainedConfig:
    """The configuration of a checkpoint, or the one that is given in its place; arguments as for `architecture`."""
    return _given(kwargs) or _described(name_or_path, kwargs)[0]


def _given(kwargs: Mapping[str, Any]) -> PretrainedConfig | None:
    """The configuration that the caller chose, as an object or as the path of a file."""
    chosen = kwargs.get("config")
    if isinstance(chosen, str | os.PathLike):
        chosen = AutoConfig.from_pretrained(Path(chosen))
    return chosen if isinstance(chosen, PretrainedConfig) else None


def _described(
    name_or_path: str | Path, kwargs: Mapping[str, Any]
) -> tuple[PretrainedConfig, str | None, dict[str, bool]]:
    """The configuration of a checkpoint; of another program's, its class and options of that, as its tensors tell."""
    given = _given(kwargs)
    if given is not None and given.architectures:
        return given, None, {}
    if given is None and not os.path.isfile(name_or_path):  # of a named file, config.json can be another's
        with suppress(ConfigError, MissingFileError):
            data, _ = read_config(name_or_path, _hub_options(kwargs))  # once: the branch may move between two reads
            if not is_relative(data):  # whose classes are others
                return AutoConfig.from_dict(data), None, {}
    said = {name: value for name, value in kwargs.items() if name not in _SILENT}
    config, name, options = describe(name_or_path, **said)
    return (config, None, {}) if config.architectures else (config, name, options)


def _named(config: PretrainedConfig, name_or_path: str | Path) -> str:
    """The one class that a configuration names."""
    names = {name.removeprefix("TF").removeprefix("Flax") for name in config.architectures or ()}
    known = names & {*MODEL_CLASSES}
    if len(known) != 1:
        raise CheckpointError(
            f"{name_or_path}: expected config.json to name one model class under architectures, got "
            f"{str(config.architectures)[:80]}.\nName one of {', '.join(MODEL_CLASSES)} there, or load with its "
            "from_pretrained."
        )
    name: str = known.pop()
    return name


def _hub_options(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name in (*HUB_OPTIONS, "limits")}


def same_commit(config: PretrainedConfig) -> dict[str, str]:
    """The revision that takes the weights from the commit whose configuration was read."""
    return {"revision": config.hub_commit} if config.hub_commit else {}


class AutoClass(Generic[Model]):
    """What the Auto classes share: from a model type to the one class that does their task.

    Attributes:
        models: model_type -> class, or for the front door its canonical name.
    """

    models: ClassVar[Mapping[str, Any]] = {}

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        output_loading_info: Literal[True],
        **kwargs: Unpack[AutoKeywords],
    ) -> tuple[Model, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[AutoKeywords],
    ) -> Model: ...
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """The model for this task with the weights of a checkpoint.

        Args:
            pretrained_model_name_or_path: folder, "owner/name" on the hub, or a weight file of any dialect.
            **kwargs: as for the `from_pretrained` of the class.

        Raises:
            ConfigError: models of this type do not do the task.
            CheckpointError: the weights cannot be used.
        """
        config = configuration(pretrained_model_name_or_path, **kwargs)
        chosen = cls.model_of(config)
        return chosen.from_pretrained(pretrained_model_name_or_path, **{**kwargs, **same_commit(config)})

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Model:
        """The model for this task with fresh weights.

        Args:
            config: a ViTConfig or ViTMAEConfig.
            **kwargs: as for the constructor of the class.

        Raises:
            ConfigError: models of this type do not do the task.
        """
        model: Model = cls.model_of(config)(config, **kwargs)
        return model

    @classmethod
    def model_of(cls, config: PretrainedConfig) -> Any:
        """The entry of `models` for a configuration.

        Raises:
            ConfigError: models of this type do not do the task.
        """
        model_type = getattr(config, "model_type", None)
        if not isinstance(model_type, str) or model_type not in cls.models:
            raise ConfigError(
                f"{cls.__name__}: expected a configuration of type {' or '.join(cls.models)}, got {model_type!r}."
            )
        return cls.models[model_type]
