"""Random masks that are the same in every framework: the noise that MAE sorts, and how many patches it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_core.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]


def noise(seed: int, batch: int, patches: int, step: int = 0) -> Array:
    """Noise for ViTMAE's `noise=` argument: equal seeds give equal masks in all frameworks, versions and machines.

    Args:
        seed: any int from 0 to 2**64 - 1.
        batch: number of images. Image i gets the same row whatever the batch.
        patches: patches per image.
        step: training step, so that every step masks anew; an int of the same range.

    Returns:
        (batch, patches), float32, uniform in [0, 1) in steps of 2**-24.

    Raises:
        InputError: the seed or the step is not such an int.

    Source: the raw bits of Philox4x64 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011).
    """
    key = np.array([check_seed("seed", seed), check_seed("step", step)], dtype=np.uint64)
    bits = np.random.Philox(key=key).random_raw(batch * patches)
    return ((bits >> np.uint64(40)) * 2.0**-24).astype(np.float32).reshape(batch, patches)


def num_kept(patches: int, mask_ratio: float) -> int:
    """How many patches MAE's encoder sees: the integer part of patches * (1 - mask_ratio), in double arithmetic.

    Raises:
        InputError: the ratio is outside [0, 1), or keeps no patch.
    """
    is_ratio = isinstance(mask_ratio, float | int | np.floating) and 0 <= mask_ratio < 1
    kept = int(patches * (1 - float(mask_ratio))) if is_ratio else 0
    if kept < 1:
        raise InputError(
            f"mask_ratio: expected a number in [0, 1) that keeps at least one of {patches} patches, got {mask_ratio!r}."
        )
    return kept


def check_seed(name: str, value: int) -> int:
    """`value` if it can key a random stream.

    Raises:
        InputError: not an int from 0 to 2**64 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**64:
        raise InputError(f"{name}: expected an int from 0 to 2**64 - 1, got {value!r}.")
    return int(value)
