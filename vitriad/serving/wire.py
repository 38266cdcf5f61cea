"""What the protocols of `vitriad serve` share: JSON with bounds, lists as arrays and back, images among the inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from vit_core.images.files import image_pixels
from vit_core.plain_values import short
from vit_core.tensors import Array
from vitriad.serving.batching import Arrays
from vitriad.serving.served import PIXELS, Kind, Served
from vitriad.serving.service import Service
from vitriad.web import Refusal

IMAGES = "images"  # an input beside `PIXELS`: files, or pictures (images, height, width, channels) of uint8
DTYPES: Mapping[str, np.dtype[Any]] = {  # as protocols call them
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "UINT8": np.dtype("u1"),
}
_MOST_AXES = 8


def datatype(name: str) -> str:
    """What protocols call a dtype of NumPy."""
    return next(said for said, dtype in DTYPES.items() if dtype == np.dtype(name))


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object; its size was bounded when it was received.

    Raises:
        Refusal: something else.
    """

    def no_number(text: str) -> NoReturn:
        raise ValueError(f"{text} is not JSON")

    try:
        found = json.loads(body.decode("utf-8"), parse_constant=no_number)
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is not JSON.", "bad_json") from None
    if not isinstance(found, dict):
        raise Refusal(400, "The body: expected a JSON object.", "bad_json")
    return found


def check_keys(what: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises unless all keys of an object are known: nothing is taken and ignored.

    Raises:
        Refusal: there is another one.
    """
    if wrong := [key for key in found if key not in known]:
        raise Refusal(400, f"{what}: expected some of {', '.join(known)}, got {short(wrong[0])}.")


def shape_of(name: str, given: Any, most: int) -> tuple[int, ...]:
    """The shape of a tensor of a request.

    Args:
        name: of the tensor.
        given: what the request says.
        most: numbers that it may have.

    Raises:
        Refusal: no shape, or one of more.
    """
    is_shape = isinstance(given, list) and 0 < len(given) <= _MOST_AXES
    if not is_shape or not all(type(side) is int and 0 <= side <= most for side in given):
        raise Refusal(400, f"{name}: expected a shape of 1 to {_MOST_AXES} sides, got {short(given)}.")
    if math.prod(given) > most:
        raise Refusal(413, f"{name}: a shape of more than {most} numbers.")
    return tuple(given)


def numbers(name: str, data: Any, dtype: np.dtype[Any]) -> Array:
    """Lists of numbers, in one another or flat, as an array.

    Raises:
        Refusal: something else, lists of unequal lengths, or numbers that the dtype does not have.
    """
    try:
        found = np.array(data)
    except (ValueError, OverflowError):
        found = np.array(None)
    kinds = "iu" if dtype.kind == "u" else "iuf"
    if found.dtype.kind not in kinds:
        what = "whole numbers" if dtype.kind == "u" else "numbers"
        raise Refusal(400, f"{name}: expected lists of {what}, of equal lengths.")
    if dtype.kind == "u" and found.size and (found.min() < 0 or found.max() > 255):
        raise Refusal(400, f"{name}: expected whole numbers from 0 to 255.")
    with np.errstate(over="ignore"):  # what is infinite then is refused as such
        return found.astype(dtype)


def lists(name: str, array: Array) -> Any:
    """An array as lists of numbers.

    Raises:
        Refusal: not all of them are finite, which JSON cannot say.
    """
    if not np.isfinite(array).all():
        raise Refusal(422, f"{name}: not all numbers are finite, and JSON has no others.", "not_finite")
    return array.tolist()


def settled(service: Service, served: Served, task: str, given: Mapping[str, Any]) -> tuple[Kind, Arrays]:
    """The inputs of a request as a task takes them, in a thread of `Service.answer`.

    Args:
        service: that has the model.
        served: the model.
        task: one of its tasks.
        given: by name: `IMAGES` as a list of files or as uint8, or `PIXELS`; and what else the task takes.

    Raises:
        Refusal: too many, too few or unknown inputs.
        VitError: what the model says about them.
    """
    others = [each for each in served.tasks[task].takes if each.name != PIXELS]
    names = [each.name for each in others]
    check_keys("inputs", given, [IMAGES, PIXELS, *names])
    if (IMAGES in given) == (PIXELS in given) or any(name not in given for name in names):
        also = "".join(f" and {name}" for name in names)
        raise Refusal(400, f"inputs: expected {IMAGES} or {PIXELS}{also}, got {', '.join(given) or 'none'}.")
    service.check_room(served, len(given[IMAGES] if IMAGES in given else given[PIXELS]))
    arrays: dict[str, Array] = {}
    arrays[PIXELS] = served.checked(_pixels(service, served, given), task)
    for each in others:
        want = (len(arrays[PIXELS]), *each.shape[1:])
        array = np.asarray(given[each.name])
        if array.shape != want or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise Refusal(
                422, f"{each.name}: expected finite floating numbers {want}, got {array.dtype} {array.shape}."
            )
        arrays[each.name] = array.astype(each.dtype)
    return (task, served.usual(task)), arrays


def _pixels(service: Service, served: Served, given: Mapping[str, Any]) -> Array:
    """Pixel values (images, channels, height, width) of images or as they were given."""
    if PIXELS in given:
        return np.asarray(given[PIXELS])
    images = given[IMAGES]
    if len(images) == 0:
        raise Refusal(422, f"{IMAGES}: there are none.", "bad_image")
    if isinstance(images, list):
        most = service.limits.web.image_pixels
        if sum(map(image_pixels, images)) > most:
            raise Refusal(413, f"{IMAGES}: more than {most} pixels together.")
        return np.stack([service.read(served, each) for each in images])
    channels = served.config.num_channels
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels or 0 in images.shape:
        got = f"{images.dtype} {images.shape}"
        raise Refusal(422, f"{IMAGES}: expected files, or uint8 (images, height, width, {channels}), got {got}.")
    return np.stack([served.prepared(each) for each in images])
