"""safetensors: the reader checks the whole header before it hands out a tensor; the writer makes the header.

Source: the format's own description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vit_core.errors import CheckpointError
from vit_core.files.arrays import DTYPES, LazyArray, WeightFile, array_in_file, content_of
from vit_core.files.kinds import kind_of
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import short
from vit_core.tensors import Array

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_KEYS = {"dtype", "shape", "data_offsets"}  # of a tensor in a header


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
        raise CheckpointError(f"{path}: __metadata__: expected strings by name, got {short(metadata)}.")
    if len(header) > limits.tensors:
        raise CheckpointError(f"{path}: {len(header)} tensors, above {limits.bound('tensors')}.")
    # Entries are let go one by one: of 100,000 tensors they take more memory than all the rest.
    places = {name: _entry(path, name, header.pop(name), 8 + length, limits) for name in [*header]}
    _check_tiling(path, places, 8 + length, size)
    tensors = {
        name: array_in_file(content, dtype, shape, start)
        for name in [*places]
        for dtype, shape, start, _ in [places.pop(name)]
    }
    return WeightFile(path, metadata, tensors, content)


def _header(path: Path, text: bytes, limits: Limits) -> dict[str, Any]:
    """The object in a header, in which no name stands twice at any level."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"{path}: header: the name {short(name)} stands there twice.")
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
        raise _bad(path, name, f"expected dtype, shape and data_offsets, got {short(value)}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and dtype in DTYPES):
        raise _bad(path, name, f"dtype: expected one of {', '.join(DTYPES)}, got {short(dtype)}")
    if not _are_counts(shape):
        raise _bad(path, name, f"shape: expected counts, got {short(shape)}")
    if len(shape) > limits.rank:
        raise _bad(path, name, f"{len(shape)} axes, above {limits.bound('rank')}")
    if math.prod([side or 1 for side in shape]) > limits.parameters:
        raise _bad(path, name, f"shape {shape}, above {limits.bound('parameters')}")
    if not (_are_counts(offsets) and len(offsets) == 2):
        raise _bad(path, name, f"data_offsets: expected two counts, got {short(offsets)}")
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise _bad(path, name, f"{dtype} {shape} takes {nbytes} bytes, data_offsets are {offsets}")
    return _Place(DTYPES[dtype], tuple(shape), data_start + offsets[0], nbytes)


def _bad(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {short(name)}: {what}.")


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
                f"{path}: {short(name)}: starts at byte {info.start}, expected {place}: a hole or an overlap."
            )
        place += info.nbytes
    if place != size:
        raise CheckpointError(
            f"{path}: {size} bytes, expected {place} by its header: the file was cut, or something was added."
        )


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
