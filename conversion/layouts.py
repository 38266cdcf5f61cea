"""How each convention lays tensors out in memory: decided by the kind of a tensor, never for one parameter alone."""

from __future__ import annotations

from vit_core.files.arrays import copied
from vit_core.parameters import Kind
from vit_core.tensors import Array

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
    """The inverse of `joined_heads`, for a tensor whose other axes are in the convention's order."""
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
    """A canonical tensor in the layout of a convention: a copy in memory of its own, which frameworks can take over.

    The tensor itself where the layout is the same. Other threads run meanwhile.
    """
    axes = canonical_axes(kind, convention)
    return array if axes is None else copied(array.transpose(axes))
