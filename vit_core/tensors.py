"""Arrays at the border between NumPy and the frameworks.

This is the only file of the core that imports a framework, and only when the caller asks for its tensors by name.
Incoming tensors are recognised by the module of their type: if there is one, its framework is imported already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np

from vit_core.errors import BackendError, InputError
from vit_core.installing import install_command

# return_tensors value -> (extra to install, module, function that takes a NumPy array)
_FRAMEWORKS: dict[str, tuple[str, str, str]] = {
    "pt": ("torch", "torch", "from_numpy"),
    "tf": ("tf", "tensorflow", "convert_to_tensor"),
    "jax": ("flax", "jax.numpy", "asarray"),
}

Array = np.ndarray[Any, np.dtype[Any]]

FLOAT_DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
_ALIASES = {"half": "float16", "float": "float32", "double": "float64", "fp16": "float16", "bf16": "bfloat16"}


def framework_of(value: object) -> str | None:
    """Name of the framework that `value` is a tensor of: "np", "pt", "tf", "jax", or None."""
    root = type(value).__module__.partition(".")[0]
    if isinstance(value, np.ndarray | np.generic):
        return "np"
    return {"torch": "pt", "tensorflow": "tf", "jax": "jax", "jaxlib": "jax"}.get(root)


def to_numpy(value: Any) -> Array:
    """A host NumPy array with the values of `value`.

    Dtypes: kept, bfloat16 included (as ml_dtypes.bfloat16).
    """
    framework = framework_of(value)
    if framework == "pt":
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no bfloat16 of its own: pass the bits
            bits = import_module("torch").int16
            return np.asarray(value.view(bits).numpy()).view(ml_dtypes.bfloat16)
        return np.asarray(value.numpy())
    if framework == "tf":
        return np.asarray(value.numpy())
    return np.asarray(value)


def from_numpy(array: Array, return_tensors: object) -> Any:
    """`array` as a tensor of the framework named by `return_tensors`.

    Args:
        array: any NumPy array.
        return_tensors: "np", "pt", "tf", "jax", or an enum member whose value is one of these.

    Raises:
        InputError: unknown name.
        BackendError: the framework is not installed.
    """
    name = str(getattr(return_tensors, "value", return_tensors))
    if name == "np":
        return array
    if name not in _FRAMEWORKS:
        raise InputError(f"return_tensors: expected one of np, pt, tf, jax, got {return_tensors!r}.")
    extra, module, function = _FRAMEWORKS[name]
    try:
        convert = getattr(import_module(module), function)
    except ImportError as error:
        raise missing_backend(extra, f"return_tensors={name!r}") from error
    return convert(array)


def missing_backend(extra: str, wanted_by: str) -> BackendError:
    """The error for a framework that is not installed, with the command that installs it."""
    return BackendError(
        f"{wanted_by} needs a framework that is not installed.\nInstall it with: {install_command(extra)}"
    )


def digest(tensors: Mapping[str, Array]) -> str:
    """SHA-256 of named arrays, in hexadecimal: of their names, dtypes, shapes and bytes, whatever their order."""
    found = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()


def dtype_name(dtype: object) -> str:
    """Canonical name of a floating dtype.

    Args:
        dtype: a name ("float32", "bf16", "torch.float16"), or a dtype object of NumPy, torch, TensorFlow or JAX.

    Returns:
        "float16", "bfloat16", "float32" or "float64".

    Raises:
        InputError: anything else.
    """
    name = _plain_dtype_name(dtype)
    if name in FLOAT_DTYPES:
        return name
    known: Sequence[str] = list(FLOAT_DTYPES)
    raise InputError(f"dtype: expected one of {', '.join(known)}, got {dtype!r}.")


def _plain_dtype_name(dtype: object) -> str:
    if isinstance(dtype, str) or type(dtype).__module__.partition(".")[0] == "torch":
        name = str(dtype).rpartition(".")[2]
        return _ALIASES.get(name, name)
    return str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype))
