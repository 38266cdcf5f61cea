"""The arguments of a call, checked once, at the public call: the same verdict and the same message in every backend.

Checks of shapes and dtypes look at static facts only, so they also work under jit, and cost nothing there. A side that
is not known while tracing is None, and passes. Checks of values look at arrays in the memory of the host.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np

from vit_core.config import PretrainedConfig, pair
from vit_core.errors import InputError
from vit_core.masking import num_kept
from vit_core.tensors import Array

logger = logging.getLogger("vitriad")

Side = int | None

IGNORED_LABEL = -100

_checked: ContextVar[bool] = ContextVar("checked", default=False)


class Grid:
    """The patch grid of images that were checked: what a model hands on as `interpolate_pos_encoding`.

    A model with a head checks its images once. It then calls the encoder inside it with these images and this grid, by
    an ordinary call, so that hooks, wrappers and scopes of the framework see it; and its loss takes the same two.
    Images that come with their grid are not checked again.

    Attributes:
        rows: how many patches stand one below the other: a number, or what stands for one in a traced program.
        columns: how many stand side by side.
    """

    def __init__(self, rows: Any, columns: Any) -> None:  # no tuple: Keras takes none that mixes numbers and tensors
        self.rows, self.columns = rows, columns

    @property
    def patches(self) -> Any:
        """How many there are."""
        return self.rows * self.columns


@contextmanager
def checked() -> Iterator[None]:
    """Inside this block the values of every call are checked, wherever its tensors live.

    NumPy arrays and eager tensors on the CPU are always checked; tensors on an accelerator only here, since that waits
    for the device. Compiled code cannot raise: there an out-of-range label makes the loss NaN.
    """
    token = _checked.set(True)
    try:
        yield
    finally:
        _checked.reset(token)


def is_checked() -> bool:
    """Whether the caller is inside `checked()`."""
    return _checked.get()


def images_given(model: str, value: Any) -> Any:
    """pixel_values as an array or tensor; of a whole batch (`model(batch)` for `model(**batch)`) they are taken out.

    Raises:
        InputError: no numbers: another mapping, pictures, text, or a list of tensors.
    """
    if isinstance(value, Mapping):
        if type(value).__name__ == "BatchFeature" and [*value] == ["pixel_values"]:
            return images_given(model, value["pixel_values"])
        raise InputError(
            f"{model}: pixel_values: expected an array, got a {type(value).__name__} of {', '.join(map(str, value))}.\n"
            "Write model(**inputs), with two stars."
        )
    leaf, is_list = value, False
    while isinstance(leaf, list | tuple) and leaf:
        leaf, is_list = leaf[0], True
    dtype = str(getattr(leaf, "dtype", ""))
    if is_list and not isinstance(leaf, int | float):
        advice = "Stack them to one array (batch, channels, height, width), or let the image processor do it."
    elif any(word in dtype for word in ("complex", "<U", "|S", "object")) or (not dtype and not is_list):
        advice = "Run the image processor: model(**processor(images, return_tensors=...))."
    else:
        return value
    what = f"a list of {type(leaf).__name__}" if is_list else f"{type(leaf).__name__}{f' of {dtype}' if dtype else ''}"
    raise InputError(
        f"{model}: pixel_values: expected an array or tensor of floating point numbers, got {what}.\n{advice}"
    )


def no_images(model: str) -> InputError:
    """The error for a call without images."""
    return InputError(f"{model}: pixel_values: expected images, got None.")


def check_numbers(model: str, name: str, value: Any) -> None:
    """Refuses what is no array of real numbers, whatever a framework would make of it.

    Raises:
        InputError: text, objects, complex numbers, dictionaries …
    """
    first = value
    while isinstance(first, list | tuple) and first:
        first = first[0]
    dtype = getattr(first, "dtype", None)
    if dtype is None:
        is_real = not isinstance(first, str | bytes | complex | Mapping | Set | None)
    elif isinstance(dtype, np.dtype):
        is_real = dtype.kind in "biuf" or dtype.name.startswith(("bfloat", "float"))
    else:
        is_real = not any(word in str(dtype) for word in ("complex", "string", "variant", "resource"))
    if not is_real:
        raise no_numbers(model, name, value)


def no_numbers(model: str, name: str, value: Any) -> InputError:
    """The error for an argument that no framework can make a tensor of real numbers of."""
    dtype = getattr(value, "dtype", None)
    got = type(value).__name__ + ("" if dtype is None else f" of {dtype}")
    return InputError(f"{model}: {name}: expected an array or a tensor of real numbers, got {got}.")


def check_pixel_values(
    model: str, config: PretrainedConfig, shape: Sequence[Side], *, is_float: bool, interpolate: bool
) -> bool:
    """Whether the images are channels-last.

    Args:
        model: name of the model class, for the messages.
        config: of the model.
        shape: (batch, channels, height, width) or (batch, height, width, channels). Axis 1 is compared with
            `num_channels` first, then the last axis.
        is_float: whether the dtype is a floating one.
        interpolate: whether position embeddings are resized to the images.

    Raises:
        InputError: wrong rank, channels, dtype or size.
    """
    channels, dims = config.num_channels, tuple(shape)
    if len(dims) != 4 or (dims[1] != channels and dims[3] != channels):  # `in` takes no symbol for its number
        raise InputError(
            f"{model}: pixel_values: expected (batch, {channels}, height, width) or "
            f"(batch, height, width, {channels}), got {_dims(dims)}."
        )
    if not is_float:
        raise InputError(
            f"{model}: pixel_values: expected floating point numbers, got integers.\n"
            "Run the image processor first: it rescales and normalises."
        )
    channels_last: bool = dims[1] != channels
    height, width = dims[1:3] if channels_last else dims[2:]
    _check_size(model, config, height, width, interpolate)
    return channels_last


def _check_size(model: str, config: PretrainedConfig, height: Side, width: Side, interpolate: bool) -> None:
    sides = tuple(zip((height, width), pair(config.image_size), pair(config.patch_size), strict=True))
    if interpolate and any(side is not None and side < patch for side, _, patch in sides):
        rows, columns = pair(config.patch_size)
        raise InputError(
            f"{model}: pixel_values: expected at least one patch of {rows}x{columns} pixels, got {height}x{width}."
        )
    if not interpolate and any(side is not None and side != size for side, size, _ in sides):
        rows, columns = pair(config.image_size)
        raise InputError(
            f"{model}: pixel_values: expected images of {rows}x{columns} pixels (height x width), got "
            f"{height}x{width}.\n"
            "Resize them with the image processor, or pass interpolate_pos_encoding=True."
        )


@lru_cache(maxsize=256)
def warn_unseen(size: tuple[int, int], patch: tuple[int, int]) -> None:
    """Says once per size which pixels no patch covers.

    Args:
        size: (height, width) of the images.
        patch: (height, width) of a patch.
    """
    rows, columns = (side % step for side, step in zip(size, patch, strict=True))
    if rows or columns:
        logger.warning(
            "images of %dx%d pixels in patches of %dx%d: the bottom %d rows and the right %d columns are never seen",
            *(*size, *patch, rows, columns),
        )


def check_per_patch(model: str, name: str, shape: Sequence[Side], batch: Side, patches: Side) -> None:
    """Checks an argument that has one value per patch: bool_masked_pos, noise.

    Raises:
        InputError: the shape is not (batch, patches).
    """
    dims = tuple(shape)
    if not _fits(dims, (batch, patches)):
        raise InputError(f"{model}: {name}: expected (batch, patches) = {_dims((batch, patches))}, got {_dims(dims)}.")


def check_mask_token(model: str, has_mask_token: bool) -> None:
    """Checks that a model can take bool_masked_pos.

    Raises:
        InputError: it has no mask token to put in place of patches.
    """
    if not has_mask_token:
        raise InputError(f"{model}: bool_masked_pos: this model has no mask token; build it with use_mask_token=True.")


def check_stride(model: str, config: PretrainedConfig) -> None:
    """Checks that a head which paints `encoder_stride` pixels a side can be compared with the masked patches.

    Raises:
        InputError: patches have another size.
    """
    stride = config.encoder_stride
    if pair(config.patch_size) != (stride, stride):
        raise InputError(
            f"{model}: bool_masked_pos: expected encoder_stride to equal patch_size for the loss, got {stride} and "
            f"{config.patch_size}."
        )


def check_removes(model: str, mask_ratio: float, patches: Side) -> None:
    """Checks that a masked autoencoder has something to predict.

    Raises:
        InputError: the ratio removes none of the patches, or is no ratio.
    """
    if patches is not None and num_kept(patches, mask_ratio) == patches:
        raise InputError(
            f"{model}: mask_ratio: {mask_ratio} removes none of {patches} patches, so there is no loss.\n"
            "Its encoder takes whole images: call base_model."
        )


def check_patchified(model: str, config: PretrainedConfig, shape: Sequence[Side], patches: int) -> None:
    """Checks what `unpatchify` makes images of.

    Raises:
        InputError: the shape is not (batch, patches, pixels).
    """
    dims, pixels = tuple(shape), math.prod(pair(config.patch_size)) * config.num_channels
    if not _fits(dims, (None, patches, pixels)):
        raise InputError(
            f"{model}: unpatchify: expected (batch, patches, pixels) = {_dims((None, patches, pixels))}, got "
            f"{_dims(dims)}."
        )


def check_head_mask(model: str, config: PretrainedConfig, shape: Sequence[Side]) -> None:
    """Checks head_mask: (heads,), (layers, heads), or (layers, 1 | batch, 1 | heads, 1 | tokens, 1 | tokens).

    Heads are counted as in the configuration, pruned ones included.

    Raises:
        InputError: another shape.
    """
    heads, layers, dims = config.num_attention_heads, config.num_hidden_layers, tuple(shape)
    full = [(layers, None, count, None, None) for count in (1, heads)]
    if not any(_fits(dims, wanted) for wanted in ((heads,), (layers, heads), *full)):
        raise InputError(
            f"{model}: head_mask: expected (heads,) = ({heads},), (layers, heads) = ({layers}, {heads}) or "
            f"(layers, batch, heads, tokens, tokens), got {_dims(dims)}."
        )


def check_drop_path_mask(
    model: str, config: PretrainedConfig, shape: Sequence[Side], batch: Side, *, is_bool: bool, training: bool
) -> None:
    """Checks drop_path_mask: (layers, 2, batch), bool; the layers are those of the encoder.

    Raises:
        InputError: another shape or dtype, or a call outside training, where nothing is left out.
    """
    dims, wanted = tuple(shape), (config.num_hidden_layers, 2, batch)
    if not training:
        raise InputError(
            f"{model}: drop_path_mask: expected a call in training, got one in evaluation, where nothing is left out."
        )
    if not is_bool or not _fits(dims, wanted):
        got = _dims(dims) if is_bool else f"{_dims(dims)} of another dtype"
        raise InputError(
            f"{model}: drop_path_mask: expected (layers, 2, batch) = {_dims(wanted)} of bool, got {got}.\n"
            "True leaves a branch out for an image; vit_core.masking.drop_path_mask makes one."
        )


def check_labels(model: str, config: PretrainedConfig, shape: Sequence[Side], batch: Side, *, is_float: bool) -> str:
    """The problem type of a call with labels: the config's, or the one that the labels imply.

    One class means regression; a whole number per image, in shape (batch,) or (batch, 1), means single-label
    classification; anything else means multi-label classification.

    Args:
        model: name of the model class, for the messages.
        config: of the model.
        shape: (batch,) class indices or regression targets; (batch, classes) multi-label or regression targets.
        batch: images of the call.
        is_float: whether the labels' dtype is a floating one.

    Returns:
        "regression", "single_label_classification" or "multi_label_classification".

    Raises:
        InputError: no classifier, or labels of another shape or dtype.

    Differs: the type is inferred per call and never written into the config; integers of every width are class indices.
    """
    classes, dims = config.num_labels, tuple(shape)
    if classes == 0:
        raise InputError(f"{model}: labels: this model has no classifier (num_labels is 0), so there is no loss.")
    is_index = not is_float and (len(dims) == 1 or dims[1:] == (1,))
    implied = "single_label_classification" if is_index else "multi_label_classification"
    problem: str = config.problem_type or ("regression" if classes == 1 else implied)
    if problem == "single_label_classification":
        expected: tuple[tuple[Side, ...], ...] = ((batch,), (batch, 1))
        if is_float:
            raise InputError(f"{model}: labels: expected class indices (integers) for {problem}, got floats.")
    elif problem == "regression" and classes == 1:
        expected = ((batch,), (batch, 1))
    else:
        expected = ((batch, classes),)
    if not any(_fits(dims, want) for want in expected):
        wanted = " or ".join(map(_dims, expected))
        raise InputError(f"{model}: labels: expected {wanted} for {problem} of {classes} classes, got {_dims(dims)}.")
    return problem


def check_values(model: str, **arrays: Array | None) -> None:
    """Checks the values of host arrays by the documented argument name; None is an argument that was not given.

    Raises:
        InputError: NaN or infinity, or a bool_masked_pos outside [0, 1].
    """
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype.kind not in "biu" and not _all_finite(array):
            bad = int((~np.isfinite(array.astype(np.float64))).sum())
            raise InputError(f"{model}: {name}: expected finite numbers, got {bad} of {array.size} NaN or infinite.")
        if name == "bool_masked_pos" and array.size and not (array.min() >= 0 and array.max() <= 1):
            raise InputError(f"{model}: {name}: expected values from 0 to 1, got {array.min()} to {array.max()}.")


def check_call(model: str, config: PretrainedConfig, arrays: Mapping[str, Array | None], batch: Side) -> None:
    """Checks the values of all arguments of a call by name, the labels against the classes.

    Args:
        model: name of the model class, for the messages.
        config: of the model.
        arrays: on the host; None for one whose values cannot be looked at.
        batch: images of the call.

    Raises:
        InputError: NaN or infinity, a mask outside [0, 1], or labels that are no classes.
    """
    labels = arrays.get("labels")
    check_values(model, **{name: array for name, array in arrays.items() if name != "labels"})
    if labels is None:
        return
    problem = check_labels(model, config, labels.shape, batch, is_float=labels.dtype.kind not in "biu")
    if problem == "single_label_classification":
        check_class_indices(model, labels, config.num_labels)


def check_class_indices(model: str, labels: Array, classes: int) -> None:
    """Checks the values of single-label targets.

    Raises:
        InputError: an index outside 0 … classes - 1 that is not -100, or nothing but -100.
    """
    kept = labels[labels != IGNORED_LABEL]
    if kept.size == 0:
        raise InputError(f"{model}: labels: every label is {IGNORED_LABEL} (ignored), so there is no loss to compute.")
    if kept.min() < 0 or kept.max() >= classes:
        raise InputError(
            f"{model}: labels: expected class indices from 0 to {classes - 1} (or {IGNORED_LABEL} to ignore one), "
            f"got {kept.min()} to {kept.max()}."
        )


def _all_finite(array: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=np.float64)  # one fast pass; only a sum that is not finite needs a second look
    return bool(np.isfinite(total)) or bool(np.isfinite(array.astype(np.float64)).all())


def _fits(shape: Sequence[Side], wanted: Sequence[Side]) -> bool:
    """Whether two shapes are the same, as far as their sides are known."""
    return len(shape) == len(wanted) and all(
        got is None or side is None or got == side for got, side in zip(shape, wanted, strict=True)
    )


def _dims(shape: Sequence[Side]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)}{',' if len(shape) == 1 else ''})"
