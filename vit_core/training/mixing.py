"""Targets that are shares of classes, and images that are shares of two: label smoothing, mixup and CutMix."""

from __future__ import annotations

import math

import numpy as np

from vit_core.errors import InputError
from vit_core.tensors import Array
from vit_core.training.draws import Draws


def soft_targets(labels: Array, classes: int, smoothing: float = 0.0) -> Array:
    """Class indices as shares: 1 - smoothing for the class itself, and `smoothing` spread evenly over all classes.

    Args:
        labels: (batch,), integers.
        classes: how many there are.
        smoothing: from 0 to 1.

    Returns:
        (batch, classes), float32; every row adds up to 1.

    Raises:
        InputError: a label that is no class, or a smoothing that is no share.

    Source: Szegedy et al., Rethinking the Inception Architecture (2015), section 7.
    """
    labels = np.asarray(labels)
    if (
        labels.ndim != 1
        or labels.dtype.kind not in "iu"
        or (labels.size and not 0 <= labels.min() <= labels.max() < classes)
    ):
        raise InputError(
            f"labels: expected (batch,), integers from 0 to {classes - 1}, got {labels.dtype} {labels.shape}."
        )
    if not 0 <= smoothing <= 1:
        raise InputError(f"smoothing: expected a share from 0 to 1, got {smoothing}.")
    targets = np.full((len(labels), classes), smoothing / classes, np.float32)
    targets[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return targets


def mixed(
    pixel_values: Array, targets: Array, seed: int, step: int, *, mixup: float = 0.8, cutmix: float = 1.0
) -> tuple[Array, Array]:
    """A batch in which every image is mixed with its partner from the other end, and its targets alike.

    Mixup adds the two images by a share that is drawn for the batch; CutMix puts a box of the partner into the image.
    Where both are given, a coin decides for each batch.

    Args:
        pixel_values: (batch, channels, height, width), floating.
        targets: (batch, classes), float32, as from `soft_targets`.
        seed: of the run.
        step: of training, so that every batch is mixed anew.
        mixup: parameter of the beta distribution that the share comes from; 0 for no mixup.
        cutmix: the same for CutMix.

    Returns:
        The two of the same shapes and dtypes; the same arrays where neither is asked for.

    Raises:
        InputError: arrays of other shapes, or a negative parameter.

    Source: Zhang et al., mixup (2017); Yun et al., CutMix (2019), algorithm 1.
    """
    if pixel_values.ndim != 4 or targets.ndim != 2 or len(targets) != len(pixel_values):
        raise InputError(
            "mixed: expected images (batch, channels, height, width) and targets (batch, classes), got "
            f"{pixel_values.shape} and {targets.shape}."
        )
    if not (mixup >= 0 and cutmix >= 0):
        raise InputError(f"mixup, cutmix: expected 0 or more, got {mixup}, {cutmix}.")
    if mixup == cutmix == 0:
        return pixel_values, targets
    draws = Draws(seed, "mixing", step)
    is_cut = draws.uniform() < 0.5 if mixup and cutmix else cutmix > 0
    share = draws.beta(cutmix if is_cut else mixup)
    if not is_cut:
        return _sum(pixel_values, share), _sum(targets, share)
    height, width = pixel_values.shape[2:]
    rows, columns = (_cut(side, math.sqrt(1 - share), draws) for side in (height, width))
    images = pixel_values.copy()
    images[:, :, rows, columns] = pixel_values[::-1, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return images, _sum(targets, 1 - area / (height * width))


def _sum(array: Array, share: float) -> Array:
    """`share` of an array, and the rest of it turned round."""
    mixture: Array = array * array.dtype.type(share) + array[::-1] * array.dtype.type(1 - share)
    return mixture


def _cut(side: int, part: float, draws: Draws) -> slice:
    """A part of a side around a point that is drawn; what would lie outside is lost."""
    length, centre = int(side * part), draws.below(side)
    return slice(max(0, centre - length // 2), min(side, centre - length // 2 + length))
