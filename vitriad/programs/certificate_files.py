"""Image files as programs take them that open files themselves, for certificates."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vit_core.images.files import open_image
from vit_core.images.processor import ViTImageProcessor
from vit_core.tensors import Array

MOST = 3  # whole files
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def encoded(images: Array, form: str) -> Array:
    """Images (batch, height, width, channels), uint8, as PNG files (batch,), which keep every pixel."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return _in_form(files, form)


def decoded(files: Array, form: str) -> Array:
    """The images in files of one size: (batch, height, width, channels), uint8."""
    contents = map(base64.b64decode, files) if form == "base64" else files
    images = [np.asarray(Image.open(io.BytesIO(content))) for content in contents]
    return np.stack([image.reshape(*image.shape[:2], -1) for image in images])


def whole_files(pictures: Sequence[str | Path], form: str) -> tuple[list[str | Path], Array]:
    """Up to three of some pictures that TensorFlow opens too, and what is in them."""
    chosen = [picture for picture in pictures if Path(picture).suffix.lower() in _SUFFIXES][:MOST]
    return chosen, _in_form([Path(picture).read_bytes() for picture in chosen], form)


def prepared(pictures: Sequence[str | Path], processor: ViTImageProcessor, channels: int) -> Array:
    """The same files as Pillow and the processor prepare them: (batch, channels, height, width), float32."""
    images = [open_image(picture).convert("L" if channels == 1 else "RGB") for picture in pictures]
    found: Array = processor(images, return_tensors="np")["pixel_values"]
    return found.astype(np.float32)


def _in_form(contents: list[bytes], form: str) -> Array:
    """As bytes of a fixed length, for .npz; no file of these formats ends with a zero that would be lost."""
    return np.array([base64.b64encode(each) for each in contents] if form == "base64" else contents, np.bytes_)
