"""Saving a folder of weights: shards, index and manifest.

The folder is replaced as a whole (`vit_core.files.atomic_folder`): a save that is interrupted anywhere leaves the old
checkpoint or the new one, complete.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from vit_core.errors import CheckpointError, InputError
from vit_core.files.arrays import DTYPES, LazyArray
from vit_core.files.atomic_folder import finds_folder, replacing, sync_files
from vit_core.files.json import json_text
from vit_core.files.manifest import MANIFEST_NAME, PieceDigests, read_manifest, record, record_of
from vit_core.files.safetensors import _NAMES, open_file, serialised
from vit_core.files.weight_files import SUFFIX, names_taken, weight_names
from vit_core.installing import own_version
from vit_core.limits import LIMITS
from vit_core.tensors import Array

_CHUNK = 16_000_000  # bytes written, and digested, at a time

_SMALL = 1_000_000  # bytes; digested before a thread would begin

_PROGRESS_FROM = 500_000_000  # bytes; smaller saves are over before a bar is of use

_UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def save_folder(
    folder: str | Path,
    *,
    files: Mapping[str, str],
    tensors: Mapping[str, Array | LazyArray],
    max_shard_size: int | str = "5GB",
    variant: str | None = None,
    also: Collection[str] = (),
    source: str | None = None,
    write_file: Callable[[dict[str, Array], Path], object] | None = None,
    folders: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Writes a checkpoint, in place of the one that was there.

    Other files of the folder are kept (as hard links), except weights, shards and indices that a later load could
    mistake for this checkpoint (`vit_core.files.weight_files`). The folder is replaced as a whole. Where that is not
    possible (a mount point, the folder this process runs in), its files are replaced one by one. If that is
    interrupted, other programs may see old files beside new ones until the next load or save by vitriad finishes it.

    Args:
        folder: made where missing, with its parents.
        files: texts by name, such as {"config.json": ...}.
        tensors: arrays by name, in the order in which they fill shards.
        max_shard_size: largest weight file, in bytes or as text like "5GB"; a larger tensor has a file of its own.
        variant: infix of the file names, as in model.fp16.safetensors.
        also: names of other files that are not to be kept.
        source: what the weights were made from; recorded in the manifest.
        write_file: a function of the caller that writes the tensors of one safetensors file, in place of vitriad's own.
        folders: name of a folder inside that takes the place of the old one -> what writes it, given its path.

    Raises:
        InputError: a size or variant that cannot be understood.
        CheckpointError: the folder cannot be written, has too little space, or is being saved by another process.
    """
    shards = _plan(tensors, max_shard_size, variant)
    size = sum(array.nbytes for array in tensors.values())

    def write(new: Path) -> dict[str, Any]:
        return _write_weights(new, tensors, shards, variant, size, write_file)

    replace_folder(folder, write, files=files, size=size, variant=variant, also=also, source=source, folders=folders)


def replace_folder(
    folder: str | Path,
    write: Callable[[Path], dict[str, Any]],
    *,
    files: Mapping[str, str],
    size: int,
    variant: str | None = None,
    also: Collection[str] = (),
    source: str | None = None,
    folders: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Writes a checkpoint of any container, in place of the one that was there; see `save_folder`.

    Args:
        write: writes the weight files into the folder it is given, and returns the record of each, as `write_pieces`.
        files: texts by name.
        size: bytes of the weights.
        variant: of the names of the weight files.
        also: names of other files that are not to be kept.
        source: what the weights were made from.
        folders: as for `save_folder`; each is taken to be as large as the weights.
    """
    folders = folders or {}
    ours, others = [*names_taken(variant), *files, MANIFEST_NAME], {*also}

    def is_replaced(name: str) -> bool:
        return name in others or any(fnmatchcase(name, mine) for mine in ours)

    whole = size * (1 + len(folders)) + sum(map(len, files.values()))
    with replacing(folder, size=whole, is_replaced=is_replaced, folders=[*folders]) as new:
        kept = _kept_records(Path(folder), is_replaced)
        written = write(new)
        pieces = {name: record.pop("pieces") for name, record in written.items() if "pieces" in record}
        manifest = {"vitriad": own_version(), "source": source, "files": {**kept, **written}}
        manifest |= {"pieces": pieces} if pieces else {}
        write_pieces(new / MANIFEST_NAME, [json_text(manifest).encode("utf-8")])
        for name, text in files.items():
            write_pieces(new / name, [text.encode("utf-8")])
        for name, fill in folders.items():
            fill(new / name)
            sync_files(new / name)


def replaced_weights(folder: str | Path, variant: str | None = None, also: Collection[str] = ()) -> list[str]:
    """The weight files and indices in a folder that a save to it would not keep; see `save_folder`."""
    try:
        names = os.listdir(folder) if finds_folder(folder) else []
    except OSError:  # the save says what is wrong with it
        return []
    patterns = names_taken(variant)
    return sorted(name for name in names if name in also or any(fnmatchcase(name, each) for each in patterns))


def _plan(tensors: Mapping[str, Array | LazyArray], size: int | str, variant: str | None) -> dict[str, list[str]]:
    """Which file gets which tensors: file name -> tensor names."""
    single, _, _ = weight_names(variant)
    limit, room = _bytes(size), 0
    shards: list[list[str]] = []
    for name, array in tensors.items():
        if array.dtype not in _NAMES:
            raise CheckpointError(
                f"{name}: dtype {array.dtype} cannot be written; expected one of {', '.join(DTYPES)}."
            )
        if not shards or array.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= array.nbytes
    if len(shards) <= 1:
        return {single: list(tensors)}
    if len(shards) > LIMITS.shards:
        raise InputError(f"max_shard_size: {size!r} makes {len(shards)} files, above {LIMITS.bound('shards')}.")
    stem = single.removesuffix(SUFFIX)
    return {f"{stem}-{i:05d}-of-{len(shards):05d}{SUFFIX}": names for i, names in enumerate(shards, 1)}


def _bytes(size: int | str) -> int:
    """A size in bytes, given as a number or as text like "5GB"."""
    text = str(size).upper().replace(" ", "")
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    digits = text.removesuffix(unit)
    if not (digits.isascii() and digits.isdecimal()) or not int(digits):
        raise InputError(f'max_shard_size: expected bytes, or text like "5GB" or "200MiB", got {size!r}.')
    return int(digits) * _UNITS.get(unit, 1)


def _write_weights(
    folder: Path,
    tensors: Mapping[str, Array | LazyArray],
    shards: Mapping[str, list[str]],
    variant: str | None,
    size: int,
    write_file: Callable[[dict[str, Array], Path], object] | None,
) -> dict[str, Any]:
    """Writes weight files and, for more than one, their index; returns the manifest's record of each."""
    records = {}
    with progress(size) as advance:
        for file, names in shards.items():
            inside = {name: tensors[name] for name in names}
            if write_file is None:
                records[file] = write_pieces(folder / file, serialised(inside, advance))
                continue
            arrays = {name: np.asarray(tensor) for name, tensor in inside.items()}
            write_file(arrays, folder / file)
            records[file] = _written_record(folder / file, arrays)
            advance(sum(array.nbytes for array in arrays.values()))
    if len(shards) > 1:
        totals = {
            "total_parameters": sum(array.size for array in tensors.values()),
            "total_size": sum(array.nbytes for array in tensors.values()),
        }
        weight_map = {name: file for file, names in shards.items() for name in names}
        text = json_text({"metadata": totals, "weight_map": weight_map})
        _, index, _ = weight_names(variant)
        records[index] = write_pieces(folder / index, [text.encode("utf-8")])
    return records


def _written_record(path: Path, tensors: Mapping[str, Array]) -> dict[str, Any]:
    """The record of a file that a function of the caller wrote, once it is known to hold these tensors, on the disk.

    Raises:
        CheckpointError: it is no safetensors file of them.
    """
    wanted = "save_function: expected it to write a safetensors file, as safetensors.torch.save_file does."
    try:
        found = open_file(path, mmap=False).tensors
    except CheckpointError as problem:
        raise CheckpointError(f"{problem}\n{wanted}") from None
    if {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} != {
        name: (array.dtype, array.shape) for name, array in tensors.items()
    }:
        raise CheckpointError(f"{path}: holds other tensors than it was given.\n{wanted}")
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return record_of(path)


def write_pieces(path: Path, chunks: Iterable[Any]) -> dict[str, Any]:
    """Writes a new file through to the disk, and returns its record, with "pieces" of a large one.

    Large chunks are digested by other threads meanwhile.
    """
    digest, pieces, size = hashlib.sha256(), PieceDigests(), 0
    with open(path, "xb") as file, ThreadPoolExecutor(2) as digesters:
        digested: list[Future[None]] = []
        for whole in chunks:
            for start in range(0, len(whole), _CHUNK):
                chunk = memoryview(whole)[start : start + _CHUNK]
                file.write(chunk)
                size += len(chunk)
                for each in digested:
                    each.result()  # never more than one chunk behind
                digested = []
                for update in (digest.update, pieces.update):
                    if len(chunk) > _SMALL:
                        digested.append(digesters.submit(update, chunk))
                    else:
                        update(chunk)
        file.flush()
        os.fsync(file.fileno())
    found = record(size, digest)
    return {**found, "pieces": pieces.hexdigests()} if pieces.are_several else found


@contextmanager
def progress(size: int) -> Iterator[Callable[[int], Any]]:
    """What to call with every number of bytes written: a bar for a big save at a terminal."""
    if size < _PROGRESS_FROM or not (sys.stderr and sys.stderr.isatty()):
        yield lambda size: None
        return
    from tqdm import tqdm

    with tqdm(total=size, unit="B", unit_scale=True, desc="saving", file=sys.stderr) as bar:
        yield bar.update


def _kept_records(folder: Path, is_replaced: Callable[[str], bool]) -> dict[str, Any]:
    """What the manifest of the old folder says of the files that stay (those of other variants)."""
    if not folder.exists():
        return {}
    try:
        known = read_manifest(folder / MANIFEST_NAME, LIMITS)
    except CheckpointError as problem:
        if isinstance(problem.__context__, OSError):  # unreadable just now, not damaged
            raise problem.__context__ from None
        return {}  # what it said is lost with it
    records = known.records if known else {}
    return {name: records[name] for name in os.listdir(folder) if name in records and not is_replaced(name)}
