"""The arrays of an HDF5 file, as Keras and tf_keras write them. Links and storages outside the file are refused.

h5py tells where the arrays lie; what lies there in one piece is then taken from the bytes of the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vit_core.errors import BackendError, CheckpointError, UnsafeFileError, VitError
from vit_core.files.checkpoint import DTYPES, LazyArray, placed
from vit_core.files.zip import RawBytes
from vit_core.installing import install_command
from vit_core.limits import Limits


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
            found[name] = _array(f"{path}: {name[:80]!r}", dataset, content, limits)
    except VitError:
        raise
    except Exception as problem:  # whatever the library makes of a damaged file
        raise CheckpointError(f"{path}: not a sound HDF5 file: {str(problem)[:80]}.") from None
    short = {_without_scope(name): tensor for name, tensor in found.items()}
    return short if len(short) == len(found) else found  # several models of one name, each in a scope of its own


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
                raise UnsafeFileError(f"{path}: {name[:80]!r} is a link to elsewhere; expected the array itself.")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise CheckpointError(f"{path}: {name[:80]!r} is there under two names.")
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
        return placed(content, dtype, dataset.shape, start)
    if size > limits.inflation * max(stored, 4096):
        raise CheckpointError(f"{where}: {stored} bytes would become {size}, above {limits.bound('inflation')}.")

    def data() -> np.ndarray[Any, np.dtype[Any]]:
        try:
            return np.asarray(dataset[()]).view(dtype)
        except Exception as problem:  # damaged pieces
            raise CheckpointError(f"{where}: cannot be read: {str(problem)[:80]}.") from None

    return LazyArray(dtype, dataset.shape, data)
