"""Where parameters go on a mesh of devices: rules for `jax.sharding.NamedSharding`, by the place in the tree.

    mesh = jax.make_mesh((2, 2), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)
    params = jax.device_put(model.params, shardings(mesh, tensor_parallel(model.params)))

Batches are split along DATA: `PartitionSpec(DATA)`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_flax.weights import Params

DATA, MODEL = "data", "model"  # axes of the mesh: images, and heads or units

# Ends of paths -> how the kernel is split: the first of two products by its columns, the second by its rows, so that
# one sum over devices is left per attention and per MLP.
_COLUMNS = (("query",), ("key",), ("value",), ("intermediate", "dense"))
_ROWS = (("output", "dense"),)


def tensor_parallel(params: Params) -> Any:
    """Attention and MLP split over MODEL, everything else on every device: a tree of PartitionSpec.

    The heads, and the units of the MLP, have to divide by the devices of MODEL.

    Source: Shoeybi et al., Megatron-LM (2019), section 3.
    """
    return unflatten_dict({path: _split(path) for path in flatten_dict(params)})


def _split(path: tuple[str, ...]) -> PartitionSpec:
    *modules, word = path
    if any(tuple(modules[-len(end) :]) == end for end in _COLUMNS):
        return PartitionSpec(None, MODEL) if word == "kernel" else PartitionSpec(MODEL)
    if any(tuple(modules[-len(end) :]) == end for end in _ROWS) and word == "kernel":
        return PartitionSpec(MODEL, None)
    return PartitionSpec()


def fully_sharded(params: Params, devices: int) -> Any:
    """Every parameter split over DATA along its longest axis that divides by the devices: a tree of PartitionSpec."""

    def split(leaf: jax.Array) -> PartitionSpec:
        shape = jnp.shape(leaf)
        axes = [axis for axis, side in enumerate(shape) if side % devices == 0 and side >= devices]
        longest = max(axes, key=lambda axis: shape[axis], default=None)
        return PartitionSpec(*(DATA if axis == longest else None for axis in range(len(shape))))

    return jax.tree.map(split, params)


def shardings(mesh: Mesh, specs: Any) -> Any:
    """The specs of a tree on a mesh, as `jax.device_put` and `jax.jit` take them."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
