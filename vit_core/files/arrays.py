"""Arrays that stay in their file until they are asked for.

The reader of a container turns a file into a `WeightFile`: tensors by name, each a `LazyArray` over the bytes of the
file. Those are NumPy views of a copy-on-write map of the file: nothing is copied, and writing to one does not change
the file. If another program truncates a mapped file in place, reading a view of it crashes the process. Saves made here
never do that: they replace files. `mmap=False` copies the file into memory.
"""

from __future__ import annotations

import math
import mmap as mapping
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from vit_core.errors import CheckpointError, MissingFileError, advice, reading
from vit_core.files.kinds import kind_of
from vit_core.files.links import followed
from vit_core.tensors import Array

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

_BLOCK = 2**18  # numbers that are looked at at a time, so that they and what is found stay in a cache

_ROWS, _COLUMNS = 512, 64  # of a matrix that are transposed at a time, so that both sides stay in a cache


@dataclass(frozen=True, slots=True)
class LazyArray:
    """A tensor whose dtype and shape are known, and whose data is only read when asked for.

    NumPy functions accept it as an array; each use reads the data again.

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


def held(array: Array) -> LazyArray:
    """A tensor that is in memory already."""
    return LazyArray(array.dtype, array.shape, partial(np.asarray, array))


def array_in_file(
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
        others: name -> what else the container holds under that name, such as a learning rate.
    """

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, LazyArray]
    content: Any
    others: Mapping[str, str] = MappingProxyType({})

    def read(self, name: str) -> Array:
        """The data of a tensor."""
        return self.tensors[name].read()


def content_of(path: Path, mmap: bool = True) -> Any:
    """The bytes of a whole weight file, mapped or copied; both can be written to without changing the file.

    Raises:
        MissingFileError, UnsafeFileError, CheckpointError: as `open_file`; also for what is no weight file of any kind.
    """
    content = bytes_of(path, mmap)
    if (kind := kind_of(content)) and not kind.is_read:
        raise CheckpointError(f"{path}: {kind.name}.\n{kind.advice}.")
    return content


def bytes_of(path: Path, mmap: bool) -> Any:
    """The content of a file: a copy-on-write map of it, or a copy. See `content_of` for the errors."""
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


def release(content: Any, start: int = 0, nbytes: int | None = None) -> None:
    """Gives the memory of a mapped file back; data that is used later is read from the file again.

    What was written to that memory is lost.

    Args:
        content: bytes of a file; only a map is given back.
        start: of the part to give back, in bytes: a multiple of the size of pages.
        nbytes: its length; all that follows where None.
    """
    if isinstance(content, mapping.mmap) and hasattr(mapping, "MADV_DONTNEED"):
        content.madvise(mapping.MADV_DONTNEED, start, len(content) - start if nbytes is None else nbytes)


def _open(path: Path) -> BinaryIO:
    # A pipe without a writer must not block, and a link put there meanwhile is not followed.
    careful = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return open(followed(path), "rb", opener=lambda name, flags: os.open(name, flags | careful))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file.") from None
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be opened: {problem.strerror}.{advice(problem)}") from None


def check_finite(where: str, name: str, array: Array) -> None:
    """Checks that a tensor holds no NaN and no infinity.

    Raises:
        CheckpointError: it does.
    """
    if bad := sum(block.size - int(np.count_nonzero(np.isfinite(block))) for block in _blocks(array)):
        raise CheckpointError(
            f"{where}: {name}: {bad} of {array.size} values are NaN or infinite.\n"
            "The weights are damaged, or their training diverged; allow_nonfinite=True loads them as they are."
        )


def _blocks(array: Array) -> Iterator[Array]:
    """The numbers of an array in parts, in the order in which they lie in memory."""
    flat = array.ravel(order="K")
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def contiguous(array: Array) -> Array:
    """The same tensor in contiguous memory that can be written to: the array itself, or a copy."""
    return array if array.flags.c_contiguous and array.flags.writeable else copied(array)


def copied(array: Array) -> Array:
    """A contiguous copy, in memory that begins at a page, so that frameworks can take it over.

    NumPy would ask for huge pages. Where memory is scarce or was given back to the host of a virtual machine, they take
    several times as long to come as small ones.
    """
    memory = mapping.mmap(-1, max(array.nbytes, 1), access=mapping.ACCESS_COPY)
    copy: Array = np.frombuffer(memory, np.uint8, array.nbytes).view(array.dtype).reshape(array.shape)
    if array.ndim != 2:
        copy[...] = array
        return copy
    for row in range(0, array.shape[0], _ROWS):  # of a transposed matrix, six times as fast as all at once
        for column in range(0, array.shape[1], _COLUMNS):
            block = slice(row, row + _ROWS), slice(column, column + _COLUMNS)
            copy[block] = array[block]
    return copy


def raw_bytes(tensor: LazyArray) -> memoryview:
    """A tensor as its bytes, read when this is called."""
    return contiguous(tensor.read()).reshape(-1).view(np.uint8).data
