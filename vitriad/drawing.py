"""Pictures of results, drawn with Pillow: tiles under labels and beside titles; the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_core.tensors import Array

PAPER, INK, REMOVED, FRAME = (250, 250, 248), (30, 30, 30), (112, 128, 168), (242, 142, 43)
GAP, MARGIN = 10, 16  # pixels: between tiles; around the sheet
_LABELS, _TITLES, _LETTERS = 44, 176, 18  # pixels: height of the labels, width of the titles, height of the letters
# Colours from low to high that rise evenly in lightness, also for eyes that see no red or no green: every eighth of
# matplotlib's viridis.
_SCALE = np.array(
    [
        *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
        *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
    ],
    np.float64,
)


def sheet(
    labels: Sequence[str], rows: Mapping[str, Sequence[Image.Image]], notes: Sequence[str] = (), titles: int = _TITLES
) -> Image.Image:
    """Rows of tiles as one picture.

    Args:
        labels: one for every column; what does not fit above its tile is shortened.
        rows: title -> tiles, all of one width, those of a row of one height. A title may have several lines.
        notes: lines under the tiles.
        titles: width of the titles in pixels.
    """
    font = ImageFont.load_default(size=_LETTERS)
    small = ImageFont.load_default(size=_LETTERS - 4)
    tile = next(iter(rows.values()))[0].width
    heights = [tiles[0].height + GAP for tiles in rows.values()]
    width = titles + len(labels) * (tile + GAP) - GAP + MARGIN
    lines = [line for note in notes for line in _wrapped(note, small, width - 2 * MARGIN)]
    bottom = _LABELS + sum(heights) - GAP + MARGIN
    page = Image.new("RGB", (width, bottom + (_LETTERS + 4) * len(lines) + (MARGIN if lines else 0)), PAPER)
    pen = ImageDraw.Draw(page)
    for column, label in enumerate(labels):
        middle = titles + column * (tile + GAP) + tile / 2
        pen.text((middle, _LABELS / 2), _fitting(label, font, tile), INK, font, anchor="mm")
    for (title, tiles), top, height in zip(rows.items(), accumulate([_LABELS, *heights[:-1]]), heights, strict=True):
        pen.multiline_text((MARGIN, top + (height - GAP) / 2), title, INK, font, anchor="lm")
        for column, each in enumerate(tiles):
            page.paste(each, (titles + column * (tile + GAP), top))
    for number, line in enumerate(lines):
        pen.text((MARGIN, bottom + (_LETTERS + 4) * number), line, INK, small)
    return page


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Pictures below one another, on a page as wide as the widest."""
    whole = Image.new("RGB", (max(each.width for each in sheets), sum(each.height for each in sheets)), PAPER)
    for each, top in zip(sheets, accumulate([0, *(each.height for each in sheets[:-1])]), strict=True):
        whole.paste(each, (0, top))
    return whole


def coloured(values: Array, low: float | None = None, high: float | None = None) -> Array:
    """Numbers as colours, dark for low ones and bright for high ones: (...) to (..., 3), uint8.

    Args:
        values: of any shape, floating; NaN gets the colour of the lowest.
        low, high: what gets the first and the last colour; None for the smallest value and for what only one value in
            a hundred exceeds, so that a few extreme ones do not make all others dark.
    """
    low = float(np.nanmin(values)) if low is None else low
    high = float(np.nanpercentile(values, 99)) if high is None else high
    shares = np.nan_to_num((values - low) / ((high - low) or 1.0)).clip(0, 1) * (len(_SCALE) - 1)
    before = np.minimum(shares.astype(int), len(_SCALE) - 2)
    part = (shares - before)[..., None]
    colours: Array = (_SCALE[before] * (1 - part) + _SCALE[before + 1] * part).round().astype(np.uint8)
    return colours


def enlarged(pixels: Array, size: tuple[int, int], smooth: bool = False) -> Image.Image:
    """An image (height, width, 3), uint8, as a tile.

    Args:
        size: (width, height) of the tile in pixels.
        smooth: interpolate; without it every pixel stays a block.
    """
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how)


def overlaid(photograph: Image.Image, values: Array) -> Image.Image:
    """A picture under a map of numbers (rows, columns): bright where they are high, dark and gray where low."""
    heat = enlarged(coloured(values), photograph.size, smooth=True)
    return Image.blend(photograph.convert("L").convert("RGB"), heat, 0.6)


def framed(tile: Image.Image, cells: Array, colour: tuple[int, int, int] = FRAME) -> Image.Image:
    """A tile with a frame around the cells (rows, columns) that are true."""
    tile, (rows, columns) = tile.copy(), cells.shape
    pen, height, width = ImageDraw.Draw(tile), tile.height / rows, tile.width / columns
    for row, column in np.argwhere(cells).tolist():
        left, top = round(column * width), round(row * height)
        pen.rectangle((left, top, round((column + 1) * width) - 1, round((row + 1) * height) - 1), outline=colour)
    return tile


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text cut in the middle until it is narrow enough."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return text[:1]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """A text as lines that are narrow enough."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
