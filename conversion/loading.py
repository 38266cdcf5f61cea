"""Loading: from a checkpoint of any dialect to the configuration and tensors of a model class, for all backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from conversion.adapting import asked
from conversion.detecting import Source, held_source, open_source
from conversion.fitting import Fitted, Grid, Stored, Wanted, fit
from conversion.folds import check_allowed, register_positions, scales, with_class_row
from conversion.inference import is_of_transformers, said_size, stored_grid
from conversion.keywords import ASSERTIONS, CHOOSING, FITTING, LOADING, MODEL_OPTIONS, OPENING, checked
from conversion.naming import HEADS
from conversion.recognition import heads_beside
from conversion.report import Report, log, report_of
from conversion.settings import chosen_dtype, config_data, config_of, stored_dtype
from vit_core.config import patch_grid, read_config
from vit_core.config.relatives import as_vit
from vit_core.errors import CheckpointError, ConfigError, InputError, VitError, reading
from vit_core.files.containers import CONTAINERS
from vit_core.files.manifest import MANIFEST_NAME, is_saved_here
from vit_core.hub.download import HUB_OPTIONS
from vit_core.limits import LIMITS
from vit_core.parameters import MODEL_CLASSES, has_pooler, parameter_table
from vit_core.parameters import class_name as canonical_class
from vit_core.plain_values import name_list, short
from vit_core.tensors import Array

_FITTING_AS_STORED = ("allow_nonfinite", "adapt")  # what `load` takes of FITTING


class Loaded(NamedTuple):
    """What a backend builds a model from.

    Attributes:
        config: of the class, with overrides, `name_or_path` and `dtype` set.
        tensors: canonical name -> array in the wanted dtype, a view of the mapped file where nothing had to change.
            With wait=False a `LazyArray`, which is read, and its values checked, when it is asked for.
        missing: parameters to initialise, in table order.
        options: constructor options of the class.
        info: what output_loading_info=True returns.
        report: what was done.
        stored_dtype: dtype of the first floating tensor in the file.
        reading: a block in which tensors are read: its errors name the checkpoint, and damage is told first.
        release: gives the memory that files are mapped into back, while nothing made of views of it is in use.
        check: waits for the digests of the files and raises if one does not match.
    """

    config: Any
    tensors: dict[str, Any]
    missing: list[str]
    options: dict[str, bool]
    info: dict[str, list[str]]
    report: Report
    stored_dtype: str
    reading: Callable[[], AbstractContextManager[None]]
    release: Callable[[], object]
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
            strict: False also loads a checkpoint that does not fit: parameters that are missing or of another shape are
                initialised, unknown tensors are left out;
            ignore_mismatched_sizes: parameters of another shape are initialised;
            position_kernel: resampler for position tables of another grid, see `vit_core.positions.resize_matrix`;
            allow_nonfinite: load NaN and infinity;
            adapt: "channels", "patches" or both: num_channels or patch_size may be other than the file's, see
                `vit_core.projections`;
            variant, mmap, verify, limits: see `vit_core.files.folders.open_weights`;
            weights, allow: see `conversion.detecting.open_source`;
            revision, subfolder, cache_dir, token, local_files_only, force_download, endpoint: see
                `vit_core.hub.download.Repository`;
            any field of the configuration.
        tensors: weights to use instead of those at `name_or_path`, under the names of any dialect. `name_or_path` then
            only gives the configuration, and may be None.
        wait: until all is read and the digests are compared. False leaves it to the caller to read the tensors inside
            `reading()` of the result, and to call its `check()` before anybody uses what is made of them.

    Raises:
        CheckpointError: the weights are missing, damaged or do not fit.
        ConfigError: the configuration, with its overrides, is invalid.
        InputError: an unknown keyword.
    """
    model = canonical_class(cls)
    given = checked(model, kwargs)
    if tensors is not None:
        source = _held(name_or_path, tensors, given)
    else:
        opening = {name: given[name] for name in OPENING if name in given}
        source = open_source(name_or_path, wait=wait, **opening)  # type: ignore[arg-type]  # which refuses None
    with _reading(source):
        loaded = _loaded(source, model, given)
        if wait:
            loaded.tensors.update({name: tensor.read() for name, tensor in loaded.tensors.items()})
    if tensors is not None:
        loaded.config.name_or_path = str(name_or_path or "")
    return loaded


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    """What is inside reads a checkpoint. Of a damaged file that is the error, whatever else it led to."""
    try:
        with reading(source.where):
            yield
    except VitError:
        source.weights.check()
        raise


def _held(name_or_path: str | Path | None, tensors: Mapping[str, Array], given: Mapping[str, Any]) -> Source:
    """Weights in the caller's hands as a checkpoint, with the configuration that is given or is found at a name."""
    config = None
    if name_or_path is not None and given.get("config") is None:
        config, _ = read_config(name_or_path, {name: given[name] for name in HUB_OPTIONS if name in given})
    where = "state_dict" if name_or_path is None else str(name_or_path)
    return held_source(where, tensors, config, given.get("allow") or ())


def _loaded(source: Source, model: str, given: Mapping[str, Any]) -> Loaded:
    _check_dialect(source, given)
    if given.get("use_safetensors") and any(f.metadata.get("format") in CONTAINERS for f in source.weights.files):
        raise CheckpointError(f"{source.where}: use_safetensors=True, and its weights are in another kind of file.")
    config = config_of(source, model, given, config_data(source, model, given))
    source = _folded(source, config, model, given)
    options = {name: given.get(name, default) for name, default in MODEL_OPTIONS.get(model, {}).items()}
    config.dtype = chosen_dtype(source, config, given)
    fitting = {name: given[name] for name in FITTING if name in given}
    fitted = _fit(source, config, model, options, given, dtype=config.dtype, **fitting)
    if given.get("strict", True):
        _check_heads(source, model, fitted)
    report = report_of(source, config, model, fitted)
    log(report, fitted, source.outside)
    info = {
        "missing_keys": fitted.missing,
        "unexpected_keys": [*fitted.dropped, *fitted.unexplained, *source.outside],
        "mismatched_keys": fitted.mismatched,
        "error_msgs": [],
    }
    anew = {*fitted.missing, *fitted.mismatched}
    missing = [name for name in parameter_table(config, model, **options) if name in anew]
    return Loaded(
        *(config, fitted.tensors, missing, options, info, report, stored_dtype(source)),
        *(partial(_reading, source), source.weights.release, source.weights.check),
    )


def load(
    src: str | Path, *, cls: str | type | None = None, config: Any = None, **options: Any
) -> tuple[Any, dict[str, Array], Report]:
    """A checkpoint as it is, in the dtypes it is stored in.

    Args:
        src: folder, "owner/name" on the hub, or a weight file of any dialect.
        cls: class to read it for; None for the one whose weights it holds.
        config: configuration object or path, in place of the checkpoint's.
        **options: variant, weights, allow, adapt, mmap, verify, limits, allow_nonfinite and hub options, as for
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
    """The first half of `load`, which reads no data: opened checkpoint, configuration, class and tensors."""
    given = {"config": config, **options}
    asked(options.get("adapt"))
    if wrong := sorted(options.keys() & ({*FITTING, *CHOOSING, *ASSERTIONS, *LOADING} - {*_FITTING_AS_STORED})):
        raise InputError(f"conversion.load: no option {', '.join(map(repr, wrong))}.")
    source, found, model, model_options = _described(src, cls, given)
    fitting = {name: given[name] for name in _FITTING_AS_STORED if given.get(name) is not None}
    fitted = _fit(source, found, model, model_options, given, **fitting)
    if fitted.missing:
        raise CheckpointError(
            f"{src}: as {model}, it lacks {name_list(fitted.missing)}.\n"
            "Read it for a class that has no such part: cls= (--class)."
        )
    return source, found, model, fitted


def describe(src: str | Path, **options: Any) -> tuple[Any, str, dict[str, bool]]:
    """What a checkpoint of any program holds: its configuration, its model class, and options of that class.

    Args:
        src: folder, "owner/name" on the hub, or a weight file of any dialect.
        **options: keywords of `from_pretrained`; those without influence on the answer are ignored.

    Raises:
        CheckpointError, ConfigError, InputError: as `load`.
    """
    silent = {*FITTING, *CHOOSING, *ASSERTIONS, *LOADING} - {"config"}
    said = {name: value for name, value in options.items() if name not in silent and value is not None}
    _, config, model, model_options = _described(src, None, said)
    return config, model, model_options


def _described(
    src: str | Path, cls: str | type | None, given: Mapping[str, Any]
) -> tuple[Source, Any, str, dict[str, bool]]:
    """The opened checkpoint, its configuration, the class, options of the class."""
    source = open_source(src, **{name: value for name, value in given.items() if name in OPENING})
    model = None if cls is None else canonical_class(cls)
    data = config_data(source, model, given)
    model = model or _stored_class(data, source)
    config = config_of(source, model, given, data)
    source = _folded(source, config, model, given)
    names = source.bare
    found = {"add_pooling_layer": has_pooler(config, names), "use_mask_token": "embeddings.mask_token" in names}
    model_options = {name: given.get(name, found[name]) for name in MODEL_OPTIONS.get(model, {})}
    return source, config, model, model_options


def _folded(source: Source, config: Any, model: str, given: Mapping[str, Any]) -> Source:
    """A checkpoint after what its configuration decides; those saved here stay as they are, and fits tell of them.

    Numbered tensors get their names; LayerScales go where the configuration has none, and positions of registers go
    into those where the table has rows for them.
    """
    if source.dialect.is_canonical:
        return source
    arrays, grid = dict(source.arrays), _stored_grid(source, model, given)
    if source.dialect.settle:
        source.dialect.settle(config, arrays)
    notes = register_positions(arrays, math.prod(grid)) if grid else []
    notes += scales(source.where, arrays, config.num_hidden_layers) if config.layerscale_value is None else []
    return source._replace(arrays=arrays, notes=[*source.notes, *notes])


def _check_dialect(source: Source, given: Mapping[str, Any]) -> None:
    for keyword, framework in ASSERTIONS.items():
        if given.get(keyword) and source.dialect.framework != framework and not _is_ours(source, given):
            raise InputError(
                f"{source.where}: {keyword}=True, but its weights are of the dialect {source.dialect.name!r}.\n"
                f"Delete {keyword}=; the dialect is recognised."
            )


def _is_ours(source: Source, given: Mapping[str, Any]) -> bool:
    """Whether a class of ours saved a checkpoint: all do so in the same names and layout."""
    manifest = source.beside(MANIFEST_NAME)
    return source.dialect.is_canonical and manifest is not None and is_saved_here(manifest, given.get("limits", LIMITS))


# --- weights ---------------------------------------------------------------------------------------------------------


def _stored_class(data: Mapping[str, Any], source: Source) -> str:
    """The class whose parameters a file holds."""
    names = source.bare
    if data.get("model_type") == "vit_mae":
        return "ViTMAEForPreTraining" if any(name.startswith("decoder.") for name in names) else "ViTMAEModel"
    if "classifier.weight" in names and not source.has_representation:
        return "ViTForImageClassification"
    return "ViTForMaskedImageModeling" if "decoder.0.weight" in names else "ViTModel"


def _fit(
    source: Source, config: Any, model: str, options: Mapping[str, bool], given: Mapping[str, Any], **wanted: Any
) -> Fitted:
    table = parameter_table(config, model, **options)
    wanted["adapt"] = asked(wanted.get("adapt"))
    grid, arrays = _stored_grid(source, model, given), dict(source.arrays)
    if source.dialect.numerics is not None:
        if model == "ViTForImageClassification" and source.has_representation:
            check_allowed(source.where, "pre_logits", given.get("allow") or ())
        if model == "ViTMAEForPreTraining" and wanted.get("strict", True) and not any("decoder." in n for n in arrays):
            raise CheckpointError(
                f"{source.where}: no decoder weights in it, which {model} needs; ViTMAEModel does not."
            )
        for name in [name for name in arrays if name.endswith("position_embeddings") and config.use_class_token]:
            arrays[name] = with_class_row(arrays[name], math.prod(grid or ()))
    stored = Stored(source.where, arrays, source.unexplained, grid)
    return fit(stored, Wanted(model, table, patch_grid(config), **wanted))


def _check_heads(source: Source, model: str, fitted: Fitted) -> None:
    """Raises if a head would be initialised at random while the file holds one outside the prefix of the model."""
    if not any(name.startswith(HEADS) for name in fitted.missing):
        return
    if beside := heads_beside(source.outside, source.dialect):
        raise CheckpointError(
            f"{source.where}: {model} needs a head behind {short(source.dialect.prefix)}; there is none, and "
            f"{name_list(beside, 2)} is another module's.\n"
            "Load the class without a head, or rename it; strict=False initialises a head anew."
        )


def _stored_grid(source: Source, model: str, given: Mapping[str, Any]) -> Grid | None:
    """The patch grid of the stored position tables: by the checkpoint's own configuration, or by their sizes."""
    if source.dialect.numerics is not None:
        bare = source.bare
        chosen = given.get("config")
        size = getattr(chosen, "image_size", None) if chosen is not None else given.get("image_size")
        said = said_size(source.where, source.config or {})
        return stored_grid(source.where, source.dialect, bare, said or size)
    if source.config is None or not is_of_transformers(source.config):
        return None
    try:
        origin = {"name_or_path": source.where, "hub_commit": source.commit}
        config: Any = MODEL_CLASSES[model].from_dict({**as_vit(source.config), **origin})
    except ConfigError:  # the caller chose another one
        return None
    return patch_grid(config)
