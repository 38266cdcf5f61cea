"""Patch projections for other images: of other channels, or cut into patches of another size.

A projection is linear in the pixels of a patch, so both are linear in its kernel, and are computed in float64.

Axis words: a kernel is (hidden, channels, height, width), as the canonical layout has it.
"""

from __future__ import annotations

import numpy as np

from vit_core.errors import InputError
from vit_core.tensors import Array


def with_channels(kernel: Array, channels: int) -> Array:
    """A kernel for another number of channels, by timm's rule.

    To one channel: the sum over all, exact for images whose channels are all alike. To several: the channels again and
    again, as many as are wanted, all times stored / wanted; exact for images that have their channels several times.

    Returns:
        (hidden, channels, height, width), float64.

    Raises:
        InputError: there is no rule from so many channels to so many.

    Source: timm 1.0.31, adapt_input_conv, which starts from three channels; from one it follows the same way.
    """
    stored, kernel = kernel.shape[1], kernel.astype(np.float64)
    if stored == channels:
        return kernel
    if not is_channel_rule(stored, channels):
        raise InputError(f"patch projection: expected 1 or 3 stored channels to make {channels} of, got {stored}.")
    if channels == 1:
        return np.asarray(kernel.sum(axis=1, keepdims=True))
    return np.asarray(kernel[:, np.arange(channels) % stored] * (stored / channels))


def is_channel_rule(stored: int, channels: int) -> bool:
    """Whether timm's rule says how a kernel of `stored` channels becomes one of `channels`."""
    return channels == 1 or stored in (1, 3)


def with_patches(kernel: Array, patch: tuple[int, int]) -> Array:
    """A kernel for patches of another size, by the pseudo-inverse of resizing a patch.

    With B the bilinear resize of a patch to the new size and w the stored kernel, the new one minimises |B' w' - w|.
    For larger patches nothing remains of it: the token of a patch enlarged by B is the token of the patch itself. For
    smaller ones it is the nearest that there is.

    Args:
        kernel: (hidden, channels, height, width), any float dtype.
        patch: (height, width) wanted.

    Returns:
        (hidden, channels, *patch), float64.

    Source: FlexiViT (Beyer et al., 2022), section 3.4; B as in its code: bilinear, half-pixel centres,
    no antialias. B has a factor for each axis, and so does its pseudo-inverse.
    """
    rows, columns = (
        np.linalg.pinv(bilinear_matrix(old, new).T) for old, new in zip(kernel.shape[2:], patch, strict=True)
    )
    return np.asarray(np.einsum("ri,cj,dkij->dkrc", rows, columns, kernel.astype(np.float64), optimize=True))


def bilinear_matrix(old: int, new: int) -> Array:
    """The matrix (new, old), float64, that resamples one axis linearly: half-pixel centres, borders clamped."""
    centre = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    matrix: Array = np.maximum(0.0, 1.0 - np.abs(np.arange(old) - centre[:, None]))
    return matrix
