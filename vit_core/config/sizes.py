"""Sizes in pixels, patches and heads, and what has to divide what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_core.config.base import PretrainedConfig

Size = int | tuple[int, int]


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size given as an int or as such a pair."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def patch_grid(config: PretrainedConfig, image_size: Size | None = None) -> tuple[int, int]:
    """(rows, columns) of whole patches in an image.

    Args:
        config: gives the patch size and, without `image_size`, the image size.
        image_size: pixels, int or (height, width).
    """
    height, width = pair(config.image_size if image_size is None else image_size)
    patch_height, patch_width = pair(config.patch_size)
    return height // patch_height, width // patch_width


def indivisible(config: PretrainedConfig, width: str, heads: str) -> Iterator[str]:
    """What is wrong, if a width is not divisible by its number of heads."""
    if getattr(config, width) % getattr(config, heads):
        yield f"{width}: expected a multiple of {heads} {getattr(config, heads)}, got {getattr(config, width)}"
