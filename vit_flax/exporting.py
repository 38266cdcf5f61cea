"""Models as programs without this package: StableHLO, as jax.export writes it, and ONNX, as jax2onnx does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, export

from vit_core.config import pair
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces
from vit_core.programs import Program
from vit_flax.layers import grid_of

_PLATFORMS = ("cpu", "cuda", "tpu")


def export_program(model: Any, file: Path, to: str, program: Program) -> None:
    """Writes a program of a model; of StableHLO, beside it its weights.

    Args:
        model: of the class `program.model`.
        file: to write, in a folder that holds the program alone.
        to: "stablehlo" or "onnx".
    """

    def compute(weights: dict[str, Array], images: Array, *beside: Array) -> tuple[Array, ...]:
        named = dict(zip((each.name for each in program.inputs[1:]), beside, strict=True))
        pixel_values = _pixel_values(images, program)
        if program.model == "ViTMAEModel":  # sees every patch, so that no noise need be drawn in the program
            grid = grid_of(pixel_values, pair(program.config.patch_size))
            named["noise"] = jnp.zeros((pixel_values.shape[0], grid.patches), pixel_values.dtype)
        params = unflatten_dict(weights, sep="/")
        output = model(pixel_values, **named, **program.options, params=params)
        found = program.selected(output, lambda patches: patches.mean(axis=1))
        return tuple(each.astype(jnp.float32) if jnp.issubdtype(each.dtype, jnp.floating) else each for each in found)

    weights = flatten_dict(model.params, sep="/")
    if to == "onnx":
        _onnx(partial(compute, weights), file, program)
    else:
        _stablehlo(compute, weights, file, program)


def _stablehlo(compute: Callable[..., Any], weights: dict[str, Array], file: Path, program: Program) -> None:
    specs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    written = export.export(jax.jit(compute), platforms=_PLATFORMS)(specs, *_shapes(program))
    file.write_bytes(written.serialize())
    arrays = {name: np.asarray(array) for name, array in weights.items()}
    write_pieces(file.with_suffix(".safetensors"), serialised(arrays, lambda size: None))


def _onnx(compute: Callable[..., Any], file: Path, program: Program) -> None:
    """The weights become constants: as an argument, jax2onnx would make each of them an input."""
    from jax2onnx import to_onnx

    names = [each.name for each in program.inputs]
    to_onnx(
        compute,
        inputs=_shapes(program),
        input_names=names,
        output_names=[*program.outputs],
        return_mode="file",
        output_path=file,
    )


def _pixel_values(images: Array, program: Program) -> Array:
    """What the model takes, of the first input of a program: (batch, channels, height, width), floating."""
    if program.pixels is None:
        return images
    if program.pixels.layout == "nhwc":
        images = images.transpose(0, 3, 1, 2)
    return jnp.stack([jnp.asarray(row)[images[:, i]] for i, row in enumerate(program.pixels.table)], axis=1)


def _shapes(program: Program) -> list[jax.ShapeDtypeStruct]:
    """The inputs, axes of any length as symbols."""
    patch_height, patch_width = pair(program.config.patch_size)
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
