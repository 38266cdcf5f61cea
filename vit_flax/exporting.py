"""Models as programs without this package: StableHLO, as jax.export writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, export

from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces
from vit_core.programs import Program

_PLATFORMS = ("cpu", "cuda", "tpu")


def export_program(model: Any, folder: Path, to: str, program: Program) -> str:
    """Writes a program of a model into a folder: model.stablehlo, and its weights beside it; returns the first name.

    Args:
        model: of the class `program.model`.
        to: "stablehlo".
    """
    del to
    table = None if program.pixels is None else program.pixels.table.reshape(-1)

    def compute(weights: dict[str, Array], images: Array, *beside: Array) -> tuple[Array, ...]:
        named = dict(zip((each.name for each in program.inputs[1:]), beside, strict=True))
        pixel_values = images if table is None else _pixel_values(images, table, program)
        params = unflatten_dict(weights, sep="/")
        output = model(pixel_values, **named, **program.options, params=params)
        return program.selected(output, lambda patches: patches.mean(axis=1))

    weights = flatten_dict(model.params, sep="/")
    specs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    written = export.export(jax.jit(compute), platforms=_PLATFORMS)(specs, *_shapes(program))
    (folder / "model.stablehlo").write_bytes(written.serialize())
    arrays = {name: np.asarray(array) for name, array in weights.items()}
    write_pieces(folder / "model.safetensors", serialised(arrays, lambda size: None))
    return "model.stablehlo"


def _pixel_values(images: Array, table: Any, program: Program) -> Array:
    """(batch, channels, height, width), floating."""
    if program.pixels is not None and program.pixels.layout == "nhwc":
        images = images.transpose(0, 3, 1, 2)
    channels = jnp.arange(images.shape[1])[:, None, None]
    return jnp.asarray(table)[images.astype(jnp.int32) + 256 * channels]


def _shapes(program: Program) -> list[jax.ShapeDtypeStruct]:
    """The inputs, axes of any length as symbols."""
    patch_height, patch_width = np.broadcast_to(program.config.patch_size, 2).tolist()
    if program.size is None:
        limits = (f"height >= {patch_height}", f"width >= {patch_width}")
        batch, height, width = export.symbolic_shape("batch, height, width", constraints=limits)
        sides = {"batch": batch, "height": height, "width": width}
        sides["patches"] = (height // patch_height) * (width // patch_width)
    else:
        sides = {"batch": export.symbolic_shape("batch")[0]}
    return [
        jax.ShapeDtypeStruct([side if isinstance(side, int) else sides[side] for side in each.shape], each.dtype)
        for each in program.inputs
    ]
