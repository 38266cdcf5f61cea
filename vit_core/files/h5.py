"""HDF5 files, as Keras and tf_keras write them.

Reading: h5py tells where the arrays lie; what lies there in one piece is then taken from the bytes of the file. Links
and storages outside the file are refused.

Writing: a write that fails inside the HDF5 library can crash the whole process when the library closes the file. So the
library is never told: it writes into a file object that remembers the first error and ignores all writes after it. The
error is raised once the library is done.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import ml_dtypes
import numpy as np

from vit_core.errors import BackendError, CheckpointError, UnsafeFileError, VitError
from vit_core.files.arrays import DTYPES, LazyArray, array_in_file, content_of, contiguous, release
from vit_core.files.manifest import record_of
from vit_core.files.zip import RawBytes
from vit_core.installing import install_command
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import short
from vit_core.tensors import Array

_ATTRIBUTE = 64_512  # bytes; what tf_keras splits at


def read(path: Path, content: Any, limits: Limits) -> dict[str, LazyArray]:
    """The arrays of a file by their paths in it; data is read when asked for.

    Raises:
        BackendError: h5py is not installed.
        UnsafeFileError: a link or a storage that leads out of the file.
        CheckpointError: not a sound file.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        raise BackendError(f"{path}: HDF5 files need h5py: {install_command('convert')}") from None
    found: dict[str, LazyArray] = {}
    try:
        file = h5py.File(io.BufferedReader(RawBytes(content)), "r")
        for name, dataset in _datasets(path, file, limits):
            if len(found) == limits.tensors:
                raise CheckpointError(f"{path}: more tensors than {limits.bound('tensors')}.")
            found[name] = _array(f"{path}: {short(name)}", dataset, content, limits)
    except VitError:
        raise
    except Exception as problem:  # whatever the library makes of a damaged file
        raise CheckpointError(f"{path}: not a sound HDF5 file: {str(problem)[:80]}.") from None
    bare = {_without_scope(name): tensor for name, tensor in found.items()}
    return bare if len(bare) == len(found) else found  # several models of one name, each in a scope of its own


def _without_scope(name: str) -> str:
    """A variable's name as in other files of tf_keras: without the group, and without the model's class in front.

    tf_model.h5 has LAYER/SCOPE/LAYER/…:0, or LAYER/LAYER/…:0 where the model was built but never called.
    """
    layer, *rest = name.split("/")
    if not name.endswith(":0") or layer not in rest[:2]:
        return name
    return "/".join(rest[1:] if rest[1:2] == [layer] else rest)


def _datasets(path: Path, root: Any, limits: Limits) -> Iterator[tuple[str, Any]]:
    """Every array of a file with its path; each object once, and by hard links only."""
    import h5py

    seen: set[int] = set()
    waiting = [("", root)]
    while waiting:
        prefix, group = waiting.pop()
        if prefix.count("/") > limits.json_depth:
            raise CheckpointError(f"{path}: nested deeper than {limits.bound('json_depth')}.")
        for key in group:
            name = f"{prefix}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise UnsafeFileError(f"{path}: {short(name)} is a link to elsewhere; expected the array itself.")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise CheckpointError(f"{path}: {short(name)} is there under two names.")
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset):
                yield name, item
            if len(seen) > 10 * limits.tensors:
                raise CheckpointError(f"{path}: more groups than {limits.bound('tensors')} would need.")


def _array(where: str, dataset: Any, content: Any, limits: Limits) -> LazyArray:
    if dataset.is_virtual or dataset.external:
        raise UnsafeFileError(f"{where}: its data lie in other files; expected them here.")
    stored_as = np.dtype(ml_dtypes.bfloat16) if dataset.dtype == np.dtype("V2") else dataset.dtype
    dtype = next((known for known in DTYPES.values() if known == stored_as), None)
    if dtype is None:
        raise CheckpointError(f"{where}: dtype: expected one of {', '.join(DTYPES)}, got {str(dataset.dtype)[:80]}.")
    if dataset.shape is None or len(dataset.shape) > limits.rank:
        raise CheckpointError(f"{where}: shape {str(dataset.shape)[:80]}, above {limits.bound('rank')}.")
    size, start = dataset.size * dtype.itemsize, dataset.id.get_offset()
    stored = dataset.id.get_storage_size()
    if start is not None and dataset.chunks is None:
        if stored != size or start + size > len(content):
            raise CheckpointError(f"{where}: {dataset.shape} {dtype} takes {size} bytes, the file holds {stored}.")
        return array_in_file(content, dtype, dataset.shape, start)
    if size > limits.inflation * max(stored, 4096):
        raise CheckpointError(f"{where}: {stored} bytes would become {size}, above {limits.bound('inflation')}.")

    def data() -> np.ndarray[Any, np.dtype[Any]]:
        try:
            return np.asarray(dataset[()]).view(dtype)
        except Exception as problem:  # damaged pieces
            raise CheckpointError(f"{where}: cannot be read: {str(problem)[:80]}.") from None

    return LazyArray(dtype, dataset.shape, data)


def write_h5(path: Path, tensors: Mapping[str, LazyArray], scope: str, advance: Callable[[int], Any]) -> dict[str, Any]:
    """Writes a new file through to the disk, reads it again, and returns its record.

    Args:
        tensors: name in the file, without the scope of a class -> tensor.
        scope: of the model's class, which stands before every name.
        advance: called with the bytes of every tensor that is done with.

    Raises:
        OSError: the disk fails.
        CheckpointError: the file does not hold what was written.
        BackendError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise BackendError(f"HDF5 files need h5py: {install_command('convert')}") from None
    with open(path, "xb+", buffering=0) as file:
        careful = _CarefulFile(file.fileno())
        try:
            with h5py.File(careful, "w") as container:
                checksums = _fill(container, careful, tensors, scope, advance)
        except Exception:
            careful.check()  # of a disk that failed, this is the error, whatever else it led to
            raise
        careful.check()
        os.fsync(file.fileno())
    _compare(path, checksums)
    return record_of(path)


class _CarefulFile(io.RawIOBase):
    """A file that takes everything: the first error is kept, and nothing is written after it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = self._end = 0
        self._problem: BaseException | None = None

    def check(self) -> None:
        """Raises the first error, if there was one."""
        if self._problem is not None:
            raise self._problem

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        start, self._position = self._position, self._position + len(view)
        self._end = max(self._end, self._position)
        done = 0
        while done < len(view) and self._problem is None:
            done += self._try(os.pwrite, view[done:], start + done) or 0
        return len(view)

    def readinto(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        found = b"" if self._problem else self._try(os.pread, len(view), self._position) or b""
        view[:] = found + bytes(len(view) - len(found))
        self._position += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._end = self._position if size is None else size
        if self._problem is None:
            self._try(os.ftruncate, self._end)
        return self._end

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(self._descriptor, *arguments)
        except BaseException as problem:  # an interruption of the user, too, must not go through the library
            self._problem = problem
            return None


def _fill(
    container: Any, file: _CarefulFile, tensors: Mapping[str, LazyArray], scope: str, advance: Callable[[int], Any]
) -> dict[str, int]:
    """Puts tensors into an open file; name -> checksum of each."""
    checksums: dict[str, int] = {}
    layers: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        layer, full = name.partition("/")[0], f"{scope}/{name}"
        layers.setdefault(layer, []).append(full)
        data = _stored(contiguous(tensor.read()))
        container.create_dataset(f"{layer}/{full}", data=data, track_times=False)
        file.check()
        checksums[name] = crc32(data.tobytes())
        advance(tensor.nbytes)
    container.create_group("top_level_model_weights").attrs["weight_names"] = np.array([], "S1")
    said = {"backend": "tensorflow", "keras_version": "2.21.0", "layer_names": np.array([*layers], "S")}
    container.attrs.update(said)
    for layer, names in layers.items():
        _set_names(container[layer], names)
    return checksums


def _stored(data: Array) -> Array:
    """HDF5 has no bfloat16; float32 holds every value of it."""
    return data.astype(np.float32) if data.dtype == ml_dtypes.bfloat16 else data


def _set_names(group: Any, names: list[str]) -> None:
    """An attribute holds 64 KB; longer lists go on in numbered ones."""
    array = np.array(names, "S")
    if array.nbytes <= _ATTRIBUTE:
        group.attrs["weight_names"] = array
        return
    for k, part in enumerate(np.array_split(array, -(-array.nbytes // _ATTRIBUTE))):
        group.attrs[f"weight_names{k}"] = part


def _compare(path: Path, checksums: Mapping[str, int]) -> None:
    """Reads a file that was written, for what the library and the disk say they did is not always what they did."""
    content = content_of(path)
    found = read(path, content, LIMITS)
    for name, checksum in checksums.items():
        release(content)
        if name not in found or crc32(found[name].read().tobytes()) != checksum:
            raise CheckpointError(f"{path}: {name}: not what was written. The disk is full, or damaged.")
