"""What `numpy.savez` wrote, and the same bytes again. Arrays of objects, which are programs, are refused."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile, ZipInfo

import ml_dtypes
import numpy as np
from numpy.lib import format as npy

from vit_core.errors import CheckpointError, UnsafeFileError
from vit_core.files.arrays import DTYPES, LazyArray, raw_bytes
from vit_core.files.zip import Member, members
from vit_core.limits import Limits
from vit_core.plain_values import short

_HEADER = 10_000  # bytes; what NumPy itself reads at most
_BFLOAT16 = np.dtype("V2")  # what NumPy makes of a dtype that is not its own


def read(path: Path, content: Any, limits: Limits) -> dict[str, LazyArray]:
    """The arrays of an archive by name; their data is read, and compared with its checksum, when asked for.

    Raises:
        UnsafeFileError: an array of objects.
        CheckpointError: the archive is damaged.
    """
    found = members(path, content, limits)
    if strange := next((name for name in found if not name.endswith(".npy")), None):
        raise CheckpointError(f"{path}: {short(strange)}: expected arrays (.npy) only.")
    return {name.removesuffix(".npy"): _array(path, name, member, limits) for name, member in found.items()}


def _array(path: Path, name: str, member: Member, limits: Limits) -> LazyArray:
    where = f"{path}: {short(name)}"
    # The header is short; of a compressed member all is inflated, which its size has been judged by.
    most = min(_HEADER, member.size)
    first = member.bytes()[:most] if member.is_compressed else member.content[member.start : member.start + most]
    header = io.BytesIO(bytes(first))
    try:
        version = npy.read_magic(header)
        reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, is_fortran, dtype = reader(header, max_header_size=_HEADER)
    except (
        ValueError,
        KeyError,
        SyntaxError,
        TypeError,
        MemoryError,
        RecursionError,
        tokenize.TokenError,
        OverflowError,
    ):
        raise CheckpointError(f"{where}: not an array with a sound header.") from None
    if dtype.hasobject:
        raise UnsafeFileError(f"{where}: an array of objects, which are programs. Save it with plain dtypes.")
    dtype = np.dtype(ml_dtypes.bfloat16) if dtype == _BFLOAT16 else dtype
    if dtype not in DTYPES.values():
        raise CheckpointError(f"{where}: dtype: expected one of {', '.join(DTYPES)}, got {str(dtype)[:80]}.")
    if len(shape) > limits.rank or not all(type(side) is int and side >= 0 for side in shape):
        raise CheckpointError(f"{where}: shape {str(shape)[:80]}, above {limits.bound('rank')}.")
    offset, size = header.tell(), math.prod(shape) * dtype.itemsize
    if offset + size != member.size:
        raise CheckpointError(f"{where}: {shape} {dtype} takes {size} bytes, there are {member.size - offset}.")

    def data() -> np.ndarray[Any, np.dtype[Any]]:
        array: np.ndarray[Any, np.dtype[Any]] = np.ndarray(
            shape, dtype, member.bytes(), offset, order="F" if is_fortran else "C"
        )
        return array if array.flags.aligned else array.copy()

    return LazyArray(dtype, shape, data)


def save_arrays(file: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """`numpy.savez`, of numbers. Its types ask for `allow_pickle` too, which NumPy 2.0 stores as one more array.

    Args:
        file: path that ends in .npz, or a file that is open for bytes.
    """
    np.savez(file, **arrays)  # type: ignore[arg-type]


def serialised(tensors: Mapping[str, LazyArray], advance: Callable[[int], Any]) -> Iterator[bytes]:
    """The bytes of an archive as `numpy.savez` writes it, member by member.

    Args:
        advance: called with the bytes of every tensor that is done with.
    """
    sink = _Sink()
    with ZipFile(cast(Any, sink), "w") as archive:
        for name, tensor in tensors.items():
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                dtype = _BFLOAT16 if tensor.dtype == ml_dtypes.bfloat16 else tensor.dtype
                header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": tensor.shape}
                npy.write_array_header_1_0(member, header)
                member.write(raw_bytes(tensor))
            yield from sink.taken()
            advance(tensor.nbytes)
    yield from sink.taken()


class _Sink:
    """A file that only takes: what was written is handed on."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces
