"""`vitriad verify`: whether two checkpoints compute the same."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

import numpy as np

from conversion.pretrained import plan
from vit_core.config import pair, patch_grid
from vit_core.errors import InputError
from vit_core.masking import noise
from vit_core.tensors import to_numpy
from vitriad.auto import model_class
from vitriad.cli import print_table, reading_options
from vitriad.models import find

_SEED = 0


def run(arguments: Namespace) -> int:
    """Prints the largest difference of every output; 1 if one is above the tolerance."""
    rows = compare(arguments.source, arguments.target, arguments.backend, arguments.image, **reading_options(arguments))
    worst = max(row["difference"] / row["scale"] for row in rows)
    is_same = bool(worst <= arguments.tolerance)  # no NaN is
    if arguments.json:
        print(json.dumps({"same": is_same, "tolerance": arguments.tolerance, "outputs": rows}))
    else:
        heads = [("output", "largest difference", "largest value")]
        print_table(heads + [(row["output"], f"{row['difference']:.2e}", f"{row['scale']:.3g}") for row in rows])
    if not is_same:
        print(
            f"vitriad: not the same: {worst:.2e} of the largest value, above {arguments.tolerance:g}", file=sys.stderr
        )
    return 0 if is_same else 1


def compare(
    src: str, dst: str, backend: str = "auto", image: str | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Every output of two checkpoints for the same image, read for the class that the first one holds.

    Args:
        src, dst: folders, weight files of any dialect, or hub names.
        backend: as for `vitriad.load`.
        image: path of an image; None for noise of the normal distribution.
        **options: as for `conversion.load`.

    Returns:
        for every output its name, the largest difference, and the largest value (at least 1e-6) of the first.

    Raises:
        InputError: the two are of different sizes.
    """
    _, config, name, fitted = plan(find(src), **options)
    options = {key: value for key, value in options.items() if key != "cls"}
    whole = {"add_pooling_layer": "pooler.dense.weight" in fitted.tensors} if name == "ViTModel" else {}
    cls = model_class(name, backend)
    models = [cls.from_pretrained(find(path), **whole, **options) for path in (src, dst)]
    if (other := models[1].config.image_size) != models[0].config.image_size:
        raise InputError(f"verify: images of {models[0].config.image_size} in one and of {other} in the other.")
    inputs = {"pixel_values": _pixels(config, src, image)}
    if config.model_type == "vit_mae":
        inputs["noise"] = noise(_SEED, 1, int(np.prod(patch_grid(config))))
    first, second = (model(**inputs) for model in models)
    rows = []
    for key in first:
        one, two = (np.asarray(to_numpy(output[key]), np.float64) for output in (first, second))
        scale = max(float(np.abs(one).max()), 1e-6)
        rows.append({"output": key, "difference": float(np.abs(one - two).max()), "scale": scale})
    return rows


def _pixels(config: Any, src: str, image: str | None) -> Any:
    """(1, channels, height, width), float32."""
    if image is None:
        shape = (1, config.num_channels, *pair(config.image_size))
        return np.random.default_rng(_SEED).standard_normal(shape).astype(np.float32)
    from vit_core.image_files import open_image
    from vit_core.image_processing import ViTImageProcessor

    height, width = pair(config.image_size)
    processor = ViTImageProcessor(size={"height": height, "width": width}, do_convert_rgb=True)
    return processor(open_image(image), return_tensors="np")["pixel_values"]
