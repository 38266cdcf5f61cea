"""Curves of numbers over the steps of a run, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from vitriad.drawing import FRAME, INK, MARGIN, PAPER, stacked

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 240, 88, 56, 40  # pixels
_COLOURS = (FRAME, (33, 114, 181), (73, 148, 78))  # of the curves of a chart, in order
_GRID = (205, 205, 200)

Curve = Sequence[tuple[float, float]]


def charts(panels: Mapping[str, Mapping[str, Curve]], below: str) -> Image.Image:
    """Charts below one another over one axis.

    Args:
        panels: title -> name of a curve -> its points (x, y), x ascending; points that are not finite are left out.
        below: what x is.
    """
    drawn = {title: {name: _finite(curve) for name, curve in curves.items()} for title, curves in panels.items()}
    xs = [x for curves in drawn.values() for curve in curves.values() for x, _ in curve]
    span = (min(xs), max(xs)) if xs else (0.0, 1.0)
    return stacked([_chart(title, curves, span, below) for title, curves in drawn.items()])


def _finite(curve: Curve) -> Curve:
    return [(x, y) for x, y in curve if math.isfinite(y)]


def _chart(title: str, curves: Mapping[str, Curve], span: tuple[float, float], below: str) -> Image.Image:
    page = Image.new("RGB", (_LEFT + _WIDTH + 2 * MARGIN, _TOP + _HEIGHT + _BOTTOM), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    ys = [y for curve in curves.values() for _, y in curve] or [0.0, 1.0]
    low, high = min(ys), max(ys)
    high = high if high > low else low + 1

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - span[0]) / ((span[1] - span[0]) or 1)
        return _LEFT + _WIDTH * across, _TOP + _HEIGHT * (1 - (y - low) / (high - low))

    for value in (low, (low + high) / 2, high):
        pen.line((*at(span[0], value), *at(span[1], value)), _GRID)
        pen.text((_LEFT - 8, at(span[0], value)[1]), f"{value:.3g}", INK, font, anchor="rm")
    pen.text((MARGIN, 24), title, INK, ImageFont.load_default(size=17), anchor="lm")
    right = _LEFT + _WIDTH
    for (name, curve), colour in reversed([*zip(curves.items(), _COLOURS, strict=False)]):
        if len(curve) > 1:
            pen.line([at(x, y) for x, y in curve], colour, width=2)
        for x, y in curve if len(curve) <= 40 else ():
            pen.ellipse((at(x, y)[0] - 3, at(x, y)[1] - 3, at(x, y)[0] + 3, at(x, y)[1] + 3), colour)
        pen.text((right, 24), name, colour, font, anchor="rm")
        right -= int(font.getlength(name)) + 20
    pen.text((_LEFT, _TOP + _HEIGHT + 20), f"{span[0]:g}", INK, font, anchor="mm")
    pen.text((_LEFT + _WIDTH, _TOP + _HEIGHT + 20), f"{span[1]:g}", INK, font, anchor="mm")
    pen.text((_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 20), below, INK, font, anchor="mm")
    return page
