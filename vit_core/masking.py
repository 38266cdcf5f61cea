"""Random masks that are the same in every framework: of patches, which MAE removes, and of branches of layers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np

from vit_core.errors import InputError
from vit_core.tensors import Array, to_numpy

MOST_PATCHES = 2**20  # that `kept_fraction` vouches for: an image of 16384x16384 pixels in patches of 16x16
LARGEST_DENOMINATOR = 1024  # products of the two still fit 32 bits


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


def mask_noise(mask: Array) -> tuple[Array, float]:
    """The arguments `noise` and `mask_ratio` with which ViTMAE removes just these patches.

    Args:
        mask: (batch, patches), bool, True for what is removed: equally many in every image, and not all.

    Returns:
        noise (batch, patches), float32, and the ratio. Kept patches keep their order.

    Raises:
        InputError: a mask of another kind.
    """
    mask = np.asarray(mask)
    removed = mask.sum(axis=-1) if mask.ndim == 2 and mask.dtype == bool else np.empty(0)
    if removed.size == 0 or (removed != removed[0]).any() or not removed[0] < mask.shape[1]:
        raise InputError(
            "mask: expected (batch, patches), bool, with equally many removed patches in every image and one kept, got "
            f"{mask.dtype} {mask.shape}" + (f" with {removed.tolist()[:5]} removed." if removed.size else ".")
        )
    patches = mask.shape[1]
    ratio = max(0.0, (int(removed[0]) - 0.5) / patches)  # half a patch away from where rounding could decide
    return mask.astype(np.float32), ratio


def masking_of(model: str, bool_masked_pos: Any, noise: Any, mask_ratio: float | None) -> tuple[Any, float | None]:
    """`noise` and `mask_ratio` of a call of ViTMAE: those given, or those that remove the patches of a mask.

    Args:
        model: name in messages.
        bool_masked_pos: (batch, patches), bool or 0 and 1: 1 = removed; a tensor of any framework, or None.
        noise: of the call.
        mask_ratio: of the call.

    Raises:
        InputError: a mask beside noise or a ratio, one whose values are not known yet, or one that removes another
            number of patches in every image.
    """
    if bool_masked_pos is None:
        return noise, mask_ratio
    if noise is not None or mask_ratio is not None:
        raise InputError(f"{model}: bool_masked_pos says which patches are removed; leave out noise and mask_ratio.")
    try:
        mask = to_numpy(bool_masked_pos)
    except Exception as problem:  # what frameworks raise for the tensors of compiled code
        raise InputError(
            f"{model}: bool_masked_pos: its values are not known while tracing, and shapes depend on them.\n"
            "Pass noise and mask_ratio in compiled code: noise, mask_ratio = vit_core.masking.mask_noise(mask)."
        ) from problem
    if mask.dtype != bool and np.isin(mask, (0, 1)).all():
        mask = mask.astype(bool)
    try:
        return mask_noise(mask)
    except InputError as problem:
        raise InputError(f"{model}: bool_masked_pos: {str(problem).removeprefix('mask: ')}") from None


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


def kept_fraction(mask_ratio: float) -> tuple[int, int, int]:
    """`num_kept` as whole-number arithmetic, for exported programs: any number of patches, and no float64 needed.

    Returns:
        (times, plus, over): (patches * times + plus) // over patches are kept, for every number up to MOST_PATCHES.

    Raises:
        InputError: the ratio is outside [0, 1), or its products round in a way that no such formula reproduces.
    """
    num_kept(2**53, mask_ratio)  # a ratio at all
    return _kept_fraction(float(mask_ratio))


@lru_cache(maxsize=64)
def _kept_fraction(ratio: float) -> tuple[int, int, int]:
    share = Fraction(1 - ratio).limit_denominator(LARGEST_DENOMINATOR)
    patches = np.arange(1, MOST_PATCHES + 1)
    expected = (patches * (1 - ratio)).astype(np.int64)
    for plus in (0, -1):
        if ((patches * share.numerator + plus) // share.denominator == expected).all():
            return share.numerator, plus, share.denominator
    raise InputError(
        f"mask_ratio: {ratio!r} of a number of patches that is not known while tracing: rounding would decide.\n"
        "Use a ratio that binary fractions hold (0.75, 0.625, 0.3125 ...), or trace with images of a fixed size."
    )


def drop_path_mask(seed: int, batch: int, rates: Sequence[float], step: int = 0) -> Array:
    """A mask for the models' `drop_path_mask=` argument: equal seeds leave out the same branches in all frameworks.

    Args:
        seed: any int from 0 to 2**64 - 1.
        batch: number of images. Image i gets the same values whatever the batch.
        rates: how likely each layer leaves out a branch: `drop_path_rates` of a configuration.
        step: training step, so that every step leaves out others; an int of the same range.

    Returns:
        (layers, 2, batch), bool, True where a layer leaves out its attention (0) or its MLP (1) for an image.

    Raises:
        InputError: the seed or the step is not such an int.

    Source: the raw bits of Philox4x64, as `noise`, from another key.
    """
    key = np.array([check_seed("seed", seed), crc32(b"drop path")], dtype=np.uint64)
    counter = np.array([0, check_seed("step", step), 0, 0], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(batch * len(rates) * 2)
    drawn = ((bits >> np.uint64(11)) * 2.0**-53).reshape(batch, len(rates), 2)
    return np.ascontiguousarray((drawn < np.array(rates)[:, None]).transpose(1, 2, 0))


def check_seed(name: str, value: int) -> int:
    """`value` if it can key a random stream.

    Raises:
        InputError: not an int from 0 to 2**64 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**64:
        raise InputError(f"{name}: expected an int from 0 to 2**64 - 1, got {value!r}.")
    return int(value)
