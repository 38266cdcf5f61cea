"""Which class of which backend a checkpoint or a configuration needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, Unpack, overload

from conversion.auto import AutoClass, architecture, configuration, same_commit
from conversion.keywords import AutoKeywords, LoadingInfo
from vit_core.config import PretrainedConfig
from vit_core.errors import BackendError, InputError
from vit_core.installing import install_command
from vit_core.tensors import missing_backend
from vitriad.backends import BACKENDS, backend_name
from vitriad.engines import artefact_folder, check_engine
from vitriad.models import find
from vitriad.optimizing import optimized

if TYPE_CHECKING:
    import vit_flax.pretrained
    import vit_tf.pretrained
    import vit_torch.pretrained

logger = logging.getLogger("vitriad")

# What an Auto class makes, by backend.
Torch = TypeVar("Torch")
TF = TypeVar("TF")
Flax = TypeVar("Flax")


@overload
def load(
    name_or_path: str | Path,
    backend: Literal["torch", "pytorch"],
    *,
    output_loading_info: Literal[False] = False,
    optimize: bool | str = False,
    **kwargs: Unpack[AutoKeywords],
) -> vit_torch.pretrained.PreTrainedModel: ...
@overload
def load(
    name_or_path: str | Path,
    backend: Literal["tf", "tensorflow"],
    *,
    output_loading_info: Literal[False] = False,
    **kwargs: Unpack[AutoKeywords],
) -> vit_tf.pretrained.TFViTPreTrainedModel: ...
@overload
def load(
    name_or_path: str | Path,
    backend: Literal["flax", "jax"],
    *,
    output_loading_info: Literal[False] = False,
    **kwargs: Unpack[AutoKeywords],
) -> vit_flax.pretrained.FlaxViTPreTrainedModel: ...
@overload
def load(
    name_or_path: str | Path,
    backend: str = "auto",
    *,
    output_loading_info: bool = False,
    threads: int | None = None,
    machine_code: bool = False,
    optimize: bool | str = False,
    **kwargs: Unpack[AutoKeywords],
) -> Any: ...
def load(name_or_path: str | Path, backend: str = "auto", **kwargs: Any) -> Any:
    """The model of a checkpoint: of the class that its config.json names, else of the one whose weights it holds.

    Args:
        name_or_path: folder, "owner/name" on the hub, a weight file of any dialect, or a model that comes with vitriad
            ("digits-vit"); or the folder of an exported program, which becomes a `vitriad.artefacts.ExportedModel`.
        backend: "torch", "tf", "flax", or "auto" for the first of these that is installed; a log line says which. Of
            an exported program its format, or "auto".
        **kwargs: as for the `from_pretrained` of the class; `optimize`, of torch: True or "bfloat16" for
            `vit_torch.optimize_for_inference`; of an exported program `threads`, `verify`, and
            `machine_code` where it is compiled: True if you trust whoever wrote it.

    Raises:
        CheckpointError: config.json names no class, several, or none that exists here; or the weights cannot be used.
        BackendError: the framework is not installed.
    """
    path, optimize = find(name_or_path), kwargs.pop("optimize", False)
    if folder := artefact_folder(path):
        return _exported(folder, backend, optimize=optimize or None, **kwargs)
    check_engine(name_or_path, backend)
    if wrong := [name for name in ("threads", "machine_code") if kwargs.pop(name, None)]:
        raise InputError(f"load: {name_or_path} is a checkpoint; {wrong[0]} is for exported programs.")
    config, name, options = architecture(path, **kwargs)
    loaded = model_class(name, backend).from_pretrained(path, **{**options, **kwargs, **same_commit(config)})
    optimized(loaded[0] if kwargs.get("output_loading_info") else loaded, optimize)
    return loaded


def _exported(
    folder: Path,
    backend: str,
    *,
    threads: int | None = None,
    verify: bool = True,
    machine_code: bool = False,
    **kwargs: Any,
) -> Any:
    """An exported program as a model."""
    from vitriad.artefacts import ExportedModel, check_format, read_artefact

    if wrong := [name for name, value in kwargs.items() if value is not None]:
        raise InputError(f"load: {folder} is an exported program, which takes no {', '.join(wrong)}.")
    artefact = read_artefact(folder, verify)
    check_format(artefact, backend)
    return ExportedModel(artefact, threads, machine_code)


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
        commands = " or ".join(map(install_command, BACKENDS))
        raise BackendError(f"{name}: none of {', '.join(BACKENDS)} can be used here.\nInstall one with: {commands}")


class _Auto(AutoClass[Any], Generic[Torch, TF, Flax]):
    """An Auto class of the front door: `models` holds canonical names, and a keyword says the backend."""

    models: ClassVar[Mapping[str, str]] = {}

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: Literal["torch", "pytorch"],
        *,
        output_loading_info: Literal[True],
        **kwargs: Unpack[AutoKeywords],
    ) -> tuple[Torch, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: Literal["torch", "pytorch"],
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[AutoKeywords],
    ) -> Torch: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: Literal["tf", "tensorflow"],
        *,
        output_loading_info: Literal[True],
        **kwargs: Unpack[AutoKeywords],
    ) -> tuple[TF, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: Literal["tf", "tensorflow"],
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[AutoKeywords],
    ) -> TF: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: Literal["flax", "jax"],
        *,
        output_loading_info: Literal[True],
        **kwargs: Unpack[AutoKeywords],
    ) -> tuple[Flax, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: Literal["flax", "jax"],
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[AutoKeywords],
    ) -> Flax: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        backend: str = "auto",
        *,
        output_loading_info: bool = False,
        **kwargs: Unpack[AutoKeywords],
    ) -> Any: ...
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, backend: str = "auto", **kwargs: Any) -> Any:
        """The model for this task with the weights of a checkpoint; arguments as for `vitriad.load`.

        Raises:
            ConfigError: models of this type do not do the task.
            CheckpointError: the weights cannot be used.
            BackendError: the framework is not installed.
        """
        path = find(pretrained_model_name_or_path)
        config = configuration(path, **kwargs)
        chosen = model_class(cls.model_of(config), backend)
        return chosen.from_pretrained(path, **{**kwargs, **same_commit(config)})

    @classmethod
    def from_config(cls, config: PretrainedConfig, backend: str = "auto", **kwargs: Any) -> Any:
        """The model for this task with fresh weights; `backend` as for `vitriad.load`.

        Raises:
            ConfigError: models of this type do not do the task.
            BackendError: the framework is not installed.
        """
        return model_class(cls.model_of(config), backend)(config, **kwargs)


class AutoModel(
    _Auto[
        "vit_torch.ViTModel | vit_torch.ViTMAEModel",
        "vit_tf.TFViTModel | vit_tf.TFViTMAEModel",
        "vit_flax.FlaxViTModel | vit_flax.FlaxViTMAEModel",
    ]
):
    """The encoder without a head."""

    models: ClassVar[Mapping[str, str]] = {"vit": "ViTModel", "vit_mae": "ViTMAEModel"}


class AutoModelForImageClassification(
    _Auto[
        "vit_torch.ViTForImageClassification",
        "vit_tf.TFViTForImageClassification",
        "vit_flax.FlaxViTForImageClassification",
    ]
):
    """The classifier."""

    models: ClassVar[Mapping[str, str]] = {"vit": "ViTForImageClassification"}


class AutoModelForMaskedImageModeling(
    _Auto[
        "vit_torch.ViTForMaskedImageModeling",
        "vit_tf.TFViTForMaskedImageModeling",
        "vit_flax.FlaxViTForMaskedImageModeling",
    ]
):
    """The model that paints masked patches."""

    models: ClassVar[Mapping[str, str]] = {"vit": "ViTForMaskedImageModeling"}


class AutoModelForPreTraining(
    _Auto[
        "vit_torch.ViTMAEForPreTraining",
        "vit_tf.TFViTMAEForPreTraining",
        "vit_flax.FlaxViTMAEForPreTraining",
    ]
):
    """The masked autoencoder."""

    models: ClassVar[Mapping[str, str]] = {"vit_mae": "ViTMAEForPreTraining"}
