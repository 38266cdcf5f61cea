"""Words in which dialects say how images are prepared.

Source: Pillow 13.0, numbers of its filters; the mean and deviation of ImageNet that torchvision and timm share.
"""

from __future__ import annotations

from conversion.dialect import Fields, Images

BILINEAR, BICUBIC = 2, 3  # as Pillow numbers its filters
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": BILINEAR, "bicubic": BICUBIC, "box": 4, "hamming": 5}
HALVES: Fields = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET: Fields = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def in_colour(options: Fields, said: str, channels: int) -> Images:
    """Options for images of three channels, or why they are not for a model."""
    if channels != 3:
        return None, f"{said} are for three channels, and it has {channels}"
    return options, said
