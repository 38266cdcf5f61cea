"""Augmentation of images before the processor, in uint8 by Pillow, drawn by seed, epoch and image alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vit_core.config import pair
from vit_core.errors import InputError
from vit_core.tensors import Array
from vit_core.training.draws import Draws

_TRIES = 10  # to find a crop of the drawn area and shape inside the image
_GRAY = 128  # what comes in from outside

# What RandAugment chooses from: operation -> picture, strength from -1 to 1 -> picture.
_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "solarize": lambda image, strength: ImageOps.solarize(image, 256 - round(256 * abs(strength))),
    "colour": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    "rotate": lambda image, strength: _moved(image, *_turn(30 * strength)),
    "shear_x": lambda image, strength: _moved(image, 1, 0.3 * strength, 0, 1),
    "shear_y": lambda image, strength: _moved(image, 1, 0, 0.3 * strength, 1),
    "translate_x": lambda image, strength: _moved(image, 1, 0, 0, 1, across=0.45 * strength),
    "translate_y": lambda image, strength: _moved(image, 1, 0, 0, 1, down=0.45 * strength),
}


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: crop, mirror, RandAugment, colours, erasing, in this order.

    Attributes:
        size: (height, width) of the crops, or one side.
        area: least and largest share of the image that a crop shows.
        shape: least and largest width / height of it.
        mirror: share of the images that are mirrored.
        operations: how many operations RandAugment draws for an image.
        magnitude: how strong they are, from 0 to 10.
        colour: largest change of brightness, contrast and saturation, from 0 to 1.
        erase: share of the images in which a box becomes noise.

    Raises:
        InputError: a share outside 0 to 1, or a range that is none.

    Source: the crop of Szegedy et al., Going Deeper with Convolutions (2014); Cubuk et al., RandAugment (2019), with a
    sign for each operation that has two sides; Zhong et al., Random Erasing (2017), of 2 to 33 % of the image.
    """

    size: int | tuple[int, int] = 224
    area: tuple[float, float] = (0.08, 1.0)
    shape: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.5
    operations: int = 0
    magnitude: float = 9.0
    colour: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.mirror, self.colour, self.erase, *self.area, self.magnitude / 10)
        if not all(0 <= share <= 1 for share in shares) or self.operations < 0 or min(pair(self.size)) < 1:
            raise InputError(f"Augmentation: expected shares from 0 to 1 and a magnitude up to 10, got {self}.")
        if not (0 < self.area[0] <= self.area[1] and 0 < self.shape[0] <= self.shape[1]):
            raise InputError(f"area, shape: expected a least and a largest one, got {self.area} and {self.shape}.")

    def __call__(self, pixels: Array, seed: int, epoch: int, index: int) -> Array:
        """A variation of an image.

        Args:
            pixels: (height, width, 3), or (height, width) of gray ones, uint8.
            seed: of the run.
            epoch: each shows another variation.
            index: of the image in the data.

        Returns:
            (size, size, 3) or (size, size), uint8.

        Raises:
            InputError: not such an image.
        """
        if pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2 or pixels.dtype != np.uint8 or not pixels.size:
            raise InputError(
                "Augmentation: expected (height, width, 3) or (height, width), uint8, got "
                f"{pixels.dtype} {pixels.shape}."
            )
        draws = {name: Draws(seed, name, epoch, index) for name in ("crop", "mirror", "operations", "colour", "erase")}
        image = self._crop(Image.fromarray(pixels), draws["crop"])
        if draws["mirror"].uniform() < self.mirror:
            image = ImageOps.mirror(image)
        for _ in range(self.operations):
            image = self._operation(image, draws["operations"])
        image = self._coloured(image, draws["colour"])
        return self._erased(np.array(image), draws["erase"])

    def _crop(self, image: Image.Image, draws: Draws) -> Image.Image:
        """A crop of a drawn area and shape, resized; the largest one of an allowed shape where ten draws do not fit."""
        height, width = pair(self.size)
        low, high = map(math.log, self.shape)
        for _ in range(_TRIES):
            area = image.width * image.height * draws.uniform(*self.area)
            shape = math.exp(draws.uniform(low, high))
            across, down = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < across <= image.width and 0 < down <= image.height:
                left, top = draws.below(image.width - across + 1), draws.below(image.height - down + 1)
                break
        else:
            across = min(image.width, max(1, round(image.height * self.shape[1])))
            down = min(image.height, max(1, round(image.width / self.shape[0])))
            left, top = (image.width - across) // 2, (image.height - down) // 2
        crop = image.crop((left, top, left + across, top + down))
        return crop.resize((width, height), Image.Resampling.BICUBIC)

    def _operation(self, image: Image.Image, draws: Draws) -> Image.Image:
        names = [*_OPERATIONS]
        sign = 1 if draws.uniform() < 0.5 else -1
        return _OPERATIONS[names[draws.below(len(names))]](image, sign * self.magnitude / 10)

    def _coloured(self, image: Image.Image, draws: Draws) -> Image.Image:
        if not self.colour:
            return image
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhance(image).enhance(draws.uniform(1 - self.colour, 1 + self.colour))
        return image

    def _erased(self, pixels: Array, draws: Draws) -> Array:
        if draws.uniform() >= self.erase:
            return pixels
        height, width = pixels.shape[:2]
        area, shape = (
            height * width * draws.uniform(0.02, 1 / 3),
            math.exp(draws.uniform(math.log(0.3), -math.log(0.3))),
        )
        down, across = (
            max(1, min(side, round(math.sqrt(s)))) for side, s in ((height, area / shape), (width, area * shape))
        )
        top, left = draws.below(height - down + 1), draws.below(width - across + 1)
        pixels[top : top + down, left : left + across] = draws.bytes(down, across, *pixels.shape[2:])
        return pixels


def _turn(degrees: float) -> tuple[float, float, float, float]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cosine, -sine, sine, cosine


def _moved(
    image: Image.Image, a: float, b: float, c: float, d: float, across: float = 0.0, down: float = 0.0
) -> Image.Image:
    """An image under the matrix (a, b; c, d) around its centre, and moved by shares of its sides."""
    x, y = image.width / 2, image.height / 2
    right, below = x - a * x - b * y + across * image.width, y - c * x - d * y + down * image.height
    matrix = (a, b, right, c, d, below)
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=(_GRAY,) * len(image.getbands()),
    )
