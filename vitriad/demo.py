"""`vitriad demo`: the shipped models on digits they never saw, in every backend that is installed."""

from __future__ import annotations

import math
import shutil
from argparse import Namespace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_core.config import AutoConfig, ViTMAEConfig, pair, patch_grid
from vit_core.image_processing import AutoImageProcessor
from vit_core.masking import noise
from vit_core.tensors import to_numpy
from vitriad.auto import available_backends, model_class
from vitriad.classify import load_classifier, predict, probabilities, read_pixels
from vitriad.cli import print_table
from vitriad.models import digit_files, find

Array = np.ndarray[Any, np.dtype[Any]]

SEED = 7  # of the masks
_ZOOM = 6  # pixels drawn for a pixel
_GAP, _LEFT, _TOP, _MARGIN = 10, 176, 44, 16  # pixels: between tiles, for the rows' titles, for the labels, around all
_PAPER, _INK, _REMOVED, _FRAME = (250, 250, 248), (30, 30, 30), (112, 128, 168), (242, 142, 43)


def run(arguments: Namespace) -> int:
    """Classifies the digits, reconstructs them from a quarter of their patches, and says where the pictures are."""
    output = Path(arguments.output)
    (output / "digits").mkdir(parents=True, exist_ok=True)
    files = [Path(shutil.copy(file, output / "digits")) for file in digit_files()]
    _classify(files)
    picture = output / "mae-digits.png"
    _reconstruct(files[::2], picture)
    print(f"\ndigits: {output / 'digits'}\nreconstructions: {picture}")
    return 0


def _classify(files: list[Path]) -> None:
    """Prints the predictions of every backend, and how far the backends are apart."""
    folder = find("digits-vit")
    processor = AutoImageProcessor.from_pretrained(folder)
    true = [file.name[0] for file in files]
    columns = [["file", *(file.name for file in files), "right"], ["true", *true, len(files)]]
    logits: dict[str, Array] = {}
    for backend in available_backends("ViTForImageClassification"):
        model = load_classifier(folder, backend)
        logits[backend] = predict(model, np.stack([read_pixels(file, processor, model.config) for file in files]))
        scores = probabilities(logits[backend])
        labels = [model.config.id2label[best] for best in scores.argmax(axis=1).tolist()]
        cells = [f"{label} {score:6.1%}" for label, score in zip(labels, scores.max(axis=1), strict=True)]
        columns.append([backend, *cells, sum(map(str.__eq__, labels, true))])
    print_table([*zip(*columns, strict=True)])
    for one, other in combinations(logits, 2):
        print(f"{one} and {other}: logits differ by at most {np.abs(logits[one] - logits[other]).max():.1e}")


def _reconstruct(files: list[Path], picture: Path) -> None:
    """Draws the digits, what the encoder sees of them, and what every backend makes of that under the same mask.

    Reconstructions are pasted: the patches that the encoder saw are the scan's own, and framed.
    """
    folder = find("digits-vit-mae")
    processor, config = AutoImageProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    pixels = np.stack([read_pixels(file, processor, config) for file in files])  # (batch, 1, height, width)
    same_noise = noise(SEED, len(files), math.prod(patch_grid(config)))
    rows = {"the scan": [_tile(scan[0]) for scan in pixels]}
    print()
    for backend in available_backends("ViTMAEForPreTraining"):
        model = model_class("ViTMAEForPreTraining", backend).from_pretrained(folder)
        output = model(pixel_values=pixels, noise=same_noise)
        removed = to_numpy(output.mask) == 1  # (batch, patches)
        painted = _unpatchify(to_numpy(output.logits), config)  # (batch, height, width)
        is_removed = _unpatchify(np.repeat(removed[..., None], math.prod(pair(config.patch_size)), axis=2), config)
        rows["what the\nencoder sees"] = [_tile(*each) for each in zip(pixels[:, 0], is_removed, strict=True)]
        pasted = np.where(is_removed, painted, pixels[:, 0])
        rows[f"reconstruction\nby {backend}\n(framed: copied)"] = [
            _framed(_tile(each), ~row, config) for each, row in zip(pasted, removed, strict=True)
        ]
        print(f"{backend}: mean squared error on removed patches {to_numpy(output.loss):.4f} (pixels from -1 to 1)")
    _sheet([file.name[0] for file in files], rows).save(picture)


def _unpatchify(patches: Array, config: ViTMAEConfig) -> Array:
    """(batch, patches, pixels) -> (batch, height, width), for images of one channel."""
    (rows, columns), (height, width) = patch_grid(config), pair(config.patch_size)
    blocks = patches.reshape(-1, rows, columns, height, width)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(-1, rows * height, columns * width)


def _tile(scan: Array, is_removed: Array | None = None) -> Image.Image:
    """One scan (height, width) from -1 to 1, enlarged, with another colour where pixels are removed."""
    gray = np.clip((scan + 1) * 127.5, 0, 255).round().astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=2)
    if is_removed is not None:
        colours[is_removed] = _REMOVED
    return Image.fromarray(colours.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1))


def _framed(tile: Image.Image, is_kept: Array, config: ViTMAEConfig) -> Image.Image:
    """The same tile with a frame around every kept patch."""
    _, columns = patch_grid(config)
    height, width = (_ZOOM * side for side in pair(config.patch_size))
    for patch in np.flatnonzero(is_kept).tolist():
        top, left = patch // columns * height, patch % columns * width
        ImageDraw.Draw(tile).rectangle((left, top, left + width - 1, top + height - 1), outline=_FRAME)
    return tile


def _sheet(labels: list[str], rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Rows of tiles under their labels and beside their titles."""
    step_x, step_y = (side + _GAP for side in next(iter(rows.values()))[0].size)
    width, height = _LEFT + len(labels) * step_x - _GAP + _MARGIN, _TOP + len(rows) * step_y - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for column, label in enumerate(labels):
        pen.text((_LEFT + column * step_x + (step_x - _GAP) / 2, _TOP / 2), label, _INK, font, anchor="mm")
    for row, (title, tiles) in enumerate(rows.items()):
        top = _TOP + row * step_y
        pen.multiline_text((_MARGIN, top + (step_y - _GAP) / 2), title, _INK, font, anchor="lm")
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (_LEFT + column * step_x, top))
    return sheet
