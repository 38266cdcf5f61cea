"""Where parameters go on a mesh of devices: rules for `jax.sharding.NamedSharding`, by the place in the tree.

    mesh = jax.make_mesh((2, 2), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)
    params = jax.device_put(model.params, shardings(mesh, tensor_parallel(model.params)))

Batches are split along DATA: `PartitionSpec(DATA)`. `vit_flax.training.TrainStep(model, mesh=data_mesh())` does so.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_core.errors import BackendError, InputError
from vit_core.tensors import to_numpy
from vit_core.training import TrainingBatch
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


# --- what a step of training needs -----------------------------------------------------------------------------------


def data_mesh(devices: int | None = None) -> Mesh:
    """A mesh of so many devices, of all processes, along DATA; None for all that there are.

    Raises:
        BackendError: there are not so many.
    """
    found = jax.devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise BackendError(
            f"devices: expected 1 to {len(found)}, which is what JAX has ({found[0].platform}), got {devices}.\n"
            "On a CPU, JAX_NUM_CPU_DEVICES=N makes N of it, before JAX starts."
        )
    return jax.make_mesh((devices or len(found),), (DATA,), axis_types=(AxisType.Auto,), devices=found[:devices])


def check_mesh(mesh: Mesh) -> None:
    """Checks that a mesh can split batches.

    Raises:
        InputError: it has no axis DATA, or one whose sharding is a matter of types.
    """
    axes = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if axes.get(DATA) != AxisType.Auto:
        got = ", ".join(f"{name} ({kind.name})" for name, kind in axes.items())
        raise InputError(
            f"mesh: expected an axis {DATA!r} of type Auto, got {got}.\nvit_flax.sharding.data_mesh makes one."
        )


def state_places(mesh: Mesh, state: Any, *, sharded: bool) -> Any:
    """Where the leaves of a state go: on every device, or a share of each on every one."""
    specs = fully_sharded(state, mesh.shape[DATA]) if sharded else jax.tree.map(lambda _: PartitionSpec(), state)
    return shardings(mesh, specs)


def put(value: Any, place: NamedSharding) -> jax.Array:
    """An array of this host on the devices of all processes, each of which has the same array."""
    host = to_numpy(value)
    host = host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)
    return jax.make_array_from_callback(host.shape, place, lambda index: np.array(host[index]))


def gathered(leaf: jax.Array) -> jax.Array:
    """An array that this process can read as a whole."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated or not isinstance(leaf.sharding, NamedSharding):
        return leaf
    return jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))


def batch_places(mesh: Mesh, batch: TrainingBatch) -> TrainingBatch:
    """How the images of a batch are split, or none where they do not divide by the devices."""
    is_even = len(batch.pixel_values) % mesh.shape[DATA] == 0
    axes = {
        field: 2 if field == "drop_path_mask" else 0 for field, value in batch._asdict().items() if value is not None
    }
    specs = {field: PartitionSpec(*[None] * axis, DATA) if is_even else PartitionSpec() for field, axis in axes.items()}
    return TrainingBatch(**{field: NamedSharding(mesh, spec) for field, spec in specs.items()})  # type: ignore[arg-type]
