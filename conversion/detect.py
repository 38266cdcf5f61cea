"""Finds the files of a checkpoint, whose dialect they speak, and what their tensors are called in ours."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conversion.dialects import Dialect
from conversion.files import CONTAINERS, open_any
from conversion.folds import LOSSY, folded, mapped, unstacked, with_prefix
from conversion.heads import shown_heads
from conversion.layouts import to_canonical
from conversion.naming import HEADS, Names, canonical_names, listed, template
from conversion.recognition import dropped, recognised, refuse_marked
from conversion.tables.rows import Part
from vit_core.atomic_folder import finds_folder, is_decided
from vit_core.checkpoint import (
    MANIFEST_NAME,
    LazyArray,
    WeightFile,
    Weights,
    open_shards,
    open_weights,
    read_index,
    verified,
)
from vit_core.config import CONFIG_NAME
from vit_core.errors import CheckpointError, ConfigError, InputError, MissingFileError, VitError
from vit_core.hub import Repository, commit_of, local_folder
from vit_core.jsonfile import read_json
from vit_core.limits import LIMITS, Limits
from vit_core.parameters import BASE_PREFIX, MODEL_CLASSES, Kind, parameter_table
from vit_core.weight_files import ADAPTER_NAME, KERAS_HUB, SUFFIX, SUFFIXES, taken, weight_names

Array = np.ndarray[Any, np.dtype[Any]]

# Suffix of a family's files -> a name in an index of them as it is in the file.
_RENAMED: dict[str, Callable[[str], str]] = {
    SUFFIX: str,
    ".bin": str,
    ".h5": lambda name: name.partition("/")[2],
    ".msgpack": lambda name: name.replace("/", "."),
}
# What safetensors files say of themselves -> the dialect that it stands for; None where names alone decide.
_FORMATS = {"tf": "hf_tf", "flax": "hf_flax", **dict.fromkeys(("pt", "mlx", *CONTAINERS))}
_SIDECARS = (CONFIG_NAME, "task.json")  # what says more than the tensors
_TENSORSTORE = re.compile(r"[^~.]+(~[^~.]+)+")  # a folder per array, named by the way to it
_ATTEMPTS = 100


class Source(NamedTuple):
    """An opened checkpoint; its data is not read yet.

    Attributes:
        where: what the caller named.
        config: the object in config.json, or None where there is none.
        weights: its tensors, as stored.
        dialect: how they are named and laid out.
        names: canonical name -> name in the file.
        arrays: canonical name, with the prefix where there is a head -> tensor in the canonical layout.
        shown: fields of a configuration that the stored layout shows.
        unexplained: names that mean nothing.
        notes: what was done, a line each.
        commit: of a hub repository.
    """

    where: str
    config: dict[str, Any] | None
    weights: Weights
    dialect: Dialect
    names: dict[str, str]
    arrays: dict[str, LazyArray]
    shown: dict[str, Any]
    unexplained: list[str]
    notes: list[str]
    commit: str | None


def detect(src: str | Path, **options: Any) -> str:
    """The dialect of a checkpoint, such as "hf", "timm" or "google"; see docs/conversion.md.

    Args:
        src: folder, weight file, or "owner/name" on the hub.
        **options: as for `open_source`.

    Raises:
        CheckpointError: nothing readable there, or names of no known dialect.
    """
    return open_source(src, **options).dialect.name


def open_source(
    src: str | Path,
    *,
    variant: str | None = None,
    weights: str | None = None,
    allow: Collection[str] = (),
    mmap: bool = True,
    verify: bool | str = "auto",
    wait: bool = True,
    limits: Limits = LIMITS,
    **hub: Any,
) -> Source:
    """Opens a checkpoint: its configuration and the headers of its weights.

    Args:
        src: folder, weight file, or "owner/name" on the hub, of which only the files needed are fetched.
        variant: see `vit_core.checkpoint.open_weights`, also for `mmap`, `verify`, `wait` and `limits`.
        weights: which of several sets of weights in a file to take, such as "teacher".
        allow: what may be left out although the outputs then differ: "distillation", "pre_logits".
        **hub: options of `vit_core.hub.Repository`.

    Raises:
        MissingFileError: nothing there.
        CheckpointError: the weights are unreadable, or of no known dialect.
    """
    if not isinstance(src, str | os.PathLike):
        raise InputError(f"checkpoint: expected a folder or a hub name, got {type(src).__name__}.")
    if isinstance(allow, str) or {*allow} - LOSSY.keys():
        raise InputError(f"allow: expected some of {', '.join(map(repr, LOSSY))}, got {repr(allow)[:80]}.")
    where = str(src)
    checking = {"mmap": mmap, "verify": verify, "wait": wait, "limits": limits}
    with _uncollected():
        if os.path.isfile(src):
            found = _open_file(Path(src), weights, checking)
            return _source(where, _archived_config(found), found, None, allow, limits)
        local = local_folder(src, hub.get("subfolder") or "")
        folder = local or _fetched(Repository(where, **hub), variant, limits)

        def read() -> Source:
            found = _open_folder(folder, variant, weights, checking)
            return _source(where, _config(folder, limits), found, commit_of(folder), allow, limits)

        return _unchanged(folder, read)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage inside the block: of 100,000 names it takes most of the time, and there is none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def held_source(
    where: str, tensors: Mapping[str, Array], config: dict[str, Any] | None, allow: Collection[str] = ()
) -> Source:
    """A checkpoint whose tensors the caller holds, read like the ones of a file.

    Args:
        where: for messages.
        tensors: arrays under the names of any dialect.
        config: what config.json says, or None.
        allow: as for `open_source`.

    Raises:
        CheckpointError: names of no known dialect.
    """
    lazy = {name: LazyArray(array.dtype, array.shape, partial(np.asarray, array)) for name, array in tensors.items()}
    weights = Weights([WeightFile(Path(where), {}, lazy, None)])
    return _source(where, config, weights, None, allow, LIMITS)


def _fetched(repository: Repository, variant: str | None, limits: Limits) -> Path:
    """The folder of the hub's cache with the configuration, the manifest and the weights of a repository."""
    single, index, _ = weight_names(variant)
    for file in (CONFIG_NAME, MANIFEST_NAME):
        repository.fetch(file)
    for file in (single, index):
        if found := repository.fetch(file):
            return _with_shards(repository, found, SUFFIX, limits)
    names = {*repository.names()}  # no safetensors there: what else is
    chosen, suffix = taken(names, variant)
    if suffix and (found := repository.fetch(chosen[0])):
        return _with_shards(repository, found, suffix, limits)
    _check_adapter(repository.name, names, chosen)
    if not suffix and len(chosen) > 1 and chosen[0] not in KERAS_HUB:
        raise CheckpointError(
            f"{repository.name}: several weight files: {listed(chosen)}.\nLoad one of them from a folder."
        )
    fetched = [path for file in (*chosen, *_SIDECARS) if file in names and (path := repository.fetch(file))]
    if not chosen or not fetched:
        repository.fail(single, index)
    return fetched[0].parent


def _with_shards(repository: Repository, found: Path, suffix: str, limits: Limits) -> Path:
    if found.name.endswith(".json"):
        for shard in sorted(read_index(found, limits, suffix)):
            repository.fetch(shard)
    return found.parent


def _unchanged(folder: Path, read: Callable[[], Source]) -> Source:
    """What `read` finds in a folder, all of it of one checkpoint: again if a save replaced the folder meanwhile."""
    for _ in range(_ATTEMPTS):
        if not finds_folder(folder):
            raise MissingFileError(f"{folder}: no such folder.")
        with _held(folder) as is_same:
            try:
                source = read()
            except (VitError, FileNotFoundError):
                if is_same():
                    raise
                continue
            if is_same():
                return source
    raise CheckpointError(f"{folder}: replaced again and again while it was read.")


@contextmanager
def _held(folder: Path) -> Iterator[Callable[[], bool]]:
    """Whether `folder` and the files of a checkpoint in it are still the ones that were there at the start.

    The folder is kept open, so that no new one gets its number.
    """
    if os.name != "posix":  # folders cannot be opened, and one in use cannot be replaced
        yield lambda: True
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # just being replaced
        yield lambda: False
        return
    before = _versions(descriptor)

    def is_same() -> bool:
        try:
            is_there = os.path.samestat(os.fstat(descriptor), os.stat(folder))
            return is_there and _versions(descriptor) == before and not is_decided(folder)
        except FileNotFoundError:
            return False

    try:
        yield is_same
    finally:
        os.close(descriptor)


def _versions(folder: int) -> dict[str, tuple[int, int]]:
    """Inode and time of every file of a checkpoint in an open folder: saves replace files, never write into them."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed since it was listed
                if entry.name.endswith((*SUFFIXES, ".json")):
                    found[entry.name] = (entry.inode(), entry.stat(follow_symlinks=False).st_mtime_ns)
    return found


def _config(folder: Path, limits: Limits) -> dict[str, Any] | None:
    """What config.json says, or for a whole task of keras-hub task.json, which repeats it and says more."""
    found = None
    for name in _SIDECARS:
        path = folder / name
        if path.exists() and (found is None or "class_name" in found):
            found = read_json(path, limit="config_bytes", error=ConfigError, limits=limits)
    return found


def _archived_config(weights: Weights) -> dict[str, Any] | None:
    """What a .keras archive says of its model."""
    text = weights.files[0].metadata.get("keras")
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{weights.files[0].path}: config.json in it is not valid JSON.") from None
    return found if isinstance(found, dict) else None


# --- files -----------------------------------------------------------------------------------------------------------


def _open_file(path: Path, weights: str | None, checking: dict[str, Any]) -> Weights:
    path = Path(os.path.realpath(path))  # the user named this very link
    file = open_any(path, weights=weights, mmap=checking["mmap"], limits=checking["limits"])
    return verified([file], {}, **_without(checking, "mmap"))


def _open_folder(path: Path, variant: str | None, weights: str | None, checking: dict[str, Any]) -> Weights:
    """The weights of a folder, as `vit_core.weight_files` says."""
    names = {*os.listdir(path)}
    chosen, suffix = taken(names, variant)
    if suffix == SUFFIX:
        if weights is not None:
            raise InputError(f"{path}: weights={weights!r}: safetensors files hold one set of weights. Delete it.")
        return open_weights(path, variant=variant, **checking)
    opener = partial(open_any, weights=weights)
    opening = {"mmap": checking["mmap"], "limits": checking["limits"]}
    if suffix and chosen[0].endswith(".json"):
        renamed = _RENAMED[suffix]
        files, extra = open_shards(path / chosen[0], opener=opener, suffix=suffix, renamed=renamed, **opening)
        return verified(files, extra, **_without(checking, "mmap"))
    if not suffix:
        _check_choice(str(path), names, chosen, variant)
    return verified([opener(path / name, **opening) for name in chosen], {}, **_without(checking, "mmap"))


def _without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


def _check_choice(where: str, names: Collection[str], chosen: Sequence[str], variant: str | None) -> None:
    """Raises unless weight files of other programs' names are one checkpoint."""
    _check_adapter(where, names, chosen)
    if not chosen and sum(_TENSORSTORE.fullmatch(name) is not None for name in names) > 1:
        raise CheckpointError(f"{where}: a tensorstore of big_vision, which is not read here. Export it to .npz.")
    if not chosen:
        single, index, _ = weight_names(variant)
        raise MissingFileError(f"{where}: no weights here: neither {single} nor {index}, nor another program's.")
    if len(chosen) > 1 and chosen[0] not in KERAS_HUB:
        raise CheckpointError(f"{where}: several weight files: {listed(chosen)}.\nName the one to load.")


def _check_adapter(where: str, names: Collection[str], chosen: Sequence[str]) -> None:
    """Raises for an adapter where a model is wanted."""
    if not chosen and ADAPTER_NAME in names:
        raise CheckpointError(
            f"{where}: an adapter of PEFT, not a model.\nLoad its base model, then the adapter onto it: "
            f"PeftModel.from_pretrained(model, {where!r}). merge_and_unload() of that is a model to save."
        )


def lone_checkpoint(folder: str | Path) -> list[str]:
    """The name of the file that a load of a folder takes although it could be called anything; none if there is none.

    Only of a checkpoint that is known here: another program's files are no business of whoever saves beside them.
    """
    try:
        chosen, suffix = taken({*os.listdir(folder)}) if finds_folder(folder) else ([], None)
        if suffix or len(chosen) != 1 or chosen[0] in KERAS_HUB:
            return []
        open_source(Path(folder) / chosen[0], verify=False)
    except (VitError, OSError):
        return []
    return chosen


# --- names -----------------------------------------------------------------------------------------------------------


def _source(
    where: str,
    config: dict[str, Any] | None,
    weights: Weights,
    commit: str | None,
    allow: Collection[str],
    limits: Limits,
) -> Source:
    tensors = unstacked(weights.infos, limits.layers)
    dialect = recognised(where, tensors)
    for file in weights.files:
        layout = file.metadata.get("format", "pt")
        if layout not in _FORMATS or _FORMATS[layout] not in (None, dialect.name):
            raise CheckpointError(
                f"{file.path}: its layout is said to be {layout!r}, its names are those of {dialect.name!r}."
            )
    names, unexplained = canonical_names(where, tensors, dialect)
    left = {name: reason for name in unexplained if (reason := dropped(name, dialect))}
    unexplained = [name for name in unexplained if name not in left]
    refuse_marked(where, unexplained)
    shown = shown_heads(where, tensors, names, kinds()) if dialect.convention == "heads" else {}
    arrays = {name: _canonical(where, tensors, name, cell, dialect.convention) for name, cell in names.items()}
    notes = [
        f"left out, {reason}: {listed([n for n in left if left[n] == reason], 3)}"
        for reason in dict.fromkeys(left.values())
    ]
    notes += [
        f"weights: {file.metadata['weights']!r} of {file.path.name}"
        for file in weights.files
        if "weights" in file.metadata
    ]
    if dialect.numerics is not None:
        arrays, folds = folded(where, arrays, allow)
        notes += folds
    if dialect.name != "hf":
        arrays = with_prefix(arrays, HEADS)
    return Source(
        *(where, config, weights, dialect, _stored_names(names, arrays), arrays),
        *(shown, unexplained, notes, commit),
    )


def _canonical(where: str, tensors: dict[str, LazyArray], name: str, cell: str | Part, convention: str) -> LazyArray:
    """A stored tensor, or its part, in the canonical layout."""
    tensor, third = (tensors[cell.name], cell.third) if isinstance(cell, Part) else (tensors[cell], None)
    kind = kinds().get(template(name.removeprefix(BASE_PREFIX)))
    if third is not None:
        rows, rest = divmod(tensor.shape[0] if tensor.shape else 1, 3)
        if rest:
            raise CheckpointError(f"{where}: {name}: {tensor.shape} is not queries, keys and values in a row.")
        tensor = mapped(tensor, lambda array: array[third * rows : (third + 1) * rows])
    if kind is None or (convention == "torch" and len(tensor.shape) != 2):
        return tensor
    try:
        return mapped(tensor, lambda array: to_canonical(array, kind, convention))
    except ValueError:
        raise CheckpointError(f"{where}: {name}: no sense can be made of the shape {tensor.shape}.") from None


@cache
def kinds() -> dict[str, Kind]:
    """Template of a canonical name -> kind of the tensor."""
    found: dict[str, Kind] = {}
    for cls, config in MODEL_CLASSES.items():
        rows = parameter_table(config.from_dict({"num_hidden_layers": 1}), cls, use_mask_token=True).values()  # type: ignore[arg-type]
        found |= {template(row.name.removeprefix(BASE_PREFIX)): row.kind for row in rows}
    return found


def _stored_names(names: Names, arrays: Iterable[str]) -> dict[str, str]:
    """Name of a tensor, as it is called now -> in the file."""
    plain = {name: cell.name if isinstance(cell, Part) else cell for name, cell in names.items()}
    return {name: plain[bare] for name in arrays for bare in (name, name.removeprefix(BASE_PREFIX)) if bare in plain}
