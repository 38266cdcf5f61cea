"""From a checkpoint to what a model class needs, and back: the one loader and the one saver of all backends."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from conversion.detect import Source, held_source, lone_checkpoint, open_source
from conversion.fitting import Fitted, Grid, Stored, Wanted, fit
from conversion.folds import LOSSY, check_allowed, with_class_row
from conversion.heads import check_heads
from conversion.inference import infer, is_of_transformers, said_size, stored_grid
from conversion.keywords import LOADING, Choosing, Fitting, Opening, refusals
from conversion.naming import HEADS
from conversion.recognition import heads_beside
from vit_core.config import CONFIG_NAME, PretrainedConfig, patch_grid, read_config
from vit_core.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MissingFileError,
    UnsafeFileError,
    VitError,
    reading,
)
from vit_core.files.containers import CONTAINERS
from vit_core.files.manifest import MANIFEST_NAME, is_saved_here
from vit_core.files.saving import replaced_weights, save_folder
from vit_core.files.weight_files import TRAINER_NAME, weight_names
from vit_core.hub.download import HUB_OPTIONS
from vit_core.limits import LIMITS
from vit_core.parameters import BASE_PREFIX, MODEL_CLASSES, check_tensors, parameter_table
from vit_core.parameters import class_name as canonical_class
from vit_core.plain_values import listed
from vit_core.positions import KERNELS
from vit_core.tensors import FLOAT_DTYPES, Array, dtype_name

logger = logging.getLogger("vitriad")

# Keywords of from_pretrained, by who takes them; every other one is a field of the configuration.
_OPENING = (*Opening.__annotations__,)
_FITTING = (*Fitting.__annotations__,)
_OWN = (*Choosing.__annotations__, "dtype", "torch_dtype")
# Keyword -> the dialects that it stands for; what a class of ours saved has no framework, and passes all three.
_ASSERTIONS = {"from_pt": ("hf",), "from_tf": ("hf_tf", "vitriad_tf"), "from_flax": ("hf_flax",)}
_MODEL_OPTIONS: dict[str, dict[str, bool]] = {"ViTModel": {"add_pooling_layer": True, "use_mask_token": False}}
_PARTS = {"add_pooling_layer": "pooler.dense.weight", "use_mask_token": "embeddings.mask_token"}  # which they are about


@dataclass(frozen=True)
class Report:
    """What loading did, to read: `print(report)`.

    Attributes:
        source: what was loaded.
        dialect: whose names and layout it has.
        model: the class it was loaded for.
        commit: of a hub repository; None for local files.
        notes: one line for everything that is not plain copying.
    """

    source: str
    dialect: str
    model: str
    commit: str | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        at = f" at {self.commit}" if self.commit else ""
        return "\n".join([f"{self.source}{at} (dialect {self.dialect}) as {self.model}", *self.notes])


class Loaded(NamedTuple):
    """What a backend builds a model from.

    Attributes:
        config: of the class, with overrides, `name_or_path` and `dtype` set.
        tensors: canonical name -> array in the wanted dtype, a view of the mapped file where nothing had to change.
        missing: parameters to initialise, in table order.
        options: constructor options of the class.
        info: what output_loading_info=True returns.
        report: what was done.
        stored_dtype: what the file holds its first floating tensor in.
        check: waits for the digests, and raises what they show.
    """

    config: Any
    tensors: dict[str, Array]
    missing: list[str]
    options: dict[str, bool]
    info: dict[str, list[str]]
    report: Report
    stored_dtype: str
    check: Callable[[], object]


def load_pretrained(
    name_or_path: str | Path | None,
    cls: str | type,
    kwargs: Mapping[str, Any],
    *,
    tensors: Mapping[str, Array] | None = None,
    wait: bool = True,
) -> Loaded:
    """Everything that `from_pretrained` of a model class needs.

    Args:
        name_or_path: folder, "owner/name" on the hub, or a weight file of any dialect.
        cls: a model class of any backend, or its name.
        kwargs: keywords of `from_pretrained`, without those that the backend takes itself (output_loading_info):

            config: configuration object or path, in place of the checkpoint's;
            dtype (torch_dtype): float32 unless given; "auto" is what the configuration says, else what is stored;
            add_pooling_layer, use_mask_token: of a ViTModel;
            strict: False also loads what fits badly: parameters that are missing or of another shape are initialised,
                tensors that mean nothing are left out;
            ignore_mismatched_sizes: parameters of another shape are initialised;
            position_kernel: resampler for position tables of another grid, see `vit_core.positions.resize_matrix`;
            allow_nonfinite: load NaN and infinity;
            variant, mmap, verify, limits: see `vit_core.files.folders.open_weights`;
            weights, allow: see `conversion.detect.open_source`;
            revision, subfolder, cache_dir, token, local_files_only, force_download, endpoint: see
                `vit_core.hub.download.Repository`;
            any field of the configuration.
        tensors: weights to use instead of those at `name_or_path`, under the names of any dialect. `name_or_path` then
            only gives the configuration, and may be None.
        wait: for the digests; False leaves it to the caller to call `check()` of the result.

    Raises:
        CheckpointError: the weights are missing, damaged or do not fit.
        ConfigError: the configuration, with its overrides, is invalid.
        InputError: a keyword that means nothing here.
    """
    model = canonical_class(cls)
    given = _checked(model, kwargs)
    if tensors is not None:
        loaded = _loaded(_held(name_or_path, tensors, given), model, given)
        loaded.config.name_or_path = str(name_or_path or "")
        return loaded
    opening = {name: given[name] for name in _OPENING if name in given}
    source = open_source(name_or_path, wait=wait, **opening)  # type: ignore[arg-type]  # which refuses None
    try:
        with reading(source.where):
            return _loaded(source, model, given)
    except VitError:
        source.weights.check()  # of a damaged file that is the error, whatever else it led to
        raise


def is_option(name: str) -> bool:
    """Whether a keyword of loading is taken by somebody, or refused, and so is no field of the configuration."""
    return name in (*_OPENING, *_FITTING, *_OWN, *_ASSERTIONS, *LOADING)


def _held(name_or_path: str | Path | None, tensors: Mapping[str, Array], given: Mapping[str, Any]) -> Source:
    """Weights that the caller has, beside the configuration of a checkpoint that is named or one that is given."""
    config = None
    if name_or_path is not None and given.get("config") is None:
        config, _ = read_config(name_or_path, {name: given[name] for name in HUB_OPTIONS if name in given})
    where = "state_dict" if name_or_path is None else str(name_or_path)
    return held_source(where, tensors, config, given.get("allow") or ())


def _loaded(source: Source, model: str, given: Mapping[str, Any]) -> Loaded:
    _check_dialect(source, given)
    if given.get("use_safetensors") and any(f.metadata.get("format") in CONTAINERS for f in source.weights.files):
        raise CheckpointError(f"{source.where}: use_safetensors=True, and its weights are in another kind of file.")
    config = _config(source, model, given, _config_data(source, model, given))
    options = {name: given.get(name, default) for name, default in _MODEL_OPTIONS.get(model, {}).items()}
    config.dtype = _dtype(source, config, given)
    fitting = {name: given[name] for name in _FITTING if name in given}
    fitted = _fit(source, config, model, options, given, dtype=config.dtype, **fitting)
    if given.get("strict", True):
        _check_heads(source, model, fitted)
    report = report_of(source, config, model, fitted)
    _log(report, fitted, source.outside)
    info = {
        "missing_keys": fitted.missing,
        "unexpected_keys": [*fitted.dropped, *fitted.unexplained, *source.outside],
        "mismatched_keys": fitted.mismatched,
        "error_msgs": [],
    }
    anew = {*fitted.missing, *fitted.mismatched}
    missing = [name for name in parameter_table(config, model, **options) if name in anew]
    tensors = {name: tensor.read() for name, tensor in fitted.tensors.items()}
    return Loaded(config, tensors, missing, options, info, report, _stored_dtype(source), source.weights.check)


def load(
    src: str | Path, *, cls: str | type | None = None, config: Any = None, **options: Any
) -> tuple[Any, dict[str, Array], Report]:
    """A checkpoint as it is, in the dtypes it is stored in.

    Args:
        src: folder, "owner/name" on the hub, or a weight file of any dialect.
        cls: class to read it for; None for the one whose weights it holds.
        config: configuration object or path, in place of the checkpoint's.
        **options: variant, weights, allow, mmap, verify, limits, allow_nonfinite and hub options, as for
            `load_pretrained`; add_pooling_layer, use_mask_token, unless given as the file has these parts; and fields
            of the configuration.

    Returns:
        its configuration, canonical name -> array, and a report that names the class.

    Raises:
        CheckpointError, ConfigError, InputError: as `load_pretrained`; also for every parameter that is missing.
    """
    source, found, model, fitted = plan(src, cls=cls, config=config, **options)
    with reading(source.where):
        tensors = {name: tensor.read() for name, tensor in fitted.tensors.items()}
    return found, tensors, report_of(source, found, model, fitted)


def plan(
    src: str | Path, *, cls: str | type | None = None, config: Any = None, **options: Any
) -> tuple[Source, Any, str, Fitted]:
    """What `load` does, before any data is read: the opened checkpoint, its configuration, the class, its tensors."""
    given = {"config": config, **options}
    if wrong := sorted(options.keys() & ({*_FITTING, *_OWN, *_ASSERTIONS, *LOADING} - {"allow_nonfinite"})):
        raise InputError(f"conversion.load: no option {', '.join(map(repr, wrong))}.")
    source, found, model, model_options = _described(src, cls, given)
    fitted = _fit(source, found, model, model_options, given, allow_nonfinite=given.get("allow_nonfinite", False))
    if fitted.missing:
        raise CheckpointError(
            f"{src}: as {model}, it lacks {listed(fitted.missing)}.\n"
            "Read it for a class that has no such part: cls= (--class)."
        )
    return source, found, model, fitted


def describe(src: str | Path, **options: Any) -> tuple[Any, str, dict[str, bool]]:
    """What a checkpoint is, whoever wrote it: its configuration, the class that it holds, options of that class.

    Args:
        src: folder, "owner/name" on the hub, or a weight file of any dialect.
        **options: keywords of `from_pretrained`; those that say nothing of this are passed over.

    Raises:
        CheckpointError, ConfigError, InputError: as `load`.
    """
    silent = {*_FITTING, *_OWN, *_ASSERTIONS, *LOADING} - {"config"}
    said = {name: value for name, value in options.items() if name not in silent and value is not None}
    _, config, model, model_options = _described(src, None, said)
    return config, model, model_options


def _described(
    src: str | Path, cls: str | type | None, given: Mapping[str, Any]
) -> tuple[Source, Any, str, dict[str, bool]]:
    """The opened checkpoint, its configuration, the class, options of the class."""
    source = open_source(src, **{name: value for name, value in given.items() if name in _OPENING})
    model = None if cls is None else canonical_class(cls)
    data = _config_data(source, model, given)
    model = model or _stored_class(data, source)
    parts = {name.removeprefix(BASE_PREFIX) for name in source.arrays}
    model_options = {name: given.get(name, _PARTS[name] in parts) for name in _MODEL_OPTIONS.get(model, {})}
    return source, _config(source, model, given, data), model, model_options


def save_pretrained(
    folder: str | Path,
    config: PretrainedConfig,
    tensors: Mapping[str, Array],
    *,
    class_name: str,
    max_shard_size: int | str = "5GB",
    variant: str | None = None,
    source: str | None = None,
    write_file: Callable[[dict[str, Array], Path], object] | None = None,
    folders: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Writes config.json and weights that every backend and transformers load, in place of what was there.

    Weights that a load could take for the new ones go with the old checkpoint, whoever wrote them; a log line says so.

    Args:
        folder: see `vit_core.files.saving.save_folder`, also for `max_shard_size`, `variant`, `write_file`, `folders`
            and `source` (unless given, the hub repository and the commit that the configuration was loaded from).
        config: of the model; the file also says the class and the dtype.
        tensors: canonical name -> array, all that the class has.
        class_name: name of the model class, in any backend.

    Raises:
        ConfigError: the configuration cannot be written (a callable activation); nothing is written then.
        CheckpointError: the tensors are not those of the class, or the folder cannot be written.
    """
    model = canonical_class(class_name)
    options = {
        "add_pooling_layer": "pooler.dense.weight" in tensors,
        "use_mask_token": "embeddings.mask_token" in tensors,
    }
    table = parameter_table(config, model, **options)
    check_tensors(model, table, {name: array.shape for name, array in tensors.items()})
    ordered = {name: tensors[name] for name in table}
    text = written_config(config, model, next(iter(tensors.values())).dtype.name)
    also = lone_checkpoint(folder) if variant is None else []
    old = replaced_weights(folder, variant, also)
    save_folder(
        folder,
        files={CONFIG_NAME: text},
        tensors=ordered,
        max_shard_size=max_shard_size,
        variant=variant,
        also=also,
        source=source or (f"{config.name_or_path}@{config.hub_commit}" if config.hub_commit else None),
        write_file=write_file,
        folders=folders,
    )
    if others := [name for name in old if not any(fnmatchcase(name, mine) for mine in weight_names(variant))]:
        logger.warning("%s: saved in place of other weights, which are gone: %s", folder, listed(others))


def written_config(config: PretrainedConfig, class_name: str, dtype: str) -> str:
    """The text of config.json beside weights of a class, in a dtype.

    Raises:
        ConfigError: the configuration cannot be written (a callable activation).
    """
    written = deepcopy(config)
    written.architectures, written.dtype = [canonical_class(class_name)], dtype
    return written.file_text()


# --- keywords and configuration --------------------------------------------------------------------------------------


def _checked(model: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that were given, None meaning not given; those that mean nothing here are refused."""
    known = {*_OPENING, *_FITTING, *_OWN, *_ASSERTIONS, *LOADING, *_MODEL_OPTIONS.get(model, {})}
    given = {name: value for name, value in kwargs.items() if value is not None or name not in known}
    if given.get("trust_remote_code"):
        raise UnsafeFileError(f"{model}.from_pretrained: delete trust_remote_code=: code of a checkpoint is never run.")
    refused = refusals(LOADING, given)
    if given.get("use_safetensors") is False:
        refused.append(
            "delete use_safetensors=False: safetensors come first where there are any; name another file to load that"
        )
    if refused:
        raise InputError(f"{model}.from_pretrained: {'; '.join(refused)}.")
    if (kernel := given.get("position_kernel", "hf")) not in KERNELS:
        raise InputError(f"position_kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}.")
    return {name: value for name, value in given.items() if name not in LOADING}


def _check_dialect(source: Source, given: Mapping[str, Any]) -> None:
    for keyword, dialects in _ASSERTIONS.items():
        if given.get(keyword) and source.dialect.name not in dialects and not _is_ours(source, given):
            raise InputError(
                f"{source.where}: {keyword}=True, but its weights are of the dialect {source.dialect.name!r}.\n"
                f"Delete {keyword}=; the dialect is recognised."
            )


def _is_ours(source: Source, given: Mapping[str, Any]) -> bool:
    """Whether a class of ours saved a checkpoint: all do so in the same names and layout."""
    manifest = source.beside(MANIFEST_NAME)
    return source.dialect.name == "hf" and manifest is not None and is_saved_here(manifest, given.get("limits", LIMITS))


def _config_data(source: Source, model: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the configuration to use: the caller's, else the checkpoint's, else what its tensors imply."""
    chosen = given.get("config")
    if isinstance(chosen, PretrainedConfig):
        return chosen.to_dict()
    if isinstance(chosen, str | os.PathLike):
        return read_config(Path(chosen), {})[0]
    if chosen is not None:
        raise InputError(f"config: expected a configuration or the path of one, got {type(chosen).__name__}.")
    if source.config is not None and is_of_transformers(source.config):
        return source.config
    if source.dialect.numerics is None:
        raise MissingFileError(f"{source.where}: no {CONFIG_NAME} beside the weights; pass config=.{_saver(source)}")
    bare = {name.removeprefix(BASE_PREFIX): tensor for name, tensor in source.arrays.items()}
    return infer(source.where, source.dialect, bare, source.shown, source.config, given, model)


def _saver(source: Source) -> str:
    """Who left the configuration out, where that can be seen."""
    files = [file for file in source.weights.files if file.content is not None]  # none of those the caller holds
    if not any((file.path.parent / TRAINER_NAME).exists() for file in files):
        return ""
    return (
        "\nThe Trainer of transformers saves weights only; with ModelFolders of vit_torch.training as a callback and "
        "as processing_class it saves the rest too."
    )


def _config(source: Source, model: str, given: Mapping[str, Any], stored: Mapping[str, Any]) -> Any:
    """The configuration of the class: stored keys, overridden by every keyword that nobody else takes."""
    taken = (*_OPENING, *_FITTING, *_OWN, *_ASSERTIONS, *_MODEL_OPTIONS.get(model, {}))
    overrides = {name: value for name, value in given.items() if name not in taken}
    origin = {"name_or_path": source.where, "hub_commit": source.commit}
    data = {**source.shown, **stored, **origin}
    if source.shown:
        is_given = "num_attention_heads" in overrides or given.get("config") is not None
        said = {**data, **overrides}["num_attention_heads"]
        said_by = "as given" if is_given else f"in {CONFIG_NAME}"
        check_heads(source.where, source.shown["num_attention_heads"], source.names, said, said_by)
    made: Any = MODEL_CLASSES[model].from_dict(data, return_unused_kwargs=True, **overrides)
    config, unknown = made
    if unknown:
        known = [*taken, *vars(config), "num_labels"]
        raise InputError(
            f"{model}.from_pretrained: {'; '.join(_unknown(name, known) for name in unknown)}\n"
            "Expected an option of loading or a field of the configuration."
        )
    return config


def _unknown(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"no keyword {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _dtype(source: Source, config: PretrainedConfig, given: Mapping[str, Any]) -> str:
    """The name of the dtype to load in."""
    asked = {
        "auto" if value == "auto" else dtype_name(value)
        for name, value in given.items()
        if name in ("dtype", "torch_dtype")
    }
    if len(asked) > 1:
        raise InputError(f"dtype and torch_dtype: expected one of them, got both, {' and '.join(sorted(asked))}.")
    name = asked.pop() if asked else "float32"
    if name != "auto":
        return name
    return config.dtype or _stored_dtype(source)


def _stored_dtype(source: Source) -> str:
    """The name of the dtype of the first floating tensor in the file."""
    stored = (info.dtype.name for info in source.weights.infos.values())
    return next((name for name in stored if name in FLOAT_DTYPES), "float32")


# --- weights ---------------------------------------------------------------------------------------------------------


def _stored_class(data: Mapping[str, Any], source: Source) -> str:
    """The class whose parameters a file holds."""
    names = {name.removeprefix(BASE_PREFIX) for name in source.arrays}
    if data.get("model_type") == "vit_mae":
        return "ViTMAEForPreTraining" if any(name.startswith("decoder.") for name in names) else "ViTMAEModel"
    if "classifier.weight" in names and not _has_representation(source):
        return "ViTForImageClassification"
    return "ViTForMaskedImageModeling" if "decoder.0.weight" in names else "ViTModel"


def _has_representation(source: Source) -> bool:
    """Whether a layer stands between class token and head: what other programs than transformers have a pooler for."""
    names = {name.removeprefix(BASE_PREFIX) for name in source.arrays}
    return source.dialect.numerics is not None and {"pooler.dense.weight", "classifier.weight"} <= names


def _fit(
    source: Source, config: Any, model: str, options: Mapping[str, bool], given: Mapping[str, Any], **wanted: Any
) -> Fitted:
    table = parameter_table(config, model, **options)
    grid, arrays = _stored_grid(source, model, given), dict(source.arrays)
    if source.dialect.numerics is not None:
        if model == "ViTForImageClassification" and _has_representation(source):
            check_allowed(source.where, "pre_logits", given.get("allow") or ())
        if model == "ViTMAEForPreTraining" and wanted.get("strict", True) and not any("decoder." in n for n in arrays):
            raise CheckpointError(
                f"{source.where}: no decoder weights in it, which {model} needs; ViTMAEModel does not."
            )
        for name in [name for name in arrays if name.endswith("position_embeddings")]:
            arrays[name] = with_class_row(arrays[name], math.prod(grid or ()))
    stored = Stored(source.where, arrays, source.unexplained, grid)
    return fit(stored, Wanted(model, table, patch_grid(config), **wanted))


def _check_heads(source: Source, model: str, fitted: Fitted) -> None:
    """Raises where a head would be drawn at random although somebody's own stands beside the encoder."""
    if not any(name.startswith(HEADS) for name in fitted.missing):
        return
    if beside := heads_beside(source.outside, source.dialect):
        raise CheckpointError(
            f"{source.where}: {model} needs a head behind {source.dialect.prefix[:80]!r}; there is none, and "
            f"{listed(beside, 2)} is another module's.\n"
            "Load the class without a head, or rename it; strict=False initialises a head anew."
        )


def _stored_grid(source: Source, model: str, given: Mapping[str, Any]) -> Grid | None:
    """The patch grid of the stored position tables: by the checkpoint's own configuration, or by their sizes."""
    if source.dialect.numerics is not None:
        bare = {name.removeprefix(BASE_PREFIX): tensor for name, tensor in source.arrays.items()}
        chosen = given.get("config")
        size = getattr(chosen, "image_size", None) if chosen is not None else given.get("image_size")
        said = said_size(source.where, source.config or {})
        return stored_grid(source.where, source.dialect, bare, said or size)
    if source.config is None or not is_of_transformers(source.config):
        return None
    try:
        origin = {"name_or_path": source.where, "hub_commit": source.commit}
        config: Any = MODEL_CLASSES[model].from_dict({**source.config, **origin})
    except ConfigError:  # the caller chose another one
        return None
    return patch_grid(config)


# --- report ----------------------------------------------------------------------------------------------------------


def report_of(source: Source, config: PretrainedConfig, model: str, fitted: Fitted) -> Report:
    """What loading did."""
    notes = [*source.notes]
    prefix = source.dialect.prefix
    renamed = [f"{stored} for {name}" for name, stored in source.names.items() if stored.removeprefix(prefix) != name]
    if renamed and source.dialect.name == "hf":
        notes.append(f"{len(renamed)} names spelled otherwise, such as {renamed[0]}")
    if model == "ViTForImageClassification" and _has_representation(source):
        notes.append(f"left out, as allowed: {LOSSY['pre_logits']}")
    said = source.config if source.config is not None and is_of_transformers(source.config) else {}
    found = said.get("model_type", config.model_type)
    if found != config.model_type:
        notes.append(f"configuration: of model_type {found}, read as {config.model_type}")
    rows = {
        "resized to {} x {} patches".format(*patch_grid(config)): fitted.resized,
        "left out, the class has no such part": fitted.dropped,
        "left out, not known here": fitted.unexplained,
        "not in the file, initialised": fitted.missing,
        "of another shape, initialised": fitted.mismatched,
    }
    notes += [f"{what}: {listed(names)}" for what, names in rows.items() if names]
    return Report(source.where, source.dialect.name, model, source.commit, tuple(notes))


def _log(report: Report, fitted: Fitted, outside: Sequence[str]) -> None:
    """One line: a warning if the model is not all from the file."""
    if anew := [*fitted.missing, *fitted.mismatched]:
        logger.warning("%s from %s: initialised anew, so train it: %s", report.model, report.source, listed(anew))
    if left := [*fitted.dropped, *fitted.unexplained, *outside]:
        logger.info("%s from %s: left out: %s", report.model, report.source, listed(left))
