"""What commands that draw share: encoders, images as they take them and as pictures again, and the file to write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conversion.auto import architecture
from vit_core.config import PretrainedConfig, pair, patch_grid
from vit_core.errors import ImageError, InputError
from vit_core.files.atomic_folder import replacing_file
from vit_core.files.targets import check_target
from vit_core.images.processor import ViTImageProcessor
from vit_core.images.sources import image_paths
from vit_core.tensors import Array
from vitriad.auto import model_class
from vitriad.classify import load_processor, read_pixels
from vitriad.engines import artefact_folder
from vitriad.models import find

ENCODERS = {"vit": "ViTModel", "vit_mae": "ViTMAEModel"}  # by model_type


def load_encoder(name_or_path: str | Path, backend: str = "auto", **options: Any) -> Any:
    """The encoder of a checkpoint without head or pooler, ready to be called; options as for `from_pretrained`.

    Raises:
        InputError: an exported program, or an encoder without weights in the file.
    """
    path = find(name_or_path)
    if artefact_folder(path):
        raise InputError(f"{name_or_path}: an exported program; give the checkpoint that it was made from.")
    config, _, _ = architecture(path, **options)
    cls = ENCODERS[config.model_type]
    parts = {"add_pooling_layer": False} if cls == "ViTModel" else {}
    same = {**options, "revision": config.hub_commit or options.get("revision")}
    return ready(model_class(cls, backend).from_pretrained(path, **parts, **same))


def ready(model: Any) -> Any:
    """A model for evaluation; of torch without gradients, so that it keeps no graph."""
    if model.framework == "pt":
        model.requires_grad_(False)
    return model


def read_images(
    names: Iterable[str],
    processor: ViTImageProcessor,
    config: PretrainedConfig,
    *,
    size: tuple[int, int] | None = None,
    expected: tuple[int, int] | None = None,
) -> Iterator[tuple[str, Array]]:
    """Path and pixel values (channels, height, width) of every image that can be used; of the others stderr gets why.

    Args:
        names: image files and folders.
        size: (height, width) in place of what the processor gives.
        expected: (height, width) that it has to give; None for the model's.

    Raises:
        InputError: a folder without images, or no image that can be used.
    """
    found = False
    for path in image_paths(names):
        try:
            pixels = read_pixels(path, processor, config, size=size, expected=expected)
        except ImageError as problem:
            print(f"vitriad: skipped: {problem}", file=sys.stderr)
            continue
        found = True
        yield path, pixels
    if not found:
        raise InputError("no image that can be used.")


def prepared(names: Iterable[str], name_or_path: str | Path, config: PretrainedConfig, given: str | None) -> Array:
    """Image files at the size of a model: (images, channels, height, width), float32.

    Args:
        names: image files and folders.
        name_or_path: the checkpoint, whose image processor prepares them.
        config: of the model.
        given: an image processor in place of the checkpoint's: folder, JSON file or "owner/name".

    Raises:
        ImageError: one that cannot be used.
        InputError: a folder without images, or nothing tells how images are prepared for the model.
    """
    processor, sides = load_processor(given, find(name_or_path), config), pair(config.image_size)
    found: Array = np.stack([read_pixels(path, processor, config, size=sides) for path in image_paths(names)])
    return found


def processed_size(processor: ViTImageProcessor, config: PretrainedConfig) -> tuple[int, int]:
    """(height, width) that an image processor gives every image, which need not be the size of the model.

    Raises:
        InputError: the size depends on the image, as without resizing, or is less than a patch.
    """
    channels = config.num_channels
    shapes = {
        processor(np.zeros((*sides, channels), np.uint8), input_data_format="channels_last")["pixel_values"][0].shape
        for sides in ((640, 480), (480, 640))
    }
    height, width = next(iter(shapes))[1:]
    if len(shapes) > 1 or min(patch_grid(config, (height, width))) < 1:
        raise InputError(
            "the image processor does not give every image one size of at least a patch.\n"
            "Pass --processor with one that does, such as ViTImageProcessor(size=224)."
        )
    return height, width


def photograph(pixels: Array, processor: ViTImageProcessor) -> Array:
    """Pixel values (channels, height, width) as the picture they were made from, (height, width, 3), uint8.

    Undoes normalisation and rescaling; values that no picture has are cut.
    """
    values = np.asarray(pixels, np.float64).transpose(1, 2, 0)
    if processor.do_normalize is not False:
        values = values * np.asarray(processor.image_std) + np.asarray(processor.image_mean)
    if processor.do_rescale is not False:
        values = values / float(processor.rescale_factor)
    picture: Array = values.clip(0, 255).round().astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[:, :, :3]


def tile_size(pixels: Array, longer: int) -> tuple[int, int]:
    """(width, height) of a tile for an image (channels, height, width) whose longer side is to have so many pixels."""
    height, width = pixels.shape[1:]
    scale = longer / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def is_resized(config: PretrainedConfig, pixels: Array) -> bool:
    """Whether an image (channels, height, width) has another size than the model's positions are for."""
    return tuple(pixels.shape[1:]) != pair(config.image_size)


def check_picture(path: str | Path, force: bool) -> None:
    """Checks, before any work, that a picture can be written.

    Raises:
        InputError: another suffix than .png, a file that is there (without `force`), or a place that is read-only.
    """
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: expected the name of a .png file.")
    check_target(path, is_folder=False, error=InputError)
    if os.path.lexists(path) and not force:
        raise InputError(f"{path}: something is there already.\n--force replaces it.")


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Writes a PNG file: the old one or the new one is there at any moment.

    Raises:
        InputError: it cannot be written.
    """
    with replacing_file(path, error=InputError) as new:
        picture.save(new, format="PNG")
