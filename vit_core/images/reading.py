"""One image as the pixel values that a model takes, or as plain levels of light before they are made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from vit_core.errors import ImageError
from vit_core.images.processor import ViTImageProcessor
from vit_core.tensors import Array

_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


def pixel_values(
    image: Image.Image | Array,
    processor: ViTImageProcessor,
    channels: int,
    *,
    size: tuple[int, int] | None = None,
    expected: tuple[int, int],
) -> Array:
    """An image as a model takes it: (channels, height, width).

    Args:
        image: opened, or an array (height, width) or (height, width, channels).
        processor: of the model.
        channels: that the model takes. One of 1 gets the luminance of colour images; one of 3 gets three equal channels
            of grayscale ones, unless its processor says do_convert_rgb=False.
        size: (height, width) to resize to in place of the processor's size; nothing is cropped then.
        expected: (height, width) that the image has to have in the end.

    Raises:
        ImageError: it cannot be prepared, or has another number of channels or size in the end.
    """
    other: Any = {} if size is None else {"size": size, "do_resize": True, "do_center_crop": False}
    pixels = _processed(image, processor, channels, **other)
    if len(pixels) != channels:
        raise ImageError(f"expected {channels} channels, got {len(pixels)}")
    if pixels.shape[1:] != expected:
        height, width = expected
        got = "x".join(map(str, pixels.shape[1:]))
        raise ImageError(f"expected {height}x{width} pixels, got {got} from an image processor that does not resize")
    return pixels


def plain_levels(image: Image.Image | Array, processor: ViTImageProcessor, channels: int) -> Array:
    """An image in its own size, converted as `pixel_values` does: (height, width), or (height, width, 3), uint8.

    Raises:
        ImageError: it cannot be prepared, or has another number of channels.
    """
    as_it_is = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    levels = np.rint(_processed(image, processor, channels, **as_it_is)).clip(0, 255).astype(np.uint8)
    if len(levels) == 1:
        gray: Array = levels[0]
        return gray if channels == 1 else np.repeat(gray[..., None], channels, axis=2)
    if len(levels) != channels:
        raise ImageError(f"expected {channels} channels, got {len(levels)}")
    return np.ascontiguousarray(levels.transpose(1, 2, 0))


def _processed(image: Image.Image | Array, processor: ViTImageProcessor, channels: int, **options: Any) -> Array:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    if channels == 1 and image.mode not in _GRAY_MODES:
        image = image.convert("L")
    convert = True if channels == 3 and processor.do_convert_rgb is None else None
    pixels: Array = processor(image, do_convert_rgb=convert, num_threads=1, **options)["pixel_values"][0]
    return pixels
