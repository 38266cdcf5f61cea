"""Weight files: the one place that reads and writes safetensors files, their index and their manifest.

Reading trusts nothing. A file is opened once and read from that descriptor; its header is checked in full before any
tensor is handed out; names that come from data (an index) never lead out of their folder. Tensors are NumPy views of a
copy-on-write map of the file: nothing is copied, and writing to one does not touch the file. Someone who truncates a
mapped file in place takes the ground away from under the views; saves made here replace files, and `mmap=False` copies.

Writing replaces the folder as a whole (`vit_core.files.atomic_folder`): a save interrupted anywhere leaves the old
checkpoint or the new one, complete.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap as mapping
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from vit_core.errors import CheckpointError, InputError, MissingFileError, UnsafeFileError, advice, reading
from vit_core.files.atomic_folder import finds_folder, replacing, sync_files
from vit_core.files.json import json_text, read_json
from vit_core.files.kinds import kind_of
from vit_core.files.links import followed
from vit_core.files.weight_files import SUFFIX, names_taken, weight_names
from vit_core.limits import LIMITS, Limits

Array = np.ndarray[Any, np.dtype[Any]]

MANIFEST_NAME = "manifest.json"

# The format's name of every dtype read here, in the order in which the safetensors library lays tensors out.
DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_KEYS = {"dtype", "shape", "data_offsets"}  # of a tensor in a header

_CHUNK = 16_000_000  # bytes written, and digested, at a time
_SMALL = 1_000_000  # bytes; digested before a thread would begin
_PROGRESS_FROM = 500_000_000  # bytes; smaller saves are over before a bar is of use
_UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


# --- reading one file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LazyArray:
    """A tensor whose dtype and shape are known, and whose data is touched when it is asked for.

    NumPy takes it for an array, reading it anew each time.

    Attributes:
        read: the data, of this dtype and shape.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.read(), dtype, copy=copy)


def placed(
    content: Any, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, strides: tuple[int, ...] | None = None
) -> LazyArray:
    """A tensor that lies in the bytes of a file: a view of them (a copy only where the file misaligns it).

    Units: bytes, `start` from the beginning of the file.
    """
    return LazyArray(dtype, shape, partial(_view, content, dtype, shape, start, strides))


def _view(
    content: Any, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, strides: tuple[int, ...] | None
) -> Array:
    array: Array = np.ndarray(shape, dtype, content, start, strides)
    return array if array.flags.aligned else array.copy()


class WeightFile(NamedTuple):
    """One opened weight file: its header read and checked, its data not touched.

    Attributes:
        path: the file.
        metadata: the strings of the header, often {"format": "pt"}.
        tensors: name -> dtype, shape and data.
        content: the bytes of the whole file.
        others: name -> what stands there in place of a tensor, in containers that can hold anything.
    """

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, LazyArray]
    content: Any
    others: Mapping[str, str] = MappingProxyType({})

    def read(self, name: str) -> Array:
        """The data of a tensor."""
        return self.tensors[name].read()


class _Place(NamedTuple):
    """Where a header puts a tensor: bytes, from the beginning of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    nbytes: int


def open_file(path: Path, *, mmap: bool = True, limits: Limits = LIMITS) -> WeightFile:
    """Opens one safetensors file and checks its header.

    Raises:
        MissingFileError: no such file.
        UnsafeFileError: a symbolic link out of its folder.
        CheckpointError: not a regular file, or not a sound safetensors file.
    """
    content = content_of(path, mmap)
    size = len(content)
    length = int.from_bytes(bytes(content[:8]), "little")
    if kind := kind_of(content):
        raise CheckpointError(f"{path}: {kind.name}, not a safetensors file.\n{kind.advice}.")
    if size < 8 + length and size > 8 and bytes(content[8:9]) != b"{":
        raise CheckpointError(f"{path}: of no known kind: it starts with {bytes(content[:16])!r}.")
    if size < 8 + length:
        raise CheckpointError(f"{path}: not a whole safetensors file: a header of {length} bytes in {size} bytes.")
    if length > limits.header_bytes:
        raise CheckpointError(f"{path}: header of {length} bytes, above {limits.bound('header_bytes')}.")
    header = _header(path, bytes(content[8 : 8 + length]), limits)
    metadata = header.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())):
        raise CheckpointError(f"{path}: __metadata__: expected strings by name, got {_short(metadata)}.")
    if len(header) > limits.tensors:
        raise CheckpointError(f"{path}: {len(header)} tensors, above {limits.bound('tensors')}.")
    # Entries are let go one by one: of 100,000 tensors they take more memory than all the rest.
    places = {name: _entry(path, name, header.pop(name), 8 + length, limits) for name in [*header]}
    _check_tiling(path, places, 8 + length, size)
    tensors = {
        name: placed(content, dtype, shape, start)
        for name in [*places]
        for dtype, shape, start, _ in [places.pop(name)]
    }
    return WeightFile(path, metadata, tensors, content)


def content_of(path: Path, mmap: bool = True) -> Any:
    """The bytes of a whole weight file, mapped or copied; both can be written to without changing the file.

    Raises:
        MissingFileError, UnsafeFileError, CheckpointError: as `open_file`; also for what is no weight file of any kind.
    """
    content = _bytes_of(path, mmap)
    if (kind := kind_of(content)) and not kind.is_read:
        raise CheckpointError(f"{path}: {kind.name}.\n{kind.advice}.")
    return content


def _bytes_of(path: Path, mmap: bool) -> Any:
    with reading(path), _open(path) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{path}: expected a regular file.")
        if not found.st_size:
            raise CheckpointError(f"{path}: an empty file.")
        if mmap:
            return mapping.mmap(file.fileno(), 0, access=mapping.ACCESS_COPY)
        content = np.empty(found.st_size, np.uint8)
        if (got := file.readinto(content)) != found.st_size:  # type: ignore[attr-defined]  # of every buffered reader
            raise CheckpointError(f"{path}: cut from {found.st_size} to {got} bytes while it was read.")
        return content


def release(content: Any) -> None:
    """Gives the memory of a mapped file back; what is looked at again comes from the file again."""
    if isinstance(content, mapping.mmap) and hasattr(mapping, "MADV_DONTNEED"):
        content.madvise(mapping.MADV_DONTNEED)


def _open(path: Path) -> BinaryIO:
    # A pipe without a writer must not block, and a link put there meanwhile is not followed.
    careful = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return open(followed(path), "rb", opener=lambda name, flags: os.open(name, flags | careful))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file.") from None
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be opened: {problem.strerror}.{advice(problem)}") from None


def _header(path: Path, text: bytes, limits: Limits) -> dict[str, Any]:
    """The object in a header, in which no name stands twice at any level."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"{path}: header: the name {_short(name)} stands there twice.")
        return found

    if not text.startswith(b"{"):
        raise CheckpointError(f"{path}: not a safetensors file: expected a header that starts with '{{'.")
    # Objects take memory by the number of marks, of which an honest tensor has a few and one comma per axis.
    if sum(map(text.count, (b"{", b"[", b","))) > (8 + limits.rank) * limits.tensors:
        raise CheckpointError(f"{path}: header: more entries than {limits.bound('tensors')} would need.")
    try:
        decoded = text.decode("utf-8")
        del text  # a header takes its size twice otherwise
        header = json.loads(decoded, object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as problem:  # not UTF-8, not JSON, digits or levels by the thousand
        raise CheckpointError(f"{path}: header: not valid JSON: {problem}.") from None
    return dict(header)


def _entry(path: Path, name: str, value: Any, data_start: int, limits: Limits) -> _Place:
    """One tensor of a header, checked on its own."""
    if not (isinstance(value, dict) and value.keys() == _KEYS):
        raise _bad(path, name, f"expected dtype, shape and data_offsets, got {_short(value)}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and dtype in DTYPES):
        raise _bad(path, name, f"dtype: expected one of {', '.join(DTYPES)}, got {_short(dtype)}")
    if not _are_counts(shape):
        raise _bad(path, name, f"shape: expected counts, got {_short(shape)}")
    if len(shape) > limits.rank:
        raise _bad(path, name, f"{len(shape)} axes, above {limits.bound('rank')}")
    if math.prod([side or 1 for side in shape]) > limits.parameters:
        raise _bad(path, name, f"shape {shape}, above {limits.bound('parameters')}")
    if not (_are_counts(offsets) and len(offsets) == 2):
        raise _bad(path, name, f"data_offsets: expected two counts, got {_short(offsets)}")
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise _bad(path, name, f"{dtype} {shape} takes {nbytes} bytes, data_offsets are {offsets}")
    return _Place(DTYPES[dtype], tuple(shape), data_start + offsets[0], nbytes)


def _bad(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {_short(name)}: {what}.")


def _are_counts(value: object) -> bool:
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110  # all() takes twice the time, and there can be 100,000 of them
        if type(item) is not int or not 0 <= item < 2**63:
            return False
    return True


def _check_tiling(path: Path, tensors: Mapping[str, _Place], start: int, size: int) -> None:
    """Checks that tensors follow one another from the header to the end: no hole, no overlap, nothing behind."""
    place = start
    for name, info in sorted(tensors.items(), key=lambda item: item[1][2:]):  # start, then size
        if info.start != place:
            raise CheckpointError(
                f"{path}: {_short(name)}: starts at byte {info.start}, expected {place}: a hole or an overlap."
            )
        place += info.nbytes
    if place != size:
        raise CheckpointError(
            f"{path}: {size} bytes, expected {place} by its header: the file was cut, or something was added."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- reading a folder ------------------------------------------------------------------------------------------------


class Weights(Mapping[str, Array]):
    """The tensors of a checkpoint by their stored names; data is read when a tensor is asked for.

    Attributes:
        files: the opened files.
        infos: name -> dtype, shape and data, known without touching the data.
        check: waits until the files are compared with their manifest, and raises what was found.
    """

    def __init__(self, files: Sequence[WeightFile], check: Callable[[], object] = lambda: None) -> None:
        self.files = files
        self.check = check
        self.infos = {name: info for file in files for name, info in file.tensors.items()}

    def __getitem__(self, name: str) -> Array:
        return self.infos[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def open_weights(
    path: Path,
    *,
    variant: str | None = None,
    mmap: bool = True,
    verify: bool | str = "auto",
    wait: bool = True,
    limits: Limits = LIMITS,
) -> Weights:
    """Opens the weights of a folder (one file, or shards and their index), or one file.

    Args:
        path: folder or file.
        variant: infix of the file names, as in model.fp16.safetensors.
        mmap: map the files; False copies them into memory.
        verify: compare sizes and digests with manifest.json: "auto" where there is one, True always, False never.
        wait: for the digests; False leaves them to a thread, and to the caller to call `check()` of the result before
            anything is made of the weights that outlives an error.
        limits: bounds on headers, index and shards.

    Raises:
        MissingFileError: no weights there, or a shard is missing.
        UnsafeFileError: a name or a link leads out of the folder.
        CheckpointError: anything else that is wrong with the files.
    """
    if verify not in (True, False, "auto"):
        raise InputError(f'verify: expected "auto", True or False, got {verify!r}.')
    single, index, _ = weight_names(variant)
    extra: dict[Path, Any] = {}
    if not path.is_dir():
        path = Path(os.path.realpath(path))  # the user named this very link
        files = [open_file(path, mmap=mmap, limits=limits)]
    elif os.path.lexists(path / single):
        files = [open_file(path / single, mmap=mmap, limits=limits)]
    elif os.path.lexists(path / index):
        files, extra = open_shards(path / index, limits, mmap=mmap)
    else:
        raise MissingFileError(f"{path}: no weights here: neither {single} nor {index}.")
    return verified(files, extra, verify=verify, wait=wait, limits=limits)


def verified(
    files: Sequence[WeightFile],
    extra: Mapping[Path, Any],
    *,
    verify: bool | str,
    wait: bool = True,
    limits: Limits = LIMITS,
    is_named: bool = False,
) -> Weights:
    """Opened files as weights, compared with the manifest beside them; see `open_weights`.

    Args:
        extra: path -> content of what the manifest covers beside the weights.
        is_named: whether the user named the file: one of a name that no load looks for can then lie beside a manifest
            that does not list it, and is only refused for that where `verify` is True.
    """
    if not verify:
        return Weights(files)
    contents = {file.path: file.content for file in files} | dict(extra)
    manifest = files[0].path.parent / MANIFEST_NAME
    known = _read_manifest(manifest, limits)
    if known is None and verify is True:
        raise MissingFileError(f"{manifest}: verify=True needs the one that vitriad saves, and there is none.")
    if is_named and verify == "auto" and not _is_expected([path.name for path in contents], known or {}):
        return Weights(files)
    digester = ThreadPoolExecutor(1)
    weights = Weights(files, digester.submit(_verify, contents, known).result)
    digester.shutdown(wait=False)
    if wait:
        weights.check()
    return weights


def _is_expected(names: Sequence[str], known: Mapping[str, Any]) -> bool:
    """Whether a manifest has something to say of files: it lists one, or their name is one that a save would write."""
    return any(name in known or name in weight_names() for name in names)


def open_shards(
    index: Path,
    limits: Limits = LIMITS,
    *,
    mmap: bool = True,
    opener: Callable[..., WeightFile] | None = None,
    suffix: str = SUFFIX,
    renamed: Callable[[str], str] = str,
) -> tuple[list[WeightFile], dict[Path, Any]]:
    """The files that an index names, opened and compared with it, and path -> content of the index.

    Args:
        opener: opens one file, as `open_file` does.
        suffix: of their names.
        renamed: a name in the index -> in the file.

    Raises:
        MissingFileError, UnsafeFileError, CheckpointError: as `open_weights`.
    """
    files = []
    for shard, names in sorted(read_index(index, limits, suffix).items()):
        file = (opener or open_file)(index.parent / shard, mmap=mmap, limits=limits)
        promised = set(map(renamed, names))
        if absent := sorted(promised - file.tensors.keys()):
            raise CheckpointError(f"{index}: {shard} does not hold {_short(absent[0])} ({len(absent)} such names).")
        if extra := sorted(file.tensors.keys() - promised):
            raise CheckpointError(f"{index}: {shard} also holds {_short(extra[0])} ({len(extra)} such names).")
        files.append(file)
    return files, {index: _bytes_of(index, mmap=False)}


def read_index(index: Path, limits: Limits = LIMITS, suffix: str = SUFFIX) -> dict[str, set[str]]:
    """What an index places where: shard -> names of its tensors.

    Raises:
        UnsafeFileError: the name of a shard leads out of the folder.
        CheckpointError: not an index, or too many shards.
    """
    said = read_json(index, limit="index_bytes", error=CheckpointError, limits=limits, within=True)
    weight_map = said.get("weight_map")
    if not (
        isinstance(weight_map, dict) and weight_map and all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise CheckpointError(f"{index}: weight_map: expected file names by tensor name, got {_short(weight_map)}.")
    promised: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        promised.setdefault(shard, set()).add(name)
    for shard in promised:
        if shard.startswith(".") or not shard.endswith(suffix) or {*shard} & {*"/\\:\0"}:
            raise UnsafeFileError(f"{index}: expected the plain name of a {suffix} file, got {_short(shard)}.")
    if len(promised) > limits.shards:
        raise CheckpointError(f"{index}: {len(promised)} shards, above {limits.bound('shards')}.")
    return promised


def _verify(contents: Mapping[Path, Any], known: Mapping[str, Any] | None) -> None:
    """Compares weight files and index with the records of the manifest that was saved beside them."""
    for path, content in contents.items() if known is not None else ():
        if known.get(path.name) != _record(len(content), hashlib.sha256(content)):  # type: ignore[union-attr]
            raise CheckpointError(
                f"{path}: not as {MANIFEST_NAME} records it: the file is damaged, or another program wrote it.\n"
                f"Damaged: fetch or save it again. Another program: delete {MANIFEST_NAME}, or pass verify=False."
            )


def _read_manifest(manifest: Path, limits: Limits) -> dict[str, Any] | None:
    """The records of a manifest by file name; None where there is no manifest, or it is another program's."""
    try:
        os.lstat(manifest)  # not lexists(), which takes every error for a no
    except FileNotFoundError:
        return None
    found = read_json(manifest, limit="index_bytes", error=CheckpointError, limits=limits, within=True)
    if "vitriad" not in found:
        return None
    if not isinstance(files := found.get("files"), dict):
        raise CheckpointError(f"{manifest}: files: expected records by file name, got {_short(files)}.")
    return files


def is_saved_here(manifest: Path, limits: Limits = LIMITS) -> bool:
    """Whether a manifest is one of vitriad's.

    Raises:
        CheckpointError: it is there, and not sound.
    """
    return _read_manifest(manifest, limits) is not None


def _record(size: int, digest: Any) -> dict[str, Any]:
    return {"sha256": digest.hexdigest(), "size": size}


def check_finite(where: str, name: str, array: Array) -> None:
    """Checks that a tensor holds no NaN and no infinity.

    Raises:
        CheckpointError: it does.
    """
    if bad := array.size - int(np.count_nonzero(np.isfinite(array))):
        raise CheckpointError(
            f"{where}: {name}: {bad} of {array.size} values are NaN or infinite.\n"
            "The weights are damaged, or their training diverged; allow_nonfinite=True loads them as they are."
        )


# --- writing a folder ------------------------------------------------------------------------------------------------


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

    Other files of the folder are kept (as hard links); weights, shards and indices that a load could take for this
    checkpoint (`vit_core.files.weight_files`) are not, whoever wrote them. The folder itself is replaced; where it
    cannot be (a mount point, the folder this process runs in), its files are, one by one: if that is interrupted, other programs
    may see old files beside new ones until a load or save of vitriad has finished it.

    Args:
        folder: made where missing, with its parents.
        files: texts by name, such as {"config.json": ...}.
        tensors: arrays by name, in the order in which they fill shards.
        max_shard_size: largest weight file, in bytes or as text like "5GB"; a larger tensor has a file of its own.
        variant: infix of the file names, as in model.fp16.safetensors.
        also: names of other files that are not to be kept.
        source: what the weights were made from; recorded in the manifest.
        write_file: writes the tensors of one file, which is to be a safetensors file, instead of vitriad.
        folders: name of a folder inside that takes the place of the old one -> what writes it, given its path.

    Raises:
        InputError: a size or variant that means nothing.
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
        manifest = {"vitriad": _version(), "source": source, "files": {**kept, **write(new)}}
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


def serialised(
    tensors: Mapping[str, Array | LazyArray],
    advance: Callable[[int], Any],
    metadata: Mapping[str, str] | None = MappingProxyType({"format": "pt"}),
) -> Iterator[Any]:
    """The bytes of a safetensors file, piece by piece and as the safetensors library writes them.

    Args:
        advance: called with the bytes of every tensor that is done with.
        metadata: strings for the header; None for none.
    """
    ranks = {name: rank for rank, name in enumerate(DTYPES)}
    order = sorted(tensors, key=lambda name: (ranks[_NAMES[tensors[name].dtype]], name))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data
        advance(tensors[name].nbytes)


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


def record_of(path: Path) -> dict[str, Any]:
    """The record of a file that something else has written."""
    with open(path, "rb") as file:
        return _record(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256"))


def write_pieces(path: Path, pieces: Iterable[Any]) -> dict[str, Any]:
    """Writes a new file through to the disk, large pieces digested by another thread meanwhile; returns its record."""
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file, ThreadPoolExecutor(1) as digester:
        digested: Future[None] | None = None
        for piece in pieces:
            for start in range(0, len(piece), _CHUNK):
                chunk = piece[start : start + _CHUNK]
                file.write(chunk)
                size += len(chunk)
                if digested is not None:
                    digested.result()  # never more than one chunk behind
                digested = digester.submit(digest.update, chunk) if len(chunk) > _SMALL else None
                if digested is None:
                    digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return _record(size, digest)


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
        known = _read_manifest(folder / MANIFEST_NAME, LIMITS) or {}
    except CheckpointError as problem:
        if isinstance(problem.__context__, OSError):  # unreadable just now, not damaged
            raise problem.__context__ from None
        return {}  # what it said is lost with it
    return {name: known[name] for name in os.listdir(folder) if name in known and not is_replaced(name)}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vitriad")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
