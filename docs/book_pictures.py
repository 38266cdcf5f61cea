"""Draws the pictures of the guides and explanations: `book_pictures.py [FOLDER]`.

Everything in them is computed here by vitriad itself, without a framework: photographs by the image processor, masked
autoencoders by the float64 reference, position tables by the matrices that every backend uses. Errors come from the
tables of reference/parity.md. Each picture is drawn twice, on a light and on a dark ground.

The photograph, pictures/coffee.jpg, is Rachel Michetti's (CC0), as scikit-image ships it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import conversion
from vit_core import ViTImageProcessor, open_image
from vit_core.config import patch_grid
from vit_core.masking import noise
from vit_core.positions import resize_matrix
from vit_core.reference import forward, unpatchify
from vitriad.models import digit_files, find

DOCS = Path(__file__).parent
PHOTO = DOCS / "pictures" / "coffee.jpg"
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
GRID, PATCH = 14, 16  # of the photograph in the explanation of masked autoencoders
MASK_SEED = 4

# Drawn pixels; pages show the pictures at half their size.
GAP, MARGIN, LINE = 28, 36, 32
LETTERS = 25
PANELS = {  # groups of tests/benchmarks
    "growth": "time by tokens, ViT-B",
    "growth-batch": "time by batch, ViT-S",
    "growth-depth": "time by layers, ViT-S",
    "growth-memory": "memory by tokens, ViT-S",
    "growth-images": "image processor by side",
    "growth-tensors": "64 MB in more tensors",
}
REMOVED = (112, 128, 168)
THEMES = {  # GitHub's own colours, as in front_picture.py
    "light": {
        "paper": "#ffffff",
        "ink": "#1f2328",
        "quiet": "#59636e",
        "wrong": "#c44800",
        "line": "#d1d9e0",
        "other": "#0969da",
        "core": "#8250df",
    },
    "dark": {
        "paper": "#0d1117",
        "ink": "#f0f6fc",
        "quiet": "#9198a1",
        "wrong": "#f0883e",
        "line": "#3d444d",
        "other": "#58a6ff",
        "core": "#bc8cff",
    },
}
Theme = dict[str, str]
Tile = tuple[str, Image.Image]


def font(size: int = LETTERS) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The one that Pillow brings: the same on every machine."""
    return ImageFont.load_default(size=size)


def sheet(rows: Iterable[list[Tile]], theme: Theme) -> Image.Image:
    """Rows of pictures, each with its caption below."""
    rows = [[(caption, tile, room(caption, tile)) for caption, tile in row] for row in rows]
    width = max(sum(across + GAP for *_, across in row) for row in rows) - GAP + 2 * MARGIN
    page = Image.new("RGB", (width, 6000), theme["paper"])
    pen, top = ImageDraw.Draw(page), MARGIN
    for row in rows:
        left, lines = MARGIN, max(caption.count("\n") + 1 for caption, *_ in row)
        height = max(tile.height for _, tile, _ in row)
        for caption, tile, across in row:
            page.paste(tile, (left, top + (height - tile.height) // 2))
            for number, line in enumerate(caption.split("\n")):
                colour = theme["ink"] if number == 0 else theme["quiet"]
                pen.text((left, top + height + 12 + number * LINE), line, colour, font())
            left += across + GAP
        top += height + 12 + lines * LINE + GAP
    return framed(page.crop((0, 0, width, top + MARGIN - GAP)), theme)


def room(caption: str, tile: Image.Image) -> int:
    """The width of a picture or of its caption, whichever is larger."""
    return max(tile.width, *(math.ceil(font().getlength(line)) for line in caption.split("\n")))


def framed(page: Image.Image, theme: Theme) -> Image.Image:
    """With a line around it, in few colours, so that the file is small."""
    ImageDraw.Draw(page).rectangle((0, 0, page.width - 1, page.height - 1), outline=theme["line"], width=2)
    return page.quantize(192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)


def seen(image: Image.Image, **options: Any) -> Image.Image:
    """What the image processor makes of a picture, as a picture."""
    pixels = ViTImageProcessor(**options)(image, data_format="channels_last", return_tensors="np")["pixel_values"]
    levels = np.clip((np.asarray(pixels)[0] + 1) * 127.5, 0, 255).round()  # from -1 to 1
    return Image.fromarray(levels.astype(np.uint8).squeeze()).convert("RGB")


def enlarged(image: Image.Image, times: int) -> Image.Image:
    """Every pixel as a square."""
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST).convert("RGB")


# guides/images.md


def sizes(theme: Theme) -> Image.Image:
    """What happens to a picture that is wider than high."""
    photo = open_image(PHOTO)
    shown = photo.resize((504, 336))
    return sheet(
        [
            [
                ("the photograph\n600 x 400", shown),
                ("size=224\nstretched", seen(photo, size=224).resize((336, 336))),
                (
                    "size=(256, 384), do_center_crop=True\ncrop_size=224: the middle, not stretched",
                    seen(photo, size=(256, 384), do_center_crop=True, crop_size=224).resize((336, 336)),
                ),
            ]
        ],
        theme,
    )


def filters(theme: Theme) -> Image.Image:
    """The six filters of Pillow, shrinking the cup to 28 pixels."""
    cup = open_image(PHOTO).crop((180, 40, 460, 320))
    tiles = [
        (f"resample={code}\n{name}", enlarged(seen(cup, size=28, resample=code), 7)) for code, name in FILTERS.items()
    ]
    return sheet([tiles], theme)


def modes(theme: Theme) -> Image.Image:
    """Pictures that lie on their side, that are transparent, that are gray."""
    cup = open_image(PHOTO).crop((180, 40, 460, 320))
    turned = cup.rotate(90, expand=True)
    turned.getexif()[0x0112] = 6  # the camera was turned
    ring = np.hypot(*(np.mgrid[:280, :280] - 140)) < 130
    cut_out = cup.copy()
    cut_out.putalpha(Image.fromarray((ring * 255).astype(np.uint8)))
    side = {"size": 224}
    return sheet(
        [
            [
                ("taken with the camera on its side\ndo_exif_transpose unset", seen(turned, **side)),
                ("the same\ndo_exif_transpose=True", seen(turned, do_exif_transpose=True, **side)),
            ],
            [
                ("a transparent picture\nalpha_background unset", seen(cut_out, **side)),
                (
                    "the same\nalpha_background=(255, 255, 255)",
                    seen(cut_out, alpha_background=(255, 255, 255), **side),
                ),
                (
                    "a gray picture\nimage_mean=[0.5], image_std=[0.5]",
                    seen(cup.convert("L"), image_mean=[0.5], image_std=[0.5], **side),
                ),
            ],
        ],
        theme,
    )


# explanation/masked-autoencoders.md


def patches(theme: Theme) -> Image.Image:
    """A photograph in patches, most of them removed, and what is left."""
    pixels = np.array(seen(open_image(PHOTO), size=(224, 336), do_center_crop=True, crop_size=224))
    cut = pixels.reshape(GRID, PATCH, GRID, PATCH, 3).swapaxes(1, 2)  # (row, column, height, width, channels)
    order = noise(MASK_SEED, 1, GRID * GRID)[0].argsort(kind="stable")
    kept = np.sort(order[: GRID * GRID // 4])
    removed = np.ones(GRID * GRID, bool)
    removed[kept] = False
    masked = cut.copy()
    masked[removed.reshape(GRID, GRID)] = REMOVED
    side = GRID // 2
    tiles = [
        ("196 patches", spaced(cut, theme)),
        ("three of four removed at random", spaced(masked, theme)),
        (
            "what the encoder gets:\n49 patches, and where each one was",
            spaced(cut.reshape(-1, PATCH, PATCH, 3)[kept].reshape(side, side, PATCH, PATCH, 3), theme),
        ),
    ]
    return sheet([tiles], theme)


def spaced(cut: np.ndarray, theme: Theme, zoom: int = 2, space: int = 4) -> Image.Image:
    """Patches (rows, columns, height, width, channels) with room between them."""
    rows, columns, height, width, _ = cut.shape
    page = Image.new(
        "RGB", (columns * (width * zoom + space) - space, rows * (height * zoom + space) - space), theme["paper"]
    )
    for row in range(rows):
        for column in range(columns):
            tile = enlarged(Image.fromarray(cut[row, column]), zoom)
            page.paste(tile, (column * (tile.width + space), row * (tile.height + space)))
    return page


def reconstructed(theme: Theme) -> Image.Image:
    """Held-out digits with less and less of them shown, and what the model that comes along paints."""
    config, tensors, _ = conversion.load(find("digits-vit-mae"))
    files = digit_files()[4:20:3]
    processor = ViTImageProcessor.from_pretrained(find("digits-vit-mae"))
    scans = np.asarray(processor([open_image(file) for file in files], return_tensors="np")["pixel_values"])
    grid = patch_grid(config)
    rows = [[("what was held out", pictured(scans[:, 0]))]]
    for ratio in (0.5, 0.75, 0.875):
        found = forward(
            "ViTMAEForPreTraining",
            config,
            tensors,
            scans,
            noise=noise(MASK_SEED, len(files), math.prod(grid)),
            mask_ratio=ratio,
        )
        painted = unpatchify(found["logits"], grid, (config.patch_size, config.patch_size))[:, 0]
        removed = (
            found["mask"].reshape(len(files), *grid).repeat(config.patch_size, 1).repeat(config.patch_size, 2) == 1
        )
        answer = pictured(np.where(removed, painted, scans[:, 0]))
        rows.append(
            [
                (f"mask_ratio={ratio}", pictured(scans[:, 0], removed)),
                (f"painted; loss {float(found['loss']):.3f}", answer),
            ]
        )
    return sheet(rows, theme)


def pictured(scans: np.ndarray, removed: np.ndarray | None = None) -> Image.Image:
    """Scans (batch, height, width) from -1 to 1 side by side."""
    gray = np.clip((scans + 1) * 127.5, 0, 255).round().astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=-1)
    if removed is not None:
        colours[removed] = REMOVED
    return enlarged(
        Image.fromarray(
            np.concatenate([*np.pad(colours, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=128)], axis=1)
        ),
        7,
    )


# explanation/positions.md


def positions(theme: Theme) -> Image.Image:
    """A table of 4 x 4 places made one of 6 x 8 by a matrix on either side."""
    _, tensors, _ = conversion.load(find("digits-vit"))
    table = np.asarray(tensors["vit.embeddings.position_embeddings"], np.float64)[0, 1:, 11].reshape(4, 4)
    rows, columns = resize_matrix(4, 6), resize_matrix(4, 8)
    tiles = [
        ("rows: 6 x 4", heat(rows)),
        ("the table: 4 x 4", heat(table)),
        ("columns: 4 x 8", heat(columns.T)),
        ("the new table: 6 x 8", heat(rows @ table @ columns.T)),
    ]
    return sheet([tiles], theme)


def heat(values: np.ndarray, zoom: int = 44) -> Image.Image:
    """Numbers as colours: blue below zero, white at zero, orange above."""
    share = np.clip(values / np.abs(values).max(), -1, 1)[..., None]
    low, high = np.array([48, 96, 176]), np.array([214, 110, 30])
    colours = 245 + np.where(share < 0, -share * (low - 245), share * (high - 245))
    return enlarged(Image.fromarray(colours.round().astype(np.uint8)), zoom)


# explanation/parity.md


def errors(theme: Theme) -> Image.Image:
    """Where rounding ends and mistakes begin, in float64 and in float32: every planted fault is a dot."""
    text = (DOCS / "reference" / "parity.md").read_text(encoding="utf-8")
    table = text.partition("<!-- faults -->")[2].partition("<!-- end of faults -->")[0]
    faults = [float(number) for number in re.findall(r", (\d+e[+-]\d+)", table)]
    rows = re.findall(r"^\| \w+ \| (float64|float32) \| (\S+) \| (\S+) \| (\S+) \|", text, flags=re.MULTILINE)
    rounding = {
        dtype: [float(x) for each, *found in rows if each == dtype for x in found] for dtype in ("float64", "float32")
    }
    page = Image.new("RGB", (1640, 500), theme["paper"])
    pen = ImageDraw.Draw(page)
    for top, dtype, rung in ((70, "float64", 1e-10), (270, "float32", 1e-5)):
        pen.text((MARGIN, top), dtype, theme["ink"], font(30))
        pen.line((at(rung), top - 10, at(rung), top + 120), theme["wrong"], 4)
        pen.text((at(rung), top + 122), f"tolerance {rung:.0e}", theme["wrong"], font(22), anchor="ma")
        dots(pen, rounding[dtype], top + 60, theme["quiet"])
        dots(pen, faults, top + 60, theme["ink"])
    for power in range(-16, 1, 2):
        pen.text((at(10.0**power), 455), f"1e{power}", theme["quiet"], font(22), anchor="mm")
    pen.text((at(1e-15), 60), "rounding", theme["quiet"], font(22), anchor="mb")
    pen.text((at(1e-2), 60), "mistakes, planted one at a time", theme["quiet"], font(22), anchor="mb")
    return framed(page, theme)


def at(error: float) -> float:
    """The place of an error on the line."""
    return 220 + (math.log10(error) + 16) / 16.6 * 1360


def dots(pen: ImageDraw.ImageDraw, values: list[float], top: float, colour: str) -> None:
    """A dot for each value, those of one value above one another."""
    for value in sorted({*values}):
        for number in range(min(values.count(value), 12)):
            x, y = at(value), top + 40 - number * 9
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), colour)


# reference/benchmarks.md


def growth(theme: Theme) -> Image.Image:
    """Time and memory by size, each in a panel with two logarithmic axes: the floor, and ours."""
    groups = json.loads((DOCS.parent / "tests" / "benchmarks" / "growth.json").read_text())["groups"]
    colours = {
        "vit_torch": theme["wrong"],
        "vit_tf": theme["ink"],
        "vit_flax": theme["other"],
        "vit_core": theme["core"],
    }
    rows, (across, down) = -(-len(groups) // 3), (560, 440)
    page = Image.new("RGB", (3 * across + 24, rows * down + 60), theme["paper"])
    for i, (name, group) in enumerate(groups.items()):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in group["rows"]:
            size = float(re.sub(r"\D", "", row["case"].partition(" x ")[0]))
            lines.setdefault(row["what"], []).append((size, row["value"]))
        corner = (i % 3 * across, i // 3 * down)
        ours = {what: colours.get(what, theme["core"]) for what in lines}
        floor = next(row["what"] for row in group["rows"] if row["role"] == "floor")
        panel(ImageDraw.Draw(page), corner, PANELS[name], lines, {**ours, floor: theme["quiet"]}, theme)
    pen, left = ImageDraw.Draw(page), MARGIN + 60
    for what, colour in {"floor": theme["quiet"], **colours}.items():
        pen.line((left, rows * down + 30, left + 50, rows * down + 30), colour, 5)
        pen.text((left + 62, rows * down + 30), what, theme["ink"], font(24), anchor="lm")
        left += 240
    return framed(page, theme)


def panel(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    title: str,
    lines: dict[str, list[tuple[float, float]]],
    colours: Theme,
    theme: Theme,
) -> None:
    """One panel: lines through (size, value), with their smallest and largest on the axes."""
    left, top, right, bottom = corner[0] + 120, corner[1] + 70, corner[0] + 530, corner[1] + 370
    points = np.log([point for line in lines.values() for point in line])
    low, high = points.min(axis=0), points.max(axis=0)
    places = {
        what: [
            (left + (right - left) * x, bottom - (bottom - top) * y)
            for x, y in (np.log(line) - low) / np.maximum(high - low, 1e-9)
        ]
        for what, line in lines.items()
    }
    pen.text((left, top - 40), title, theme["ink"], font(26), anchor="lm")
    pen.line((left, top, left, bottom, right, bottom), theme["line"], 3)
    for what, line in places.items():
        pen.line(line, colours[what], 4)
        for x, y in line:
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), colours[what])
    (first, least), (last, most) = np.exp(low), np.exp(high)
    pen.text((left, bottom + 12), f"{first:,.0f}", theme["quiet"], font(22), anchor="ma")
    pen.text((right, bottom + 12), f"{last:,.0f}", theme["quiet"], font(22), anchor="ma")
    large, unit = (1e9, "GB") if most > 1e4 else (1, "s")  # no time takes so many seconds
    for value, y in ((least, bottom), (most, top)):
        text = (
            f"{value / large:.3g} {unit}" if value >= large else f"{value / large * 1e3:.3g} m{unit}".replace("mG", "M")
        )
        pen.text((left - 10, y), text, theme["quiet"], font(22), anchor="rm")


PICTURES: dict[str, Callable[[Theme], Image.Image]] = {
    "images-sizes": sizes,
    "images-filters": filters,
    "images-modes": modes,
    "mae-patches": patches,
    "mae-digits": reconstructed,
    "positions": positions,
    "errors": errors,
    "growth": growth,
}


def main(folder: Path) -> None:
    """Every picture, for light pages and for dark ones."""
    for name, drawn in PICTURES.items():
        for theme, colours in THEMES.items():
            drawn(colours).save(folder / f"{name}-{theme}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else DOCS / "pictures")
