"""Draws the picture of the README from what the shipped models answer in all frameworks: `front_picture.py [FOLDER]`.

Nothing in it is typed by hand: classes, probabilities, errors and distances come from the run that draws it.
The picture is drawn twice, on a light and on a dark ground; GitHub shows the one that goes with the reader's theme.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vitriad
from vit_core.config import patch_grid
from vit_core.images.files import open_image
from vit_core.images.processor import AutoImageProcessor
from vit_core.masking import noise
from vit_core.tensors import to_numpy
from vitriad.models import digit_files, find

BACKENDS = {"torch": "PyTorch", "tf": "TensorFlow", "flax": "JAX"}
SHOWN = {21, 2, 259, 111, 117, 106, 9, 69}  # scans by their index, which ends their file name
MASK_SEED = 7

ZOOM = 9  # drawn pixels for each of the 16 x 16 that the models see; the README shows the picture at half its size
GAP, LEFT, MARGIN = 26, 290, 44  # drawn pixels: between tiles, for the titles of rows, around all
ANSWER, HEADING = 50, 82  # drawn pixels: heights of these rows
LARGE, NORMAL, SMALL = 38, 29, 27  # drawn pixels: letters
REMOVED = (112, 128, 168)
THEMES = {  # GitHub's own colours
    "light": {"paper": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "wrong": "#c44800", "line": "#d1d9e0"},
    "dark": {"paper": "#0d1117", "ink": "#f0f6fc", "quiet": "#9198a1", "wrong": "#f0883e", "line": "#3d444d"},
}


@dataclass(frozen=True)
class Answers:
    """What every framework says about the same scans."""

    true: list[str]
    scans: np.ndarray  # (batch, height, width), from -1 to 1
    masked: np.ndarray  # (batch, height, width), True where the encoder saw nothing
    classes: dict[str, list[str]]
    probabilities: dict[str, np.ndarray]  # (batch, classes)
    painted: dict[str, np.ndarray]  # (batch, height, width), from -1 to 1
    errors: dict[str, float]  # mean squared, over the removed patches

    def apart(self, values: dict[str, np.ndarray]) -> float:
        """The largest difference between any two frameworks."""
        return max(float(np.abs(values[one] - values[other]).max()) for one, other in combinations(values, 2))


def pixels_of(model: str, files: list[Path]) -> np.ndarray:
    """(batch, channels, height, width), by the image processor that comes with a model."""
    processor = AutoImageProcessor.from_pretrained(find(model))
    return np.asarray(processor([open_image(file) for file in files], return_tensors="np")["pixel_values"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """(batch, classes) -> (batch, classes), in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def asked() -> Answers:
    """Runs both models in every framework, over the same scans and under the same masks."""
    files = [file for file in digit_files() if int(file.stem[-4:]) in SHOWN]
    classes: dict[str, list[str]] = {}
    probabilities, painted, errors = {}, {}, {}
    for backend in BACKENDS:
        classifier = vitriad.AutoModelForImageClassification.from_pretrained(find("digits-vit"), backend=backend)
        probabilities[backend] = softmax(to_numpy(classifier(pixels_of("digits-vit", files)).logits))
        classes[backend] = [classifier.config.id2label[best] for best in probabilities[backend].argmax(axis=1).tolist()]

        autoencoder = vitriad.AutoModelForPreTraining.from_pretrained(find("digits-vit-mae"), backend=backend)
        scans = pixels_of("digits-vit-mae", files)
        same_noise = noise(MASK_SEED, len(files), math.prod(patch_grid(autoencoder.config)))
        output = autoencoder(scans, noise=same_noise)
        side = autoencoder.config.patch_size
        removed = to_numpy(output.mask).reshape(len(files), *patch_grid(autoencoder.config)) == 1
        masked = removed.repeat(side, axis=1).repeat(side, axis=2)
        guesses = to_numpy(autoencoder.unpatchify(output.logits))[:, 0]
        painted[backend] = np.where(masked, guesses, scans[:, 0])
        errors[backend] = float(to_numpy(output.loss))
    true = [file.name[0] for file in files]
    return Answers(true, scans[:, 0], masked, classes, probabilities, painted, errors)


def tile(scan: np.ndarray, masked: np.ndarray | None = None) -> Image.Image:
    """One scan (height, width) from -1 to 1, enlarged; removed pixels in a colour of their own."""
    gray = np.clip((scan + 1) * 127.5, 0, 255).round().astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=2)
    if masked is not None:
        colours[masked] = REMOVED
    return Image.fromarray(colours.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))


class Sheet:
    """A page that is filled from the top down."""

    def __init__(self, columns: int, side: int, theme: dict[str, str]) -> None:
        self.side, self.theme, self.top = side, theme, MARGIN
        self.image = Image.new("RGB", (MARGIN * 2 + LEFT + columns * (side + GAP) - GAP, 4000), theme["paper"])
        self.pen = ImageDraw.Draw(self.image)

    def text(self, at: tuple[float, float], words: str, size: int, colour: str, anchor: str) -> None:
        self.pen.text(at, words, self.theme[colour], ImageFont.load_default(size=size), anchor=anchor)

    def heading(self, words: str, beside: str) -> None:
        """What a block of rows is about, and one quiet line on it."""
        self.text((MARGIN, self.top + HEADING / 2), words, LARGE, "ink", "lm")
        self.text((MARGIN + LEFT, self.top + HEADING / 2), beside, SMALL, "quiet", "lm")
        self.top += HEADING

    def left(self, column: int) -> int:
        return MARGIN + LEFT + column * (self.side + GAP)

    def tiles(self, title: str, tiles: list[Image.Image]) -> None:
        """A row of pictures behind its title."""
        middle, lines = self.top + self.side / 2, title.split("\n")
        for number, line in enumerate(lines):
            height = middle + 1.25 * NORMAL * (number - (len(lines) - 1) / 2)
            self.text((MARGIN, height), line, NORMAL, "ink", "lm")
        for column, each in enumerate(tiles):
            self.image.paste(each, (self.left(column), self.top))
        self.top += self.side + GAP

    def words(self, title: str, words: list[str], is_right: list[bool]) -> None:
        """A row of short answers behind its title; wrong ones in another colour."""
        middle = self.top + ANSWER / 2 - GAP / 2
        self.text((MARGIN, middle), title, NORMAL, "ink", "lm")
        for column, (word, right) in enumerate(zip(words, is_right, strict=True)):
            self.text((self.left(column) + self.side / 2, middle), word, SMALL, "ink" if right else "wrong", "mm")
        self.top += ANSWER

    def finished(self) -> Image.Image:
        """What was filled, with a line around it."""
        page = self.image.crop((0, 0, self.image.width, self.top + MARGIN - GAP))
        ImageDraw.Draw(page).rectangle((0, 0, page.width - 1, page.height - 1), outline=self.theme["line"], width=2)
        return page.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def drawn(answers: Answers, theme: dict[str, str]) -> Image.Image:
    """The picture of the README."""
    sheet = Sheet(len(answers.true), answers.scans.shape[-1] * ZOOM, theme)
    between = answers.apart(answers.probabilities)
    sheet.heading("Classify", f"probabilities of the frameworks differ by at most {between:.0e}; in orange: wrong")
    sheet.tiles("scans that no\nmodel has seen", [tile(scan) for scan in answers.scans])
    for backend, name in BACKENDS.items():
        best = answers.probabilities[backend].max(axis=1)
        said = [f"{label}  {share:.2%}" for label, share in zip(answers.classes[backend], best, strict=True)]
        sheet.words(name, said, [*map(str.__eq__, answers.classes[backend], answers.true)])
    sheet.top += GAP
    between = answers.apart(answers.painted)
    beside = f"under one mask; pixels from -1 to 1 differ by at most {between:.0e}; loss: mean squared error"
    sheet.heading("Reconstruct", beside)
    sheet.tiles("what the\nencoder sees", [*map(tile, answers.scans, answers.masked)])
    for backend, name in BACKENDS.items():
        sheet.tiles(f"{name}\nloss {answers.errors[backend]:.5f}", [*map(tile, answers.painted[backend])])
    return sheet.finished()


def main(folder: Path) -> None:
    answers = asked()
    for name, theme in THEMES.items():
        drawn(answers, theme).save(folder / f"front-{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("pictures"))
