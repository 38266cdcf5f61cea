"""How a convention lays tensors out: a function of the kind of the tensor, never of a single parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_core.parameters import Kind

Array = np.ndarray[Any, np.dtype[Any]]

# convention -> kind -> order in which the stored axes become the canonical ones; a kind that is not listed is stored in
# the canonical layout. "torch" is the canonical convention itself. "heads" has an axis of their own for the heads, as
# Flax' and Keras' attention layers do; it is a view that `split_heads` and `joined_heads` bring about.
_CHANNELS_LAST: dict[Kind, tuple[int, ...]] = {
    **dict.fromkeys(("linear", "heads_in", "heads_out"), (1, 0)),
    "conv": (3, 2, 0, 1),
}
AXES: dict[str, dict[Kind, tuple[int, ...]]] = {
    "torch": {},
    "keras": _CHANNELS_LAST,
    "flax": _CHANNELS_LAST,
    "heads": _CHANNELS_LAST,
}

_PAGE = 2**21  # bytes: of huge pages, in which memory comes much faster
_ALIGNMENT = 64  # bytes; what frameworks take over
_STRIP = 64  # rows that are transposed at a time, which fit into a cache


def to_canonical(array: Array, kind: Kind, convention: str) -> Array:
    """A stored tensor in the canonical layout, as a view."""
    if convention == "heads":
        array = joined_heads(array, kind)
    if kind in ("positions", "token") and array.ndim == 2:  # some programs leave the batch axis out
        array = array[None]
    axes = AXES[convention].get(kind)
    return array if axes is None or array.ndim != len(axes) else array.transpose(axes)


def joined_heads(array: Array, kind: Kind) -> Array:
    """A tensor without the axis for the heads: (hidden, heads, head_dim) to (hidden, heads * head_dim), and alike."""
    if kind == "heads_in" and array.ndim == 3:
        return array.reshape(len(array), -1)
    if kind == "heads_out" and array.ndim == 3:
        return array.reshape(-1, array.shape[-1])
    return array.reshape(-1) if kind == "heads_bias" else array


def split_heads(array: Array, kind: Kind, heads: int) -> Array:
    """What `joined_heads` takes away, put in: for a tensor in the convention's order of the other axes."""
    if kind == "heads_in":
        return array.reshape(len(array), heads, -1)
    if kind == "heads_out":
        return array.reshape(heads, -1, array.shape[-1])
    return array.reshape(heads, -1) if kind == "heads_bias" else array


def canonical_axes(kind: Kind, convention: str) -> tuple[int, ...] | None:
    """The order in which the canonical axes become the stored ones; None where they are the same."""
    axes = AXES[convention].get(kind)
    return axes and tuple(axes.index(axis) for axis in range(len(axes)))


def from_canonical(array: Array, kind: Kind, convention: str) -> Array:
    """A canonical tensor in the layout of a convention: in contiguous memory, aligned so that frameworks can keep it.

    The tensor itself where the layout is the same. Other threads run meanwhile.
    """
    axes = canonical_axes(kind, convention)
    return array if axes is None else contiguous(array.transpose(axes), alignment=_ALIGNMENT)


def contiguous(array: Array, alignment: int = 1) -> Array:
    """The same tensor in contiguous memory of its own or the file's, that begins at a multiple of so many bytes."""
    if array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % alignment == 0:
        return array
    spare = np.empty(array.nbytes + _PAGE, np.uint8)
    start = -spare.ctypes.data % _PAGE
    laid_out = spare[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    if array.ndim != 2:
        laid_out[...] = array
        return laid_out
    for i in range(0, array.shape[1], _STRIP):  # of a transposed matrix, five times as fast as all at once
        laid_out[:, i : i + _STRIP] = array[:, i : i + _STRIP]
    return laid_out
