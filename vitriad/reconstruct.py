"""`vitriad reconstruct`: what a masked autoencoder paints into the patches that were hidden from it."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from conversion.auto import architecture
from vit_core.config import PretrainedConfig, pair, patch_grid
from vit_core.errors import InputError
from vit_core.images.files import open_image
from vit_core.images.processor import ViTImageProcessor
from vit_core.images.sources import image_paths
from vit_core.masking import mask_noise, noise, num_kept
from vit_core.reference import patchify, unpatchify
from vit_core.tensors import Array, to_numpy
from vitriad.auto import model_class
from vitriad.classify import load_processor
from vitriad.drawing import REMOVED, enlarged, sheet
from vitriad.models import find
from vitriad.viewing import check_picture, photograph, read_images, ready, save_picture, tile_size

_TILE = 256  # pixels: the longer side of a tile
COLUMNS = ("image", "what the encoder sees", "reconstruction", "with the visible patches")
_AS_PIXELS = "The decoder paints pixel values; normalisation is undone with the image processor's mean and deviation."
_AS_NORMALISED = (
    "norm_pix_loss: the decoder paints patches of mean 0 and variance 1. Each is shown with mean and variance of the "
    "image's own patch, which of hidden ones the model did not see; the image processor's normalisation is undone too."
)


def run(arguments: Namespace) -> int:
    """Draws one row for every image; 3 if some could not be used."""
    check_picture(arguments.out, arguments.force)
    paths = list(image_paths(arguments.images))
    model = load_autoencoder(arguments.model, arguments.backend, revision=arguments.revision)
    processor = load_processor(arguments.processor, find(arguments.model), model.config, arguments.revision)
    masking = _masking(model.config, arguments)
    rows: dict[str, Sequence[Image.Image]] = {}
    errors = []
    for path, pixels in read_images(paths, processor, model.config):
        painted, removed, loss = reconstruct(model, pixels[None], **masking)
        title = path.rpartition("/")[2]
        rows[title if title not in rows else path] = tiles(pixels, painted[0], removed[0], model.config, processor)
        errors.append(f"{title}: mean squared error on removed patches {loss:.4f}")
    note = note_on_pixels(model.config)
    hidden = f"{int(removed.sum())} of {removed.size} patches are removed, {_said(arguments)}."
    save_picture(sheet(COLUMNS, rows, [hidden, note]), arguments.out)
    print("\n".join([*errors, str(arguments.out)]))
    return 0 if len(errors) == len(paths) else 3


def load_autoencoder(name_or_path: str, backend: str = "auto", **options: Any) -> Any:
    """The masked autoencoder of a checkpoint, with its decoder; options as for `from_pretrained`.

    Raises:
        InputError: a checkpoint of something else, or one without a trained decoder.
    """
    path = find(name_or_path)
    config, _, _ = architecture(path, **options)
    if config.model_type != "vit_mae":
        raise InputError(f"reconstruct: {name_or_path}: a {config.model_type}; expected a masked autoencoder, vit_mae.")
    same = {**options, "revision": config.hub_commit or options.get("revision"), "strict": False}
    model, info = model_class("ViTMAEForPreTraining", backend).from_pretrained(path, output_loading_info=True, **same)
    if missing := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise InputError(
            f"reconstruct: {name_or_path}: {missing[0]} is not in the file, so the decoder would paint noise.\n"
            "Give a checkpoint of a ViTMAEForPreTraining."
        )
    return ready(model)


def reconstruct(model: Any, pixel_values: Array, **masking: Any) -> tuple[Array, Array, float]:
    """What a masked autoencoder paints, as pixel values.

    Args:
        model: a ViTMAEForPreTraining of any backend.
        pixel_values: (batch, channels, height, width), of the model's size.
        **masking: noise (batch, patches) and mask_ratio, as its call takes them.

    Returns:
        the reconstruction (batch, channels, rows * patch height, columns * patch width), float64, with norm_pix_loss
        undone by the mean and the variance of the image's own patches; which patches were removed, (batch, patches),
        bool; and the loss.
    """
    output = model(pixel_values=pixel_values, return_dict=True, **masking)
    painted = painted_pixels(model.config, pixel_values, to_numpy(output.logits))
    return painted, to_numpy(output.mask) == 1, float(to_numpy(output.loss))


def painted_pixels(config: PretrainedConfig, pixel_values: Array, logits: Array) -> Array:
    """What `reconstruct` returns first, from what a model has returned for images."""
    patches, patch = logits.astype(np.float64), pair(config.patch_size)
    if config.norm_pix_loss:
        target = patchify(pixel_values.astype(np.float64), patch)
        mean, variance = target.mean(axis=-1, keepdims=True), target.var(axis=-1, keepdims=True, ddof=1)
        patches = patches * np.sqrt(variance + 1e-6) + mean  # as the loss normalises
    painted: Array = unpatchify(patches, patch_grid(config), patch)
    return painted


def image_losses(pixel_values: Array, painted: Array, removed: Array, config: PretrainedConfig) -> Array:
    """The loss of each image alone, (batch,), float64: what the model's would be, called with that image.

    Args:
        pixel_values: (batch, channels, height, width).
        painted, removed: what `reconstruct` returned for them.
        config: of the model.
    """
    patch = pair(config.patch_size)
    height, width = painted.shape[2:]
    target = patchify(pixel_values[:, :, :height, :width].astype(np.float64), patch)
    squares = (patchify(painted, patch) - target) ** 2
    if config.norm_pix_loss:
        squares = squares / (target.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
    losses: Array = (squares.mean(axis=-1) * removed).sum(axis=1) / removed.sum(axis=1)
    return losses


def drawn_masking(config: PretrainedConfig, seed: str, ratio: str, removed: str) -> dict[str, Any]:
    """Which patches of one image to hide, from the texts of a query: what `reconstruct` takes.

    Args:
        config: of the model.
        seed, ratio: a number each, of a mask that is drawn; the model's ratio if "".
        removed: a digit for each patch in place of that: 1 for those to hide, 0 for the others.

    Raises:
        InputError: not such texts.
    """
    patches = math.prod(patch_grid(config))
    if removed:
        if len(removed) != patches or set(removed) - set("01"):
            raise InputError(f"removed: expected {patches} digits, 0 or 1, got {len(removed)} characters.")
        drawn, share = mask_noise(np.array([[digit == "1" for digit in removed]]))
    else:
        try:
            number, share = int(seed or 0), float(ratio or config.mask_ratio)
        except ValueError:
            raise InputError("seed, ratio: expected numbers.") from None
        drawn = noise(number, 1, patches)
    count = patches - num_kept(patches, share)
    if count == 0:
        raise InputError("Nothing is hidden. Hide one patch at least.")
    # one ratio for each count: frameworks compile a program for every ratio
    return {"noise": drawn, "mask_ratio": (count - 0.5) / patches}


def pictures(
    pixels: Array, painted: Array, removed: Array, config: PretrainedConfig, processor: ViTImageProcessor
) -> tuple[Array, Array, Array, Array]:
    """An image (channels, height, width), what the encoder sees, the reconstruction, and that with the visible patches.

    Each is (height, width, 3), uint8; only whole patches are shown.
    """
    grid, patch = patch_grid(config), pair(config.patch_size)
    pixels = pixels[:, : painted.shape[1], : painted.shape[2]]
    hidden = np.kron(removed.reshape(grid), np.ones(patch, bool))  # (height, width)
    image = photograph(pixels, processor)
    pasted = photograph(np.where(hidden, painted, pixels), processor)
    masked = np.where(hidden[..., None], np.array(REMOVED, np.uint8), image)
    return image, masked, photograph(painted, processor), pasted


def note_on_pixels(config: PretrainedConfig) -> str:
    """Which statistics make pictures of what the decoder paints, in words."""
    return _AS_NORMALISED if config.norm_pix_loss else _AS_PIXELS


def read_mask(path: str, config: PretrainedConfig) -> Array:
    """A picture as a mask (patches,), bool: white pixels are removed. One pixel for each patch, or the image's size.

    Raises:
        ImageError: the file cannot be read.
        InputError: another size, or patches that are neither removed nor kept as a whole.
    """
    picture = np.asarray(open_image(path).convert("L")) > 127
    rows, columns = patch_grid(config)
    height, width = pair(config.patch_size)
    if picture.shape == (rows * height, columns * width):
        cells = picture.reshape(rows, height, columns, width).mean(axis=(1, 3))
        if not np.isin(cells, (0, 1)).all():
            raise InputError(f"{path}: a patch of {height}x{width} pixels is white in part; mask whole patches.")
        whole: Array = cells.ravel() == 1
        return whole
    if picture.shape != (rows, columns):
        raise InputError(
            f"{path}: expected a mask of {rows}x{columns} pixels, one for each patch, or {rows * height}x"
            f"{columns * width}, got {picture.shape[0]}x{picture.shape[1]}."
        )
    flat: Array = picture.ravel()
    return flat


def _masking(config: PretrainedConfig, arguments: Namespace) -> dict[str, Any]:
    """The arguments of a call on one image that settle which patches are removed."""
    patches = math.prod(patch_grid(config))
    if arguments.mask is not None:
        if arguments.mask_ratio is not None:
            raise InputError("--mask says which patches are removed, and --mask-ratio how many: give one of them.")
        drawn, ratio = mask_noise(read_mask(arguments.mask, config)[None])
        return {"noise": drawn, "mask_ratio": ratio}
    ratio = config.mask_ratio if arguments.mask_ratio is None else arguments.mask_ratio
    num_kept(patches, ratio)
    return {"noise": noise(arguments.seed, 1, patches), "mask_ratio": ratio}


def _said(arguments: Namespace) -> str:
    return f"as {arguments.mask} says" if arguments.mask is not None else f"drawn with seed {arguments.seed}"


def tiles(
    pixels: Array, painted: Array, removed: Array, config: PretrainedConfig, processor: ViTImageProcessor
) -> list[Image.Image]:
    """The four pictures of an image as tiles of one size."""
    drawn = pictures(pixels, painted, removed, config, processor)
    size = tile_size(drawn[0].transpose(2, 0, 1), _TILE)
    is_small = max(drawn[0].shape[:2]) < _TILE // 2
    return [enlarged(each, size, smooth=not is_small) for each in drawn]
