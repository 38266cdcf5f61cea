"""The steps on one picture, with the arithmetic of transformers 4.57.6. A picture is (height, width, channels)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit_core.errors import ImageError
from vit_core.images.options import number, numbers
from vit_core.plain_values import short
from vit_core.tensors import Array

Picture = Array | Image.Image  # a PIL image is of mode L or RGB

_LEVELS = np.arange(256, dtype=np.uint8)
_LOOKED_UP = 2**14  # pixels at a time
PART = 2**20  # pixels that are converted at a time


class Parts(NamedTuple):
    """A large PIL image in another mode, which is converted part by part while it is resized.

    Attributes:
        image: the whole, in its own mode.
        convert: makes a picture of any part of it, pixel by pixel.
    """

    image: Image.Image
    convert: Callable[[Image.Image], Picture]


def resize(picture: Picture, sides: tuple[int, int], code: int, *, compatible: bool = False) -> Picture:
    """The picture stretched by Pillow.

    Args:
        picture: numbers in 0..255, or 0..1.
        sides: the new height and width.
        code: number of a Pillow filter.
        compatible: as the reference: floats are cut to 8 bits first, and the colours of four channels are weighted by
            the fourth.

    Returns:
        A PIL image for one; of an array uint8 for integers, float32 for floats (compatible: uint8 for whole numbers).
    """
    if isinstance(picture, Image.Image):
        return _stretched(picture, sides, code)
    if picture.dtype == np.uint8:
        return _resized_bytes(picture, sides, code, compatible)
    low, high = picture.min(), picture.max()
    is_whole = picture.dtype.kind != "f" or (compatible and _are_whole(picture))
    if low < 0 or high > 255 or (compatible and high > 1 and not is_whole):
        raise ImageError(
            f"resize: expected numbers in 0..1 or {'whole numbers in ' if compatible else ''}0..255, got {low:g} to "
            f"{high:g}.\nBring the image into one of these ranges, or pass do_resize=False."
        )
    if is_whole:
        return _resized_bytes(picture.astype(np.uint8), sides, code, compatible)
    if compatible:
        return rescale(_resized_bytes(rescale(picture, 255).astype(np.uint8), sides, code, True), 1 / 255)
    return _resized_planes(picture.astype(np.float32, copy=False), sides, code)


def resize_parts(parts: Parts, sides: tuple[int, int], code: int) -> Array:
    """As `resize` does with the converted image, which is never whole in memory: uint8, or float32 for floats.

    Pillow resizes one axis first, and rounds in between, so that rows (or columns) can be taken a few at a time.
    """
    (image, convert), (height, width) = parts, sides
    if code == Image.Resampling.NEAREST:
        return as_array(convert(image.resize((width, height), Image.Resampling.NEAREST)))
    is_width_first = image.width != width and _is_width_first(image, sides)
    side, across = image.size[::-1] if is_width_first else image.size
    step, found = max(1, PART // across), []
    for first in range(0, side, step):
        last = min(first + step, side)
        box = (0, first, image.width, last) if is_width_first else (first, 0, last, image.height)
        part_sides = (last - first, width) if is_width_first else (height, last - first)
        found.append(_resized_array(as_array(convert(image.crop(box))), part_sides, code))
    return _resized_array(np.concatenate(found, axis=0 if is_width_first else 1), sides, code)


def _resized_array(picture: Array, sides: tuple[int, int], code: int) -> Array:
    if picture.dtype == np.uint8:
        return _resized_bytes(picture, sides, code, compatible=False)
    return _resized_planes(picture, sides, code)


def _are_whole(picture: Array) -> bool:
    return bool(np.isclose(picture, picture.astype(int), rtol=1e-5, atol=1e-8).all())


def _resized_bytes(picture: Array, sides: tuple[int, int], code: int, compatible: bool) -> Array:
    channels = picture.shape[2]
    if compatible and channels > 4:
        raise ImageError(f"resize: expected 1 to 4 channels, got {channels}.\nPass do_resize=False for more.")
    if channels == 3 or (compatible and channels > 1):
        return np.asarray(_stretched(Image.fromarray(picture), sides, code))
    return _resized_planes(picture, sides, code)


def _resized_planes(picture: Array, sides: tuple[int, int], code: int) -> Array:
    resized = np.empty((*sides, picture.shape[2]), picture.dtype)
    for channel in range(picture.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(picture[:, :, channel]))  # mode L or F
        resized[:, :, channel] = np.asarray(_stretched(plane, sides, code))
    return resized


def _stretched(image: Image.Image, sides: tuple[int, int], code: int) -> Image.Image:
    """The image by Pillow, the same in all its versions.

    Differs: Pillow 13 changes the height first where it shrinks by more than twice as many pixels as the width does,
    older ones never; each rounds in between. Here it is done for all of them.
    """
    height, width = sides
    if code == Image.Resampling.NEAREST or _is_width_first(image, sides):
        return image.resize((width, height), Image.Resampling(code))
    weighted = {"LA": "La", "RGBA": "RGBa"}.get(image.mode)  # so that colours are weighted once, as in one call
    started = (image.convert(weighted) if weighted else image).resize((image.width, height), Image.Resampling(code))
    done = started.resize((width, height), Image.Resampling(code))
    return done.convert(image.mode) if weighted else done


def _is_width_first(image: Image.Image, sides: tuple[int, int]) -> bool:
    return image.height - sides[0] <= max(0, 2 * (image.width - sides[1]))


def center_crop(picture: Array, sides: tuple[int, int]) -> Array:
    """The middle of the picture, (height, width) large, with zeros around it where it is smaller than that."""
    height, width = sides
    if picture.shape[:2] == (height, width):
        return picture
    cropped = np.zeros((height, width, picture.shape[2]), picture.dtype)
    (rows, to_rows), (columns, to_columns) = _centred(picture.shape[0], height), _centred(picture.shape[1], width)
    cropped[to_rows, to_columns] = picture[rows, columns]
    return cropped


def _centred(side: int, wanted: int) -> tuple[slice, slice]:
    """Which part of a side is kept, and where it goes in the wanted side; an odd remainder is cut or padded as Source.

    Source: transformers 4.57.6, center_crop: floor of half when cutting, ceiling of half when padding.
    """
    if wanted <= side:
        start = (side - wanted) // 2
        return slice(start, start + wanted), slice(0, wanted)
    start = (wanted - side + 1) // 2
    return slice(0, side), slice(start, start + side)


def rescale(picture: Array, scale: Any) -> Array:
    """The picture times `scale`, multiplied in float64: float32."""
    return (picture.astype(np.float64) * number("rescale_factor", scale)).astype(np.float32)


def normalize(picture: Array, mean: Any, std: Any) -> Array:
    """(picture - mean) / std per channel, in the picture's own dtype; integers become float32."""
    if picture.dtype.kind != "f":
        picture = picture.astype(np.float32)
    centre = _per_channel("image_mean", mean, picture)
    spread = _per_channel("image_std", std, picture)
    if not spread.all():
        raise ImageError(f"image_std: expected numbers other than 0 (as {picture.dtype}), got {short(std)}.")
    return (picture - centre) / spread  # two roundings: multiplying by 1 / std would differ in the last bit


def _per_channel(name: str, value: Any, picture: Array) -> Array:
    per_channel = numbers(name, value)
    channels = picture.shape[2]
    if isinstance(per_channel, list) and len(per_channel) != channels:
        raise ImageError(
            f"{name}: expected one number, or one for each of {channels} channels, got {len(per_channel)}."
        )
    return np.broadcast_to(np.array(per_channel, dtype=picture.dtype), (channels,))


def rescale_and_normalize(picture: Array, options: Mapping[str, Any]) -> Array:
    """The last two steps, as far as they are switched on."""
    if options["do_rescale"]:
        picture = rescale(picture, options["rescale_factor"])
    if options["do_normalize"]:
        picture = normalize(picture, options["image_mean"], options["image_std"])
    return picture


def as_array(picture: Picture | Parts) -> Array:
    """The picture as (height, width, channels)."""
    if isinstance(picture, Parts):
        picture = picture.convert(picture.image)
    if isinstance(picture, Image.Image):
        return np.asarray(picture).reshape(picture.height, picture.width, -1)
    return picture


def planes(picture: Picture) -> Iterator[Array]:
    """Its channels, each (height, width)."""
    if isinstance(picture, Image.Image):  # Pillow takes them apart faster than NumPy
        for band in picture.getbands():
            plane = np.frombuffer(picture.tobytes("raw", band), np.uint8)
            yield plane.reshape(picture.height, picture.width)
    else:
        yield from np.moveaxis(picture, -1, 0)


def levels(channels: int, options: Mapping[str, Any]) -> Array:
    """What the last two steps make of each of the 256 levels of an 8-bit picture: (channels, 256)."""
    ramp = np.repeat(_LEVELS[:, None, None], channels, axis=2)  # (height 256, width 1, channels)
    return np.ascontiguousarray(rescale_and_normalize(ramp, options)[:, 0].T)


def look_up(levels: Array, plane: Array, into: Array) -> None:
    """Writes the numbers of the levels of a plane, both (height, width), some rows at a time.

    NumPy makes indices of eight bytes of what it looks up, which stay in the cache for this many.
    """
    rows = max(1, _LOOKED_UP // max(1, plane.shape[1]))
    for first in range(0, plane.shape[0], rows):
        levels.take(plane[first : first + rows], out=into[first : first + rows], mode="wrap")  # "raise" has a buffer
