"""`vitriad search`: the images whose features are nearest to those of a picture."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vit_core.errors import ImageError, InputError
from vit_core.images.files import open_image
from vit_core.images.processor import ViTImageProcessor
from vit_core.images.sources import image_paths, source_of
from vit_core.tensors import Array
from vitriad.drawing import INK, PAPER, sheet
from vitriad.engines import artefact_folder
from vitriad.feature_files import NAMES, read_features, read_origin
from vitriad.features import KINDS, Embedder
from vitriad.identity import Origin
from vitriad.models import find
from vitriad.option_groups import running_options
from vitriad.printing import shown
from vitriad.viewing import check_picture, read_images, save_picture

_TILE = 144  # pixels: a side of a tile
_ROWS = 65_536  # features that are compared at once


def run(arguments: Namespace) -> int:
    """Prints the nearest images, and draws them if asked; 3 if some pictures could not be used."""
    if arguments.out:
        check_picture(arguments.out, arguments.force)
    names, columns = read_features(arguments.features)
    column = chosen_column(arguments.features, columns, arguments.column)
    origin = read_origin(arguments.features)
    options = {**_feature(arguments.features, column), **running_options(arguments)}
    if origin and arguments.processor is None and artefact_folder(find(arguments.model)) is None:
        options["processor"] = ViTImageProcessor.from_dict(origin.processor)
    embedder = Embedder(arguments.model, arguments.backend, **{"processor": arguments.processor, **options})
    _check_model(arguments.features, origin, embedder.origin())
    if columns[column].shape[1:] != (embedder.config.hidden_size,):
        raise InputError(
            f"{arguments.features}: {column}: rows of {columns[column].shape[1:]}, and the model gives "
            f"{embedder.config.hidden_size} numbers.\nName the model that the file was made with: --model."
        )
    given = list(image_paths(arguments.images))
    paths, asked = [], []
    for path, pixels in read_images(given, embedder.processor, embedder.config, expected=embedder.size):
        paths.append(path)
        asked.append(embedder({"pixel_values": pixels[None]})[embedder.names[0]][0])
    found, scores = nearest(np.stack(asked), columns[column], arguments.top_k)
    for path, rows, row_scores in zip(paths, found, scores, strict=True):
        _print(path, [names[row] for row in rows], row_scores, arguments.json)
    if arguments.out:
        save_picture(contact_sheet(paths, names, found, scores), arguments.out)
    return 0 if len(paths) == len(given) else 3


def nearest(asked: Array, features: Array, count: int) -> tuple[Array, Array]:
    """The rows with the largest cosine to each of some features, the nearest first; of equals the first row.

    Args:
        asked: (queries, numbers).
        features: (rows, numbers).
        count: how many, at most all rows.

    Returns:
        their numbers and cosines, (queries, count).
    """
    queries, count = _unit(asked), min(count, len(features))
    rows, scores = np.zeros((len(asked), 0), np.int64), np.zeros((len(asked), 0))
    for start in range(0, len(features), _ROWS):
        some = queries @ _unit(features[start : start + _ROWS]).T
        scores = np.concatenate([scores, some], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + some.shape[1]), some.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return rows, scores


def chosen_column(path: str, columns: dict[str, Array], asked: str | None) -> str:
    """The column to use: the one that is asked for, else the first of one row of numbers for each image.

    Raises:
        InputError: no such column, or none of this shape.
    """
    fitting = [name for name, array in columns.items() if array.ndim == 2]
    if asked is not None and asked not in fitting:
        raise InputError(f"{path}: --column: expected one of {', '.join(fitting) or 'none'}, got {asked}.")
    if not fitting:
        raise InputError(f"{path}: no column with one row of numbers for each image; embed with class_token.")
    return asked or fitting[0]


def _feature(path: str, column: str) -> dict[str, Any]:
    """The options of an `Embedder` for a column.

    Raises:
        InputError: the file does not say which feature it holds.
    """
    prefix, _, feature = column.rpartition(".")
    if feature not in KINDS:
        raise InputError(f"{path}: it does not say which feature {column} is.\nEmbed the images anew to search.")
    return {"layers": (int(prefix.removeprefix("layer_")) if prefix else -1,), "features": (feature,)}


def _check_model(path: str, origin: Origin | None, asked: Origin) -> None:
    """Says so where a file does not tell which model made it.

    Raises:
        InputError: another model made it, or the same one of images that were prepared otherwise.
    """
    if origin is None:
        print(f"vitriad: {path} does not say which model made it; it is searched with {asked.model}.", file=sys.stderr)
    elif (parts := origin.parts_from(asked)) == ["model"]:
        raise InputError(
            f"{path}: its features are of {origin}, and the pictures' would be of {asked}.\n"
            f"Name the model that made the file: --model {origin.model}"
        )
    elif parts:
        raise InputError(
            f"{path}: images were prepared otherwise for it: {', '.join(parts)}.\n"
            "Leave out --processor, or embed the images anew with it."
        )


def _unit(features: Array) -> Array:
    """Rows of length 1, float64; rows of zeros stay."""
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Array = wide / np.where(lengths > 0, lengths, 1)
    return unit


def _print(path: str, names: Sequence[str], scores: Array, as_json: bool) -> None:
    found = [{NAMES: name, "cosine": float(score)} for name, score in zip(names, scores, strict=True)]
    if as_json:
        print(json.dumps({"path": path, "nearest": found}))
        return
    print(shown(path))
    for each in found:
        print(f"  {each['cosine']:.4f}  {shown(str(each[NAMES]))}")


def contact_sheet(paths: Sequence[str], names: Sequence[str], found: Array, scores: Array) -> Image.Image:
    """A row for every picture: it, and the nearest images with their cosines."""
    rows: dict[str, list[Image.Image]] = {}
    for path, some, values in zip(paths, found, scores, strict=True):
        near = [_tile(names[row], f"{value:.3f}") for row, value in zip(some, values, strict=True)]
        title = path.rpartition("/")[2]
        rows[title if title not in rows else path] = [_tile(path, ""), *near]
    return sheet(["picture", *(f"{i + 1}." for i in range(found.shape[1]))], rows)


def _tile(name: str, text: str) -> Image.Image:
    """An image in a square, with a line of text under it; a gray square where the file is gone."""
    tile = Image.new("RGB", (_TILE, _TILE + 24), PAPER)
    try:
        picture = ImageOps.contain(open_image(source_of(name).open()).convert("RGB"), (_TILE, _TILE))
    except (ImageError, InputError):
        picture = Image.new("RGB", (_TILE, _TILE), (200, 200, 200))
    tile.paste(picture, ((_TILE - picture.width) // 2, (_TILE - picture.height) // 2))
    ImageDraw.Draw(tile).text((_TILE / 2, _TILE + 12), text, INK, ImageFont.load_default(size=15), anchor="mm")
    return tile
