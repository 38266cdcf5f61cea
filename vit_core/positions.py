"""Position tables: the fixed sin-cos table, and resizing by two one-dimensional interpolation matrices.

Resizing a table is linear and separable, so it is written once, in NumPy, as one matrix per axis; every backend applies
the two with matrix products. No framework's image resize touches a position table: they disagree with one another.

Axis words: rows x columns is the patch grid, patches = rows * columns, tokens = 1 + patches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from vit_core.errors import InputError
from vit_core.tensors import Array

# How far a table may be from the sin-cos one and still count as it: some files hold one computed in float32. A table
# in a narrower dtype may be off by its rounding.
SINCOS_TOLERANCE = 1e-6
CUBIC = -0.75  # the free number of Keys' kernel (his a), as torch has it; most others have -0.5


def sincos_table(hidden: int, rows: int, columns: int) -> Array:
    """The fixed two-dimensional sin-cos position table of MAE.

    The first half of the hidden axis encodes the column, the second half the row; each half is sines, then cosines, of
    hidden / 4 wavelengths growing from 2 pi to 10000 * 2 pi. The row of the class token is zero.

    Args:
        hidden: width of the table, divisible by 4.
        rows: height of the patch grid.
        columns: width of the patch grid.

    Returns:
        (1, 1 + rows * columns, hidden), float64.

    Source: MAE, appendix A.1; the axis order is that of its published code and of every checkpoint.
    """
    frequencies = 10000.0 ** (-np.arange(hidden // 4) / (hidden // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(axis, frequencies) for axis in (column, row)]
    patches = np.concatenate([part for angle in angles for part in (np.sin(angle), np.cos(angle))], axis=1)
    return np.concatenate([np.zeros((1, hidden)), patches])[None]


@lru_cache(maxsize=256)
def resize_matrix(old: int, new: int, kernel: str = "hf") -> Array:
    """The matrix that resamples one axis from `old` to `new` points.

    Args:
        old: points of the stored axis.
        new: points wanted.
        kernel: whose resampler, one of KERNELS:

            "hf": transformers (torch bicubic, a = -0.75, borders clamped, no antialias);
            "timm": timm (torch bicubic with antialias: a = -0.5, weights outside dropped, stretched when shrinking);
            "tf": transformers' TensorFlow classes (tf.image.resize bicubic, a = -0.5, weights outside dropped);
            "bigvision": Google's JAX code (linear between aligned corners);
            "dino": DINO and transformers up to 4.41 (as "hf", sampled at the scale (new + 0.1) / old).

    Returns:
        (new, old), float64, read-only; rows sum to one. The identity when the sizes agree, except for "dino", which
        also shifts an axis of unchanged size if the other axis changes.

    Raises:
        InputError: unknown kernel, or a size below one.
    """
    if kernel not in KERNELS:
        raise InputError(f"position kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}.")
    if old < 1 or new < 1:
        raise InputError(f"position grid: expected sides of at least 1, got {old} -> {new}.")
    matrix: Array = KERNELS[kernel](old, new)
    matrix.flags.writeable = False  # cached and shared
    return matrix


def resize_table(table: Array, old: tuple[int, int], new: tuple[int, int], kernel: str = "hf") -> Array:
    """A position table for another patch grid; the class token's row, if there is one, stays as it is.

    Args:
        table: (1, 1 + rows * columns, hidden) or (1, rows * columns, hidden), any float dtype.
        old: (rows, columns) of `table`.
        new: (rows, columns) wanted.
        kernel: see `resize_matrix`. A table equal to the sin-cos one is built anew instead of resampled.

    Returns:
        (1, 1 + new rows * new columns, hidden), or one less as `table`, in the dtype of `table`.
    """
    if old == new:
        return table
    if is_sincos(table, old):
        return sincos_table(table.shape[-1], *new).astype(table.dtype)
    rows, columns = (resize_matrix(o, n, kernel) for o, n in zip(old, new, strict=True))
    first = table.shape[1] - old[0] * old[1]
    grid = table[0, first:].astype(np.float64).reshape(*old, -1)  # (rows, columns, hidden)
    patches = np.einsum("ri,cj,ijh->rch", rows, columns, grid, optimize=True).reshape(new[0] * new[1], -1)
    return np.concatenate([table[:, :first], patches[None].astype(table.dtype)], axis=1)


def is_sincos(table: Array, grid: tuple[int, int]) -> bool:
    """Whether `table` (1, tokens, hidden) is the fixed sin-cos table of `grid` (rows, columns)."""
    hidden = table.shape[-1]
    if hidden % 4 or table.shape[1] != 1 + grid[0] * grid[1]:
        return False
    tolerance = max(SINCOS_TOLERANCE, float(np.spacing(table.dtype.type(1))) / 2)
    return bool(np.abs(table.astype(np.float64) - sincos_table(hidden, *grid)).max() <= tolerance)


def cubic_weights(offset: Any) -> tuple[Any, Any, Any, Any]:
    """The weights of kernel "hf" for the four points around a sample: one before its left neighbour to two after it.

    Args:
        offset: distance of the sample from its left neighbour, in [0, 1). It may be an array of any framework, since
            only arithmetic is done to it: backends use it where sizes are only known inside a compiled program.
    """
    return (
        _outer(1 + offset, CUBIC),
        _inner(offset, CUBIC),
        _inner(1 - offset, CUBIC),
        _outer(2 - offset, CUBIC),
    )


def _cubic_matrix(old: int, new: int, scale: float | None = None) -> Array:
    """Four taps around each sample, those past the border moved onto it.

    Args:
        old: points of the stored axis.
        new: points wanted.
        scale: distance of two samples in points of the stored axis; old / new unless given.

    Returns:
        (new, old), float64.
    """
    centre = (np.arange(new) + 0.5) * (old / new if scale is None else scale) - 0.5
    first, points = np.floor(centre), np.arange(old)
    matrix = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        place = np.clip(first + tap, 0, old - 1)[:, None]
        weight = _cubic(centre - (first + tap), CUBIC)[:, None]
        matrix += np.where(place == points, weight, 0.0)
    return matrix


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel at |distance| (zero from 2 on).

    Source: R. Keys, Cubic convolution interpolation for digital image processing, 1981, equation 15.
    """
    d = np.abs(distance)
    return np.where(d <= 1, _inner(d, a), np.where(d < 2, _outer(d, a), 0.0))


def _inner(d: Any, a: float) -> Any:
    return ((a + 2) * d - (a + 3)) * d * d + 1


def _outer(d: Any, a: float) -> Any:
    return a * (((d - 5) * d + 8) * d - 4)


def _dropped_cubic(old: int, new: int, stretch: float) -> Array:
    """Taps past the border dropped, the rest made to sum to one; the kernel is widened by `stretch`."""
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    return _normalised(_cubic((np.arange(old) - centre[:, None]) / stretch, a=-0.5))


def _aligned_linear(old: int, new: int) -> Array:
    centre = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    return np.maximum(0.0, 1.0 - np.abs(np.arange(old) - centre[:, None]))


def _tf_cubic(old: int, new: int) -> Array:
    """tf.image.resize looks its weights up in a table of 1024 steps, so sample offsets are rounded to 1/1024."""
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centre)
    offset = np.rint((centre - first) * 1024) / 1024
    return _normalised(_cubic(np.arange(old) - (first + offset)[:, None], a=-0.5))


def _normalised(weights: Array) -> Array:
    rows: Array = weights / weights.sum(axis=1, keepdims=True)
    return rows


KERNELS: dict[str, Callable[[int, int], Any]] = {
    "hf": _cubic_matrix,
    "timm": lambda old, new: _dropped_cubic(old, new, max(old / new, 1.0)),
    "tf": _tf_cubic,
    "bigvision": _aligned_linear,
    "dino": lambda old, new: _cubic_matrix(old, new, scale=old / (new + 0.1)),
}
