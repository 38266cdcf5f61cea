"""Which class of which backend a checkpoint or a configuration needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from conversion.pretrained import describe
from vit_core.config import AutoConfig, PretrainedConfig
from vit_core.errors import BackendError, CheckpointError, ConfigError, InputError, MissingFileError
from vit_core.hub import HUB_OPTIONS
from vit_core.parameters import MODEL_CLASSES
from vit_core.tensors import missing_backend
from vitriad.backends import BACKENDS, backend_name

logger = logging.getLogger("vitriad")

_SILENT = ("attn_implementation", "output_loading_info")  # say nothing of what a checkpoint is


def load(name_or_path: str | Path, backend: str = "auto", **kwargs: Any) -> Any:
    """The model of a checkpoint: of the class that its config.json names, else of the one whose weights it holds.

    Args:
        name_or_path: folder, "owner/name" on the hub, or a weight file of any dialect.
        backend: "torch", "tf", "flax", or "auto" for the first of these that is installed; a log line says which.
        **kwargs: as for the `from_pretrained` of the class.

    Raises:
        CheckpointError: config.json names no class, several, or none that exists here; or the weights cannot be used.
        BackendError: the framework is not installed.
    """
    config, name, options = _described(name_or_path, kwargs)
    name, kwargs = (name, {**options, **kwargs}) if name else (_named(config, name_or_path), kwargs)
    return model_class(name, backend).from_pretrained(name_or_path, **{**kwargs, **_same_commit(config)})


def read_architecture(name_or_path: str | Path, **hub_options: Any) -> tuple[PretrainedConfig, str]:
    """The configuration of a checkpoint, and the canonical name of its class ("TFViTModel" counts as "ViTModel").

    The class is the one that config.json names, in another program's checkpoint the one whose weights it holds.

    Raises:
        CheckpointError: no class, several, or none that exists here.
    """
    config, name, _ = _described(name_or_path, hub_options)
    return config, name or _named(config, name_or_path)


def _described(
    name_or_path: str | Path, kwargs: dict[str, Any]
) -> tuple[PretrainedConfig, str | None, dict[str, bool]]:
    """The configuration of a checkpoint; of another program's, its class and options of that, as its tensors tell."""
    if not os.path.isfile(name_or_path):  # of a named file, config.json can be another's
        with suppress(ConfigError, MissingFileError):
            return AutoConfig.from_pretrained(name_or_path, **_hub_options(kwargs)), None, {}
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
    return known.pop()


def model_class(name: str, backend: str = "auto") -> Any:
    """A model class by its canonical name, such as "ViTModel", in one backend.

    Raises:
        InputError: unknown backend.
        BackendError: its framework is not installed or cannot be used, or it does not have the class.
    """
    backend = backend_name(backend)
    if backend == "auto":
        backend = next(available_backends(name))
        logger.warning("vitriad: backend %s", backend)
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of auto, {', '.join(BACKENDS)}, got {backend!r}.")
    package, framework, prefix = BACKENDS[backend]
    if find_spec(framework) is None:
        raise missing_backend(backend, f"backend={backend!r}")
    found = getattr(_imported(package), prefix + name, None)
    if found is None:
        raise BackendError(f"backend={backend!r}: {prefix}{name} is not in this release.\nTake another backend.")
    return found


def _imported(package: str) -> Any:
    """A backend's package; TF_CPP_MIN_LOG_LEVEL=3 keeps all of TensorFlow's notes about this machine off the screen.

    TensorFlow 2.21 itself prints some of them all the same, while it is imported.
    """
    if package != "vit_tf" or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        return import_module(package)
    try:
        screen = os.dup(2)
    except OSError:  # a process without stderr
        return import_module(package)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        return import_module(package)
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def available_backends(name: str) -> Iterator[str]:
    """The backends that have a class and whose framework works here; each is imported as its turn comes.

    Raises:
        BackendError: there is none.
    """
    found = False
    for backend in BACKENDS:
        try:
            model_class(name, backend)
        except BackendError:
            continue
        found = True
        yield backend
    if not found:
        commands = " or ".join(f"pip install 'vitriad[{backend}]'" for backend in BACKENDS)
        raise BackendError(f"{name}: none of {', '.join(BACKENDS)} can be used here.\nInstall one with: {commands}")


def _hub_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name in (*HUB_OPTIONS, "limits")}


def _same_commit(config: PretrainedConfig) -> dict[str, str]:
    """The revision that takes the weights from the commit whose configuration was read."""
    return {"revision": config.hub_commit} if config.hub_commit else {}


class _Auto:
    """What the Auto classes share: from a model type to the one class that does their task."""

    classes: ClassVar[dict[str, str]] = {}  # model_type -> canonical class name

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, backend: str = "auto", **kwargs: Any) -> Any:
        """The model for this task with the weights of a checkpoint; arguments as for `vitriad.load`.

        Raises:
            ConfigError: models of this type do not do the task.
            CheckpointError: the weights cannot be used.
            BackendError: the framework is not installed.
        """
        config = kwargs.get("config")
        if not isinstance(config, PretrainedConfig):
            config = _described(name_or_path, kwargs)[0]
            kwargs = {**kwargs, **_same_commit(config)}
        return model_class(cls._class_name(config), backend).from_pretrained(name_or_path, **kwargs)

    @classmethod
    def from_config(cls, config: PretrainedConfig, backend: str = "auto", **kwargs: Any) -> Any:
        """The model for this task with fresh weights.

        Args:
            config: a ViTConfig or ViTMAEConfig.
            backend: as for `vitriad.load`.
            **kwargs: as for the constructor of the class.

        Raises:
            ConfigError: models of this type do not do the task.
            BackendError: the framework is not installed.
        """
        return model_class(cls._class_name(config), backend)(config, **kwargs)

    @classmethod
    def _class_name(cls, config: PretrainedConfig) -> str:
        model_type = getattr(config, "model_type", None)
        if model_type not in cls.classes:
            raise ConfigError(
                f"{cls.__name__}: expected a configuration of type {' or '.join(cls.classes)}, got {model_type!r}."
            )
        return cls.classes[model_type]


class AutoModel(_Auto):
    """The encoder without a head."""

    classes: ClassVar[dict[str, str]] = {"vit": "ViTModel", "vit_mae": "ViTMAEModel"}


class AutoModelForImageClassification(_Auto):
    """The classifier."""

    classes: ClassVar[dict[str, str]] = {"vit": "ViTForImageClassification"}


class AutoModelForMaskedImageModeling(_Auto):
    """The model that paints masked patches."""

    classes: ClassVar[dict[str, str]] = {"vit": "ViTForMaskedImageModeling"}


class AutoModelForPreTraining(_Auto):
    """The masked autoencoder."""

    classes: ClassVar[dict[str, str]] = {"vit_mae": "ViTMAEForPreTraining"}
