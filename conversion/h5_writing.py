"""HDF5 files as tf_keras writes them, on disks that fail.

A write that fails inside the HDF5 library can end in a crash of the whole process when the library closes the file. So
it never hears of one: it writes into a file object that keeps the first error, and from then on only pretends.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import ml_dtypes
import numpy as np

from conversion.folds import Tensors
from conversion.layouts import contiguous
from vit_core.errors import BackendError, CheckpointError
from vit_core.files import h5
from vit_core.files.checkpoint import content_of, record_of, release
from vit_core.installing import install_command
from vit_core.limits import LIMITS

_ATTRIBUTE = 64_512  # bytes; what tf_keras splits at
# What transformers' TensorFlow classes are called inside their files.
_TF_SCOPES = {
    "ViTModel": "tf_vi_t_model",
    "ViTForImageClassification": "tf_vi_t_for_image_classification",
    "ViTMAEModel": "tf_vi_tmae_model",
    "ViTMAEForPreTraining": "tf_vi_tmae_for_pre_training",
}

Array = np.ndarray[Any, np.dtype[Any]]


def write_h5(path: Path, tensors: Tensors, model: str, advance: Callable[[int], Any]) -> dict[str, Any]:
    """Writes a new file through to the disk, reads it again, and returns its record.

    Args:
        tensors: name in the file, without the scope of a class -> tensor.
        model: canonical name of the class.
        advance: called with the bytes of every tensor that is done with.

    Raises:
        OSError: the disk fails.
        CheckpointError: the file does not hold what was written.
        BackendError: h5py is not installed.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        raise BackendError(f"HDF5 files need h5py: {install_command('convert')}") from None
    with open(path, "xb+", buffering=0) as file:
        careful = _CarefulFile(file.fileno())
        try:
            with h5py.File(careful, "w") as container:
                checksums = _fill(container, careful, tensors, model, advance)
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
    container: Any, file: _CarefulFile, tensors: Tensors, model: str, advance: Callable[[int], Any]
) -> dict[str, int]:
    """Puts tensors into an open file; name -> checksum of each."""
    scope, checksums = _TF_SCOPES[model], {}
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
    found = h5.read(path, content, LIMITS)
    for name, checksum in checksums.items():
        release(content)
        if name not in found or crc32(found[name].read().tobytes()) != checksum:
            raise CheckpointError(f"{path}: {name}: not what was written. The disk is full, or damaged.")
