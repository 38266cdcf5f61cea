"""Where a checkpoint is, and what stands beside its weights: a folder, a file in one, a repository on the hub.

A file that is named is read as its folder would be: with the configuration, the manifest and the second half beside it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from vit_core.config import CONFIG_NAME
from vit_core.errors import CheckpointError, ConfigError, MissingFileError, UnsafeFileError, VitError
from vit_core.files.atomic_folder import finds_folder, is_decided
from vit_core.files.containers import open_any
from vit_core.files.folders import Weights, open_shards, open_weights, read_index, verified
from vit_core.files.json import read_json
from vit_core.files.links import followed
from vit_core.files.manifest import MANIFEST_NAME
from vit_core.files.weight_files import (
    ADAPTER_NAME,
    KERAS_HUB,
    SUFFIX,
    SUFFIXES,
    family_of_index,
    is_weights,
    taken,
    weight_names,
)
from vit_core.hub.download import Repository, commit_of, local_folder
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import name_list

# Suffix of a family's files -> a name in an index of them as it is in the file.
_RENAMED: dict[str, Callable[[str], str]] = {
    SUFFIX: str,
    ".bin": str,
    ".h5": lambda name: name.partition("/")[2],
    ".msgpack": lambda name: name.replace("/", "."),
}
_SIDECARS = (CONFIG_NAME, "task.json")  # files that describe the model beside its tensors
_SHARD = re.compile(r"(.+)-[0-9]{5}-of-([0-9]{5})(\.[a-z0-9]+)")
_TENSORSTORE = re.compile(r"[^~.]+(~[^~.]+)+")  # a folder per array, named by the way to it
_ATTEMPTS = 100


class Place(NamedTuple):
    """An opened checkpoint and what stands beside it.

    Attributes:
        weights: its tensors, as stored.
        config: the object in config.json, or None where there is none.
        is_aside: whether loading the folder would take other weights than the file that was named.
        beside: the path of another file of the checkpoint, by name; None where there is none.
        commit: of a hub repository.
    """

    weights: Weights
    config: dict[str, Any] | None
    is_aside: bool
    beside: Callable[[str], Path | None]
    commit: str | None


class Opening(NamedTuple):
    """How files are opened.

    Attributes:
        variant, mmap, verify, wait, limits: see `vit_core.files.folders.open_weights`.
        weights: which of several sets of weights in a file to take.
    """

    variant: str | None = None
    weights: str | None = None
    mmap: bool = True
    verify: bool | str = "auto"
    wait: bool = True
    limits: Limits = LIMITS

    @property
    def file(self) -> dict[str, Any]:
        """Options of `open_any`."""
        return {"weights": self.weights, "mmap": self.mmap, "limits": self.limits}

    @property
    def checking(self) -> dict[str, Any]:
        """Options of `verified`."""
        return {"verify": self.verify, "wait": self.wait, "limits": self.limits}


def open_place(src: str | Path, opening: Opening, **hub: Any) -> Place:
    """Opens what a name stands for: a folder, a file, or a repository on the hub.

    Args:
        src: folder, weight file or index, or "owner/name" on the hub.
        **hub: options of `vit_core.hub.download.Repository`.

    Raises:
        MissingFileError, UnsafeFileError, CheckpointError, ConfigError: nothing there, or nothing that can be read.
    """
    if is_weights(Path(src).name):
        finds_folder(Path(src).parent)  # finishes a save that was interrupted
    if os.path.isfile(src):
        return _of_file(Path(src), opening)
    folder, fetch = local_folder(src, hub.get("subfolder") or ""), None
    if folder is None:
        repository = Repository(str(src), **hub)
        folder, fetch = _fetched(repository, opening.variant, opening.limits), repository.fetch
    return _of_folder(folder, opening, fetch)


def _of_folder(folder: Path, opening: Opening, fetch: Callable[[str], Path | None] | None = None) -> Place:
    def read() -> Place:
        weights = _open_folder(folder, opening)
        config = _archived_config(weights) or _config(folder, opening.limits)
        return Place(weights, config, False, fetch or partial(_beside, folder), commit_of(folder))

    return _unchanged(folder, read)


def _of_file(named: Path, opening: Opening) -> Place:
    """A weight file or an index, with what stands beside it."""
    file = _target(named)
    folder = named.parent if any(os.path.lexists(named.parent / name) for name in _SIDECARS) else file.parent
    names = _listed(file.parent)
    rivals = taken(names)[0]

    def read() -> Place:
        weights = _open_named(file, names, opening)
        config = _archived_config(weights) or _config(folder, opening.limits)
        is_aside = bool(rivals) and file.name not in rivals
        return Place(weights, config, is_aside, partial(_beside, folder), commit_of(folder))

    return _unchanged(folder, read, {file.name, MANIFEST_NAME, *_SIDECARS, *KERAS_HUB})


def _target(named: Path) -> Path:
    """The target of a file name, since the user named this very link; one into the hub's cache keeps its name."""
    if not named.is_symlink():
        return named
    target = Path(os.path.realpath(named))
    with suppress(UnsafeFileError):
        if target.parent != Path(os.path.realpath(named.parent)):
            return followed(named) and named
    return target


def _beside(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if os.path.lexists(path) else None


# --- hub -------------------------------------------------------------------------------------------------------------


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
            f"{repository.name}: several weight files: {name_list(chosen)}.\nLoad one of them from a folder."
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


# --- a folder that others may replace --------------------------------------------------------------------------------


def _unchanged(folder: Path, read: Callable[[], Place], only: Collection[str] | None = None) -> Place:
    """What `read` finds in a folder; it reads again if a save replaced the folder meanwhile, so nothing is mixed.

    Args:
        only: names of the files that are read; None for every file that can belong to a checkpoint.
    """
    for _ in range(_ATTEMPTS):
        if not finds_folder(folder):
            raise MissingFileError(f"{folder}: no such folder.")
        with _held(folder, only) as is_same:
            try:
                place = read()
            except (VitError, FileNotFoundError):
                if is_same():
                    raise
                continue
            if is_same():
                return place
    raise CheckpointError(f"{folder}: replaced again and again while it was read.")


@contextmanager
def _held(folder: Path, only: Collection[str] | None) -> Iterator[Callable[[], bool]]:
    """Yields a function: are the folder and the checkpoint files in it still the ones from the start of the block?

    The folder is kept open, so that no new folder can get its inode number.
    """
    if os.name != "posix":  # folders cannot be opened, and one in use cannot be replaced
        yield lambda: True
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # just being replaced
        yield lambda: False
        return
    except PermissionError:  # it cannot be listed, though files in it can be read
        yield lambda: True
        return
    before = _versions(descriptor, only)

    def is_same() -> bool:
        try:
            is_there = os.path.samestat(os.fstat(descriptor), os.stat(folder))
            return is_there and _versions(descriptor, only) == before and not is_decided(folder)
        except FileNotFoundError:
            return False

    try:
        yield is_same
    finally:
        os.close(descriptor)


def _versions(folder: int, only: Collection[str] | None) -> dict[str, tuple[int, int]]:
    """Inode and time of every file of a checkpoint in an open folder: saves replace files, never write into them."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in only if only is not None else entry.name.endswith((*SUFFIXES, ".json")):
                with suppress(FileNotFoundError):  # removed since it was listed
                    found[entry.name] = (entry.inode(), entry.stat(follow_symlinks=False).st_mtime_ns)
    return found


# --- files -----------------------------------------------------------------------------------------------------------


def _config(folder: Path, limits: Limits) -> dict[str, Any] | None:
    """The content of config.json; for a saved task of keras-hub that of task.json, which includes it."""
    found = None
    for name in _SIDECARS:
        path = folder / name
        if os.path.lexists(path) and (found is None or "class_name" in found):
            found = read_json(path, limit="config_bytes", error=ConfigError, limits=limits, within=True)
    return found


def _archived_config(weights: Weights) -> dict[str, Any] | None:
    """The configuration inside a .keras archive; None for other files."""
    text = weights.files[0].metadata.get("keras") if weights.files else None
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{weights.files[0].path}: config.json in it is not valid JSON.") from None
    return found if isinstance(found, dict) else None


def _listed(folder: Path) -> set[str]:
    with suppress(OSError):
        return {*os.listdir(folder)}
    return set()  # it cannot be listed, though files in it can be read


def _open_named(file: Path, names: Collection[str], opening: Opening) -> Weights:
    """The weights in a named file, or in the files that a named index lists."""
    if family := family_of_index(file.name):
        return _open_index(file, family[1], opening)
    if file.name in KERAS_HUB and KERAS_HUB[0] in names:
        parts = [file.with_name(name) for name in KERAS_HUB if name in names]
    else:
        _refuse_shard(file, names, opening.limits)
        parts = [file]
    found = [open_any(part, **opening.file) for part in parts]
    return verified(found, {}, **opening.checking, is_named=True)


def _refuse_shard(file: Path, names: Collection[str], limits: Limits) -> None:
    """Raises if a file is one shard of several: an index beside it lists it, or its name says so."""
    shard = _SHARD.fullmatch(file.name)
    for name in sorted(names):
        if (family := family_of_index(name)) and file.name.endswith(family[1]):
            try:
                is_part = file.name in read_index(file.with_name(name), limits, family[1])
            except (VitError, OSError):  # an index that nobody asked for
                continue
            if is_part:
                raise CheckpointError(f"{file}: a shard, one file of several.\nLoad {name}, or the folder.")
    if shard and int(shard[2]) > 1:
        raise CheckpointError(
            f"{file}: a shard, one file of {int(shard[2])}, and the index that names them all is not beside it.\n"
            f"Fetch {shard[1]}{shard[3]}.index.json and the other files, and load the folder."
        )


def _open_folder(path: Path, opening: Opening) -> Weights:
    """The weights of a folder, as `vit_core.files.weight_files` says."""
    try:
        names = {*os.listdir(path)}
    except PermissionError as problem:
        raise CheckpointError(f"{path}: cannot be listed: {problem.strerror}.") from None
    chosen, suffix = taken(names, opening.variant)
    if suffix == SUFFIX:
        return open_weights(path, variant=opening.variant, mmap=opening.mmap, **opening.checking)
    if suffix and family_of_index(chosen[0]):
        return _open_index(path / chosen[0], suffix, opening)
    if not suffix:
        _check_choice(str(path), names, chosen, opening.variant)
    return verified([open_any(path / name, **opening.file) for name in chosen], {}, **opening.checking)


def _open_index(index: Path, suffix: str, opening: Opening) -> Weights:
    opener, renamed = partial(open_any, weights=opening.weights), _RENAMED[suffix]
    files, extra = open_shards(index, opening.limits, mmap=opening.mmap, opener=opener, suffix=suffix, renamed=renamed)
    return verified(files, extra, **opening.checking)


def _check_choice(where: str, names: Collection[str], chosen: Sequence[str], variant: str | None) -> None:
    """Raises unless the weight files found under other programs' names are one checkpoint."""
    _check_adapter(where, names, chosen)
    if not chosen and sum(_TENSORSTORE.fullmatch(name) is not None for name in names) > 1:
        raise CheckpointError(f"{where}: a tensorstore of big_vision, which is not read here. Export it to .npz.")
    if not chosen:
        single, index, _ = weight_names(variant)
        raise MissingFileError(f"{where}: no weights here: neither {single} nor {index}, nor another program's.")
    if len(chosen) > 1 and chosen[0] not in KERAS_HUB:
        raise CheckpointError(f"{where}: several weight files: {name_list(chosen)}.\nName the one to load.")


def _check_adapter(where: str, names: Collection[str], chosen: Sequence[str]) -> None:
    """Raises if the folder holds an adapter of PEFT instead of a model."""
    if not chosen and ADAPTER_NAME in names:
        raise CheckpointError(
            f"{where}: an adapter of PEFT, not a model.\nLoad its base model, then the adapter onto it: "
            f"PeftModel.from_pretrained(model, {where!r}). merge_and_unload() of that is a model to save."
        )
