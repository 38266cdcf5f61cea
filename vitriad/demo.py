"""`vitriad demo`: the shipped models on digits they never saw, in every backend that is installed."""

from __future__ import annotations

import math
import shutil
from argparse import Namespace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_core.config import ViTMAEConfig, pair, patch_grid
from vit_core.errors import InputError
from vit_core.files.targets import check_target
from vit_core.images.files import open_image
from vit_core.images.processor import AutoImageProcessor
from vit_core.masking import noise
from vit_core.tensors import Array, to_numpy
from vitriad import attend
from vitriad.auto import available_backends, model_class
from vitriad.classify import load_classifier, predict, probabilities, read_pixels
from vitriad.drawing import FRAME, INK, PAPER, REMOVED, framed, sheet, stacked
from vitriad.features import Embedder
from vitriad.models import digit_files, find
from vitriad.printing import print_table
from vitriad.search import contact_sheet, nearest

SEED = 7  # of the masks
_ZOOM = 6  # pixels drawn for a pixel
_LARGE, _LINE = 12, 28  # pixels: drawn for one of a bare scan, of 8 x 8; height of a line of text under it


def run(arguments: Namespace) -> int:
    """Classifies the digits, reconstructs them from a quarter of their patches, and draws what the encoder looks at.

    Says where the pictures are.
    """
    output = Path(arguments.output)
    check_target(output, is_folder=True, error=InputError)
    (output / "digits").mkdir(parents=True, exist_ok=True)
    files = [Path(shutil.copy(file, output / "digits")) for file in digit_files()]
    enlarged = output / "digits.png"
    _classify(files, enlarged)
    picture = output / "mae-digits.png"
    _reconstruct(files[::2], picture)
    attention, alike = output / "attention-digits.png", output / "alike-digits.png"
    _look(files[6:14:2], attention)
    _compare(files, alike)
    print(f"\ndigits: {output / 'digits'}\nenlarged: {enlarged}\nreconstructions: {picture}")
    print(f"what the model looks at: {attention}\nthe most alike: {alike}")
    return 0


def _classify(files: list[Path], picture: Path) -> None:
    """Prints and draws the predictions of every backend, and says how far the backends are apart."""
    folder = find("digits-vit")
    processor = AutoImageProcessor.from_pretrained(folder)
    true = [file.name[0] for file in files]
    columns = [["file", *(file.name for file in files), "right"], ["true", *true, len(files)]]
    logits: dict[str, Array] = {}
    rows = {"the scan": [_tile(np.asarray(open_image(file)) / 127.5 - 1, zoom=_LARGE) for file in files]}
    for backend in available_backends("ViTForImageClassification"):
        model = load_classifier(folder, backend)
        logits[backend] = predict(model, np.stack([read_pixels(file, processor, model.config) for file in files]))
        scores = probabilities(logits[backend])
        labels = [model.config.id2label[best] for best in scores.argmax(axis=1).tolist()]
        cells = [f"{label} {score:6.1%}" for label, score in zip(labels, scores.max(axis=1), strict=True)]
        columns.append([backend, *cells, sum(map(str.__eq__, labels, true))])
        rows[backend] = [_word(*each) for each in zip(cells, map(str.__eq__, labels, true), strict=True)]
    print_table([*zip(*columns, strict=True)])
    halves = [
        sheet(true[half], {title: tiles[half] for title, tiles in rows.items()})
        for half in (slice(0, None, 2), slice(1, None, 2))  # one scan of every digit in each
    ]
    stacked(halves).save(picture)
    for one, other in combinations(logits, 2):
        print(f"{one} and {other}: logits differ by at most {np.abs(logits[one] - logits[other]).max():.1e}")


def _reconstruct(files: list[Path], picture: Path) -> None:
    """Draws the digits, what the encoder sees of them, and what every backend makes of that under the same mask.

    Reconstructions are pasted: the patches that the encoder saw are the scan's own, and framed.
    """
    folder = find("digits-vit-mae")
    processor, config = AutoImageProcessor.from_pretrained(folder), ViTMAEConfig.from_pretrained(folder)
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
            framed(_tile(each), ~row.reshape(patch_grid(config))) for each, row in zip(pasted, removed, strict=True)
        ]
        print(f"{backend}: mean squared error on removed patches {to_numpy(output.loss):.4f} (pixels from -1 to 1)")
    sheet([file.name[0] for file in files], rows).save(picture)


def _look(files: list[Path], picture: Path) -> None:
    """Draws what the classifier's encoder looks at, as `vitriad attend` does."""
    options = {"model": "digits-vit", "backend": "auto", "revision": None, "processor": None}
    names = [str(file) for file in files]
    shown = Namespace(images=names, out=str(picture), force=True, layer=-1, image_size=None, **options)
    attend.draw(shown)


def _compare(files: list[Path], picture: Path) -> None:
    """Draws the digits whose features are nearest to the first scan of every other digit, as `vitriad search` does."""
    embedder, names = Embedder("digits-vit"), [str(file) for file in files]
    features = embedder({"path": names})["class_token"]
    asked = [*range(0, len(files), 4)]
    found, scores = nearest(features[asked], features, 5)
    others, cosines = found[:, 1:], scores[:, 1:]  # the first is the scan itself
    contact_sheet([names[row] for row in asked], names, others, cosines).save(picture)


def _unpatchify(patches: Array, config: ViTMAEConfig) -> Array:
    """(batch, patches, pixels) -> (batch, height, width), for images of one channel."""
    (rows, columns), (height, width) = patch_grid(config), pair(config.patch_size)
    blocks = patches.reshape(-1, rows, columns, height, width)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(-1, rows * height, columns * width)


def _tile(scan: Array, is_removed: Array | None = None, zoom: int = _ZOOM) -> Image.Image:
    """One scan (height, width) from -1 to 1, enlarged, with another colour where pixels are removed."""
    gray = np.clip((scan + 1) * 127.5, 0, 255).round().astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=2)
    if is_removed is not None:
        colours[is_removed] = REMOVED
    return Image.fromarray(colours.repeat(zoom, axis=0).repeat(zoom, axis=1))


def _word(text: str, is_right: bool) -> Image.Image:
    """A prediction as a tile under its scan, framed where it is wrong."""
    tile = Image.new("RGB", (8 * _LARGE, _LINE), PAPER)
    pen = ImageDraw.Draw(tile)
    pen.text((4 * _LARGE, _LINE / 2), text, INK, ImageFont.load_default(size=16), anchor="mm")
    if not is_right:
        pen.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=FRAME, width=3)
    return tile
