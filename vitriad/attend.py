"""`vitriad attend`: pictures of what a model looks at in images, and of what its features tell apart."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vit_core.config import PretrainedConfig, patch_grid
from vit_core.errors import InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.images.sources import image_paths
from vit_core.tensors import Array, to_numpy
from vitriad import explain
from vitriad.classify import load_processor
from vitriad.drawing import coloured, enlarged, overlaid, sheet, stacked
from vitriad.models import find
from vitriad.viewing import (
    check_picture,
    is_resized,
    load_encoder,
    photograph,
    processed_size,
    read_images,
    save_picture,
    tile_size,
)

_LARGE, _SMALL = 256, 104  # pixels: the longer side of the tiles above, and of the maps of layers and heads
_NOTES = (
    "rollout: how much each patch reaches the class token through all layers. features: the three directions in which "
    "the patches of all images here differ most, as red, green and blue.",
    "maps: the attention of the class token. Every map has its own scale, from dark (its lowest value) to bright (its "
    "highest, but for one patch in a hundred).",
)


def run(arguments: Namespace) -> int:
    """Draws one picture for all images, and says where; 3 if some could not be used."""
    status = draw(arguments)
    print(arguments.out)
    return status


def draw(arguments: Namespace) -> int:
    """Draws one picture for all images; 3 if some could not be used."""
    check_picture(arguments.out, arguments.force)
    paths = list(image_paths(arguments.images))
    model = load_encoder(arguments.model, arguments.backend, revision=arguments.revision)
    processor = load_processor(arguments.processor, find(arguments.model), model.config, arguments.revision)
    layer = _layer(arguments.layer, model.config.num_hidden_layers)
    found, tokens = [], []
    size, expected = arguments.image_size, processed_size(processor, model.config)
    for path, pixels in read_images(paths, processor, model.config, size=size, expected=expected):
        attentions, output = look(model, pixels)
        found.append((path, pixels, attentions))
        tokens.append(output)
    grid = patch_grid(model.config, found[0][1].shape[1:])
    colours = explain.patch_pca(np.concatenate(tokens), grid, config=model.config)
    pages = [
        _page(*each, colours[i], layer, processor, model.config, _NOTES if i == len(found) - 1 else ())
        for i, each in enumerate(found)
    ]
    save_picture(stacked(pages), arguments.out)
    return 0 if len(found) == len(paths) else 3


def look(model: Any, pixels: Array) -> tuple[list[Array], Array]:
    """What an encoder makes of an image (channels, height, width) of any size, none of it masked.

    Returns:
        the attention of every layer, (1, heads, tokens, tokens), and the output, (1, tokens, hidden).
    """
    options = {"mask_ratio": 0.0} if model.config.model_type == "vit_mae" else {}
    output = model(
        pixel_values=pixels[None],
        output_attentions=True,
        return_dict=True,
        interpolate_pos_encoding=is_resized(model.config, pixels),
        **options,
    )
    return [to_numpy(each) for each in output.attentions], to_numpy(output.last_hidden_state)


def _layer(asked: int, count: int) -> int:
    """The number of a layer, from 0; negative ones count from the end."""
    if not -count <= asked < count:
        raise InputError(f"--layer: expected 0 to {count - 1}, or -1 to {-count} from the end, got {asked}.")
    return asked % count


def _page(
    path: str,
    pixels: Array,
    attentions: Sequence[Array],
    colours: Array,
    layer: int,
    processor: ViTImageProcessor,
    config: PretrainedConfig,
    notes: Sequence[str],
) -> Image.Image:
    """One image: it, its rollout and its features; the mean map of every layer; the maps of one layer's heads."""
    grid = colours.shape[:2]
    large, small = tile_size(pixels, _LARGE), tile_size(pixels, _SMALL)
    picture = enlarged(photograph(pixels, processor), large, smooth=True)
    features = enlarged((colours * 255).round().astype(np.uint8), large)
    rollout = overlaid(picture, explain.rollout(attentions, grid, config=config)[0])
    maps = [explain.class_maps([each], grid, config=config)[0, 0] for each in attentions]  # (heads, rows, columns) each
    layers = [enlarged(coloured(heads.mean(axis=0)), small) for heads in maps]
    heads = [enlarged(coloured(each), small) for each in maps[layer]]
    return stacked(
        [
            sheet(["image", "rollout", "features"], {path.rpartition("/")[2]: [picture, rollout, features]}),
            sheet([str(i) for i in range(len(layers))], {"mean of heads,\nby layer": layers}),
            sheet([str(i) for i in range(len(heads))], {f"heads of\nlayer {layer}": heads}, notes),
        ]
    )
