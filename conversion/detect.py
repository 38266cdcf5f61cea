"""Finds the files of a checkpoint and whose dialect they speak. Nothing here, or anywhere, unpickles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from conversion.engine import Dialect, canonical_names, listed
from conversion.tables import hf
from vit_core.atomic_folder import finds_folder, is_decided
from vit_core.checkpoint import MANIFEST_NAME, SUFFIX, Weights, open_weights, read_index, weight_names
from vit_core.config import CONFIG_NAME
from vit_core.errors import CheckpointError, ConfigError, InputError, MissingFileError, VitError
from vit_core.hub import Repository, commit_of, local_folder
from vit_core.jsonfile import read_json
from vit_core.limits import LIMITS, Limits

DIALECTS = (Dialect("hf", hf.ROWS, "torch"),)

# What else programs call their weights -> how to get a file that is read here.
_PICKLE = "It is a pickle, which can run code. Save it as safetensors with the program that wrote it."
_OTHER_LAYOUT = "Its layout is not read by this release. Save it as PyTorch safetensors with the program that wrote it."
_OTHER_FILES = {
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt", ".tar", ".pkl"), _PICKLE),
    **dict.fromkeys((".h5", ".keras", ".msgpack", ".npz"), _OTHER_LAYOUT),
}
_TORCH_FORMATS = ("pt", "mlx")
_ATTEMPTS = 100


class Source(NamedTuple):
    """An opened checkpoint; its data is not read yet.

    Attributes:
        where: what the caller named.
        config: the object in config.json, or None where there is none.
        weights: its tensors.
        dialect: how they are named and laid out.
        names: canonical name -> name in the file.
        unexplained: names that mean nothing.
        commit: of a hub repository.
    """

    where: str
    config: dict[str, Any] | None
    weights: Weights
    dialect: Dialect
    names: dict[str, str]
    unexplained: list[str]
    commit: str | None


def detect(src: str | Path, **options: Any) -> str:
    """The dialect of a checkpoint: "hf".

    Args:
        src: folder, safetensors file, or "owner/name" on the hub.
        **options: as for `open_source`.

    Raises:
        CheckpointError: nothing readable there, or names of no known dialect.
    """
    return open_source(src, **options).dialect.name


def open_source(
    src: str | Path,
    *,
    variant: str | None = None,
    mmap: bool = True,
    verify: bool | str = "auto",
    wait: bool = True,
    limits: Limits = LIMITS,
    **hub: Any,
) -> Source:
    """Opens a checkpoint: its configuration and the headers of its weights.

    Args:
        src: folder, safetensors file, or "owner/name" on the hub, of which only the files needed are fetched.
        variant: see `vit_core.checkpoint.open_weights`, also for `mmap`, `verify`, `wait` and `limits`.
        **hub: options of `vit_core.hub.Repository`.

    Raises:
        MissingFileError: nothing there.
        CheckpointError: the weights are unreadable, or of no known dialect.
    """
    if not isinstance(src, str | os.PathLike):
        raise InputError(f"checkpoint: expected a folder or a hub name, got {type(src).__name__}.")
    where = str(src)
    options = {"variant": variant, "mmap": mmap, "verify": verify, "wait": wait, "limits": limits}
    if os.path.isfile(src):
        return _source(where, None, _open(Path(src), options), None)
    local = local_folder(src, hub.get("subfolder") or "")
    folder = local or _fetched(Repository(where, **hub), variant, limits)

    def read() -> Source:
        return _source(where, _config(folder, limits), _open(folder, options), commit_of(folder))

    return _unchanged(folder, read)


def _fetched(repository: Repository, variant: str | None, limits: Limits) -> Path:
    """The folder of the hub's cache with the configuration, the manifest and the weights of a repository."""
    single, index, _ = weight_names(variant)
    for file in (CONFIG_NAME, MANIFEST_NAME):
        repository.fetch(file)
    for file in (single, index):
        if (found := repository.fetch(file)) and file == index:
            for shard in sorted(read_index(found, limits)):
                repository.fetch(shard)
        if found:
            return found.parent
    # Here, where there is no safetensors file, a reader of other containers would fetch its own.
    _refuse_others(repository.name, repository.names())
    repository.fail(single, index)


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
                if entry.name.endswith((SUFFIX, ".json")):
                    found[entry.name] = (entry.inode(), entry.stat(follow_symlinks=False).st_mtime_ns)
    return found


def _config(folder: Path, limits: Limits) -> dict[str, Any] | None:
    path = folder / CONFIG_NAME
    return read_json(path, limit="config_bytes", error=ConfigError, limits=limits) if path.exists() else None


def _open(path: Path, options: dict[str, Any]) -> Weights:
    _refuse_others(path, [path.name] if path.is_file() else os.listdir(path))
    return open_weights(path, **options)


def _refuse_others(where: object, names: list[str]) -> None:
    """Refuses by name what is there in place of safetensors files."""
    if any(name.endswith(SUFFIX) for name in names):
        return
    for name in sorted(names, key=lambda name: ("model" not in name and "weights" not in name, name)):
        if advice := _OTHER_FILES.get(Path(name).suffix):
            raise CheckpointError(f"{where}: {name} is not read here; expected {SUFFIX} files.\n{advice}")


def _source(where: str, config: dict[str, Any] | None, weights: Weights, commit: str | None) -> Source:
    for file in weights.files:
        layout = file.metadata.get("format", "pt")
        if layout not in _TORCH_FORMATS:
            raise CheckpointError(f"{file.path}: weights in the layout {layout!r}.\n{_OTHER_LAYOUT}")
    understood = [(dialect, *canonical_names(where, weights, dialect)) for dialect in DIALECTS]
    dialect, names, unexplained = max(understood, key=lambda found: len(found[1]))
    if not names:
        raise CheckpointError(f"{where}: not a ViT or ViTMAE that is known here: tensors {listed([*weights], 3)}.")
    return Source(where, config, weights, dialect, names, unexplained, commit)
