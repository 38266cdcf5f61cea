"""From what callers hand over to pictures: arrays (height, width, channels), or 8-bit PIL images of mode L or RGB.

Large PIL images that need a conversion come as `Parts`, and are converted while they are resized.

PIL modes, by what becomes of them (Pillow's own conversion unless said):

    L, RGB                  as they are; L for a processor of colours: three equal channels
    1, P, CMYK, YCbCr, HSV  L (mode 1) or RGB
    LA, PA, RGBA            without alpha: dropped, or composited on `alpha_background`
    I;16, I                 0..65535 as 0..255 with fractions; an I of at most 255 as it is
    F                       as a float array: 0..255, or 0..1

Arrays of uint16 are as I is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from vit_core.errors import ImageError
from vit_core.images.steps import PART, Parts, Picture
from vit_core.tensors import Array, framework_of, to_numpy

_logger = logging.getLogger("vitriad")
_INFERRED_CHANNELS = (1, 3)  # the channel counts that a layout is inferred from …
_ALSO_INFERRED = 4  # … and the one that is looked for where neither end has these
_ORIENTATION = 0x0112  # EXIF tag
_GRAY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "F")  # I;16 and its kin too
_SIXTEEN_BITS = 65_535
_OF_SIXTEEN_BITS = _SIXTEEN_BITS / 255


def each_image(images: Any, rank: int) -> Iterator[Any]:
    """The single images in (nested) lists, generators, and arrays of `rank` + 1 axes."""
    if isinstance(images, list | tuple | Iterator):
        for item in images:
            yield from each_image(item, rank)
    elif framework_of(images) is not None and len(images.shape) == rank + 1:
        yield from to_numpy(images)
    else:
        yield images


def is_drawn(images: Any) -> bool:
    """Whether one of them is a generator or another iterator, which yields its images one by one."""
    return isinstance(images, Iterator) or (isinstance(images, list | tuple) and any(map(is_drawn, images)))


class Read(NamedTuple):
    """One image, read.

    Attributes:
        picture: array, PIL image, or one in parts, see above.
        layout: the one it came in.
        is_spread: whether its one gray channel is still to be repeated three times (after resizing, which is cheaper).
    """

    picture: Picture | Parts
    layout: str
    is_spread: bool


def read(image: Any, layout: str | None, options: Mapping[str, Any]) -> Read:
    """One image as a picture with the channels that the options ask for.

    Raises:
        ImageError: not an image, damaged, or its channels do not fit.
    """
    if isinstance(image, Image.Image):
        wanted = 3 if options["do_convert_rgb"] else _channels_wanted(options)
        picture = _from_pil(_loaded(image), wanted, options)
        is_converted = options["do_convert_rgb"] is not False
        return Read(picture, "channels_last", is_converted and _is_gray(picture) and wanted == 3)
    array = _array(image)
    layout = layout or inferred_layout(array.shape)
    picture = _channels_last(array, layout)
    # An array with an axis of channels that nothing else depends on is taken as it is, like in the reference.
    if options["do_convert_rgb"] is False or not (options["do_normalize"] or array.ndim == 2):
        return Read(picture, layout, is_spread=False)
    wanted = _channels_wanted(options)
    if picture.shape[2] == 4:
        picture = _without_alpha(picture, wanted, options["alpha_background"])
    return Read(picture, layout, is_spread=picture.shape[2] == 1 and wanted == 3)


def _channels_wanted(options: Mapping[str, Any]) -> int | None:
    """How many channels the means and deviations are for; None where one number stands for all."""
    counts = [len(value) for value in (options["image_mean"], options["image_std"]) if isinstance(value, list)]
    return max(counts, default=None)


# --- PIL images ------------------------------------------------------------------------------------------------------


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()  # Pillow reads the file only now
    except Exception as error:  # decoders fed with damaged bytes raise nearly anything
        raise ImageError(f"the PIL image cannot be decoded: {error}.") from error
    if 0 in image.size:
        raise ImageError(f"expected at least one pixel, got height {image.height} and width {image.width}.")
    return image


def _is_gray(picture: Picture | Parts) -> bool:
    if isinstance(picture, Parts):
        picture = picture.convert(picture.image.crop((0, 0, 1, 1)))
    return picture.mode == "L" if isinstance(picture, Image.Image) else picture.shape[2] == 1


def _from_pil(image: Image.Image, wanted: int | None, options: Mapping[str, Any]) -> Picture | Parts:
    if options["do_exif_transpose"] and image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if len(image.getbands()) == wanted and image.mode in ("RGBA", "LA"):
        return np.asarray(image)  # a mean for alpha too
    if options["do_convert_rgb"] is False:
        return _as_it_is(image)
    background = options["alpha_background"]
    is_large = options["do_resize"] and image.width * image.height > PART
    convert: Callable[[Image.Image], Picture]
    if image.mode.startswith(_DEEP_MODES):
        convert = _deep(image, background)
        is_large = is_large and image.mode != "F" and not options["compatible"]
    else:
        is_clear = background is not None and image.has_transparency_data
        if image.mode in ("L", "RGB") and image.mode == _mode(image, wanted) and not is_clear:
            return image
        convert = partial(_shallow, wanted=wanted, background=background if is_clear else None)
    return Parts(image, convert) if is_large else convert(image)


def _mode(image: Image.Image, wanted: int | None) -> str:
    """What 8-bit images are converted to."""
    return "L" if image.mode in _GRAY_MODES and wanted in (None, 1, 3) else "RGB"


def _shallow(image: Image.Image, wanted: int | None, background: list[int] | None) -> Image.Image:
    """An image of 8 bits as L or RGB, over a background if there is one."""
    if background is not None:
        image = _composited(image, background)
    return _converted(image, _mode(image, wanted))


def _converted(image: Image.Image, mode: str) -> Image.Image:
    try:
        return image if image.mode == mode else image.convert(mode)
    except ValueError:
        raise ImageError(
            f"a PIL image of mode {image.mode} cannot be converted to {mode}.\nConvert it to RGB first."
        ) from None


def _as_it_is(image: Image.Image) -> Picture:
    """With do_convert_rgb=False: the channels that the image has, where these are levels of light."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("RGBA", "LA"):
        return np.asarray(image)
    if image.mode.startswith(_DEEP_MODES):
        return _deep(image, None)(image)
    raise ImageError(
        f"do_convert_rgb=False: expected a PIL image of mode L, LA, RGB, RGBA, I;16, I or F, got mode {image.mode}.\n"
        "Leave do_convert_rgb unset to have it converted."
    )


def _composited(image: Image.Image, background: list[int]) -> Image.Image:
    """The image over a plain colour; gray stays gray where the colour is."""
    over = Image.new("RGBA", image.size, (*background, 255))
    over.alpha_composite(_converted(image, "RGBA"))
    is_gray = image.mode in _GRAY_MODES and len({*background}) == 1
    return over.convert("L" if is_gray else "RGB")


def _deep(image: Image.Image, background: list[int] | None) -> Callable[[Image.Image], Array]:
    """What makes float32 numbers of an image of more than 8 bits, or of a part of it.

    They are (height, width, 1), or 3 with a background in colour.
    """
    see_through = image.info.get("transparency")  # one level, in PNG files of 16 bits
    scale = 1.0 if image.mode == "F" else _scale(image)

    def levels_of(part: Image.Image) -> Array:
        array = np.asarray(part)[:, :, None]
        levels = _check_numbers(array) if part.mode == "F" else _scaled(array, scale)
        if background is None or see_through is None:
            return levels
        colour = background[:1] if len({*background}) == 1 else background
        return np.where(array == see_through, np.array(colour, np.float32), levels)

    return levels_of


def _scale(image: Image.Image) -> float:
    """What to divide the levels by: those of 16 bits, or 1 for an I of at most 255.

    Raises:
        ImageError: they are neither.
    """
    if image.mode != "I":
        return _OF_SIXTEEN_BITS
    extrema: Any = image.getextrema()
    low, high = extrema
    if low < 0 or high > _SIXTEEN_BITS:
        raise ImageError(
            f"expected levels in 0..255 or 0..65535, got a PIL image of mode I with {low} to {high}.\n"
            "Scale it to 0..255 first."
        )
    return _OF_SIXTEEN_BITS if high > 255 else 1.0


def _scaled(array: Array, scale: float) -> Array:
    levels = array.astype(np.float32)
    if scale != 1:
        levels /= scale  # in place: these pictures may be large
    return levels


# --- arrays ----------------------------------------------------------------------------------------------------------


def _array(image: Any) -> Array:
    if isinstance(image, str | bytes | bytearray | PathLike):
        raise ImageError(
            f"expected an image, got {type(image).__name__}; no files or URLs are opened here.\n"
            "Open a file with vit_core.open_image(path)."
        )
    if framework_of(image) is None:
        raise ImageError(
            f"expected a PIL image, NumPy array or tensor of torch, TensorFlow or JAX, got {type(image).__name__}."
        )
    array = to_numpy(image)
    if array.size == 0:
        raise ImageError(f"expected at least one pixel, got shape {array.shape}.")
    if array.dtype == np.uint16 and array.max() > 255:  # 16 bits, as in PIL's mode I
        return _scaled(array, _OF_SIXTEEN_BITS)
    return _check_numbers(array)


def _check_numbers(array: Array) -> Array:
    if array.dtype.kind not in "uif":  # unsigned, int, float
        raise ImageError(f"expected uint8 or float numbers, got dtype {array.dtype}.\nConvert with .astype(np.uint8).")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("expected finite numbers, got NaN or infinity.")
    return array


def inferred_layout(shape: tuple[int, ...]) -> str:
    """The layout of an array by its shape: where the channels are, if it has any.

    Raises:
        ImageError: no axis can be that of the channels.
    """
    if len(shape) == 2:
        return "none"
    if len(shape) != 3:
        raise ImageError(
            f"expected (height, width), (channels, height, width) or (height, width, channels), got shape {shape}."
        )
    for counts in (_INFERRED_CHANNELS, (_ALSO_INFERRED,)):
        first, last = shape[0] in counts, shape[2] in counts
        if first and last:
            _logger.warning("Shape %s is read as channels first; pass input_data_format to say which it is.", shape)
        if first or last:
            return "channels_first" if first else "channels_last"
    raise ImageError(f"expected 1, 3 or 4 channels first or last, got shape {shape}.\nPass input_data_format.")


def _channels_last(array: Array, layout: str) -> Array:
    if array.ndim == 2 and layout == "none":
        return array[:, :, None]
    if layout == "none" or array.ndim != 3:
        axes = {"channels_first": "(channels, height, width)", "channels_last": "(height, width, channels)"}
        raise ImageError(
            f"expected {axes.get(layout, '(height, width)')} for {layout}, got shape {array.shape}.\n"
            "All arrays of a call have one layout; pass it as input_data_format."
        )
    return np.moveaxis(array, 0, -1) if layout == "channels_first" else array


def _without_alpha(picture: Array, wanted: int | None, background: list[int] | None) -> Array:
    """RGBA as RGB for a processor of three channels; for one that does not say, if there is a background."""
    if wanted == 3 and background is None:
        return picture[:, :, :3]
    if wanted not in (3, None) or background is None:
        return picture
    if picture.dtype != np.uint8:
        raise ImageError(f"alpha_background: expected an array of uint8, got {picture.dtype}.")
    return np.asarray(_composited(Image.fromarray(np.ascontiguousarray(picture)), background))
