"""The weights of a model: fresh values, the tree of Flax and the canonical names, pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from conversion.layouts import canonical_axes, from_canonical
from vit_core.errors import InputError
from vit_core.files.arrays import copied
from vit_core.files.reading import being_read
from vit_core.inputs import check_pixel_values
from vit_core.model import NeutralModel
from vit_core.parameters import Parameter
from vit_core.tensors import dtype_name
from vit_flax.inputs import checked_key
from vit_flax.layers import at_least_float32, initialiser

Params = Mapping[str, Any]  # a nested dict of arrays, in transformers' Flax tree
# Linen's words for parameters, by kind; the others keep their names.
WORDS = {**dict.fromkeys(("linear", "heads_in", "heads_out", "conv"), "kernel"), "norm_scale": "scale"}


class HeldParams(NeutralModel):
    """The parameters of a model."""

    input_shape: tuple[int, ...]
    params_dtype: Any
    _params: Params | None

    @property
    def params(self) -> Params:
        """The parameters: a nested dict in transformers' Flax tree.

        Raises:
            InputError: there are none, or what is assigned does not fit the model.
        """
        if self._params is None:
            raise InputError(
                f"{type(self).__name__}: made with _do_init=False, so it holds no parameters.\nMake some with "
                "init_weights(key, input_shape), or pass params= to the call."
            )
        return self._params

    @params.setter
    def params(self, params: Params) -> None:
        check_params(type(self).__name__, self.params_shape_tree, params)
        self._params = params

    @property
    def params_shape_tree(self) -> Params:
        """Shape and dtype of every parameter, computed without making one."""
        table = self.parameter_table()
        return tree_of(
            table, {name: jax.ShapeDtypeStruct(flax_shape(row), self.params_dtype) for name, row in table.items()}
        )

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The path of every parameter."""
        return set(flatten_dict(self.params_shape_tree))

    def init_weights(
        self, rng: Array, input_shape: Sequence[int] | None = None, params: Params | None = None
    ) -> Params:
        """Fresh parameters, each from its own key: what is made does not depend on what is kept.

        Args:
            rng: a key, typed or not.
            input_shape: (batch, height, width, channels) of images that have to fit; None means the model's.
            params: parameters that are kept as they are; only those missing in them are made.

        Raises:
            InputError: no key, or images that do not fit.
        """
        model, shape = type(self).__name__, tuple(input_shape or self.input_shape)
        check_pixel_values(model, self.config, shape, is_float=True, interpolate=False)
        key, rows = checked_key(model, "rng", rng), [*self.parameter_table().values()]
        kept = {} if params is None else flatten_dict(params)
        if not (missing := [i for i, row in enumerate(rows) if path_of(row) not in kept]):
            return unflatten_dict(kept)
        keys = jax.random.split(key, len(rows))  # compiled, which takes longer than loading
        made = {
            path_of(rows[i]): initialiser(rows[i].init, self.config)(keys[i], flax_shape(rows[i]), self.params_dtype)
            for i in missing
        }
        return unflatten_dict({**kept, **made})

    def to_bf16(self, params: Params, mask: Any = None) -> Params:
        """The floating parameters in bfloat16; with a tree `mask` of bools only those that are True in it."""
        return cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Params:
        """The floating parameters in float16; with a tree `mask` of bools only those that are True in it."""
        return cast(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Params:
        """The floating parameters in float32; with a tree `mask` of bools only those that are True in it."""
        return cast(params, jnp.float32, mask)


def check_params(model: str, shapes: Params, params: Any) -> None:
    """Checks that parameters are those of a model.

    Raises:
        InputError: naming up to five missing, unknown and wrongly shaped ones.
    """
    if not isinstance(params, Mapping) or params.keys() == {"params"}:
        kind = "one that holds it under 'params'" if isinstance(params, Mapping) else type(params).__name__
        raise InputError(f"{model}: params: expected the nested dict of parameters, got {kind}.")
    got = {name: np.shape(leaf) for name, leaf in flatten_dict(params, sep=".").items()}
    want = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep=".").items()}
    wrong = [f"{name} {got.get(name, 'missing')}" for name in want if got.get(name) != want[name]]
    wrong += [f"{name} unknown" for name in got if name not in want]
    if wrong:
        raise InputError(f"{model}: params: {len(wrong)} do not fit: {', '.join(wrong[:5])}.")


def path_of(row: Parameter) -> tuple[str, ...]:
    """Where a parameter is in the tree."""
    *modules, word = row.name.split(".")
    return (*modules, WORDS.get(row.kind, word))


def flax_shape(row: Parameter) -> tuple[int, ...]:
    """The shape of a parameter in Flax' layout."""
    axes = canonical_axes(row.kind, "flax")
    return row.shape if axes is None else tuple(row.shape[axis] for axis in axes)


def tree_of(table: Mapping[str, Parameter], leaves: Mapping[str, Any]) -> Params:
    """Canonical name -> leaf, as a tree."""
    return unflatten_dict({path_of(table[name]): leaf for name, leaf in leaves.items()})


def laid_out(
    table: Mapping[str, Parameter], tensors: Mapping[str, Any], release: Callable[[], object] = lambda: None
) -> Params:
    """Arrays on the default device, in Flax' layout, each copied once. XLA on a CPU takes over laid-out memory.

    `release` is that of `being_read`.
    """

    def change(name: str, array: np.ndarray) -> np.ndarray:
        found = from_canonical(array, table[name].kind, "flax")
        return copied(array) if found is array else found

    with being_read(tensors, change, release) as ready:  # in threads, which do not see JAX's settings
        leaves = {name: jax.device_put(wait()) for name, wait in ready.items()}
    return tree_of(table, leaves)


def cast(params: Params, dtype: Any, mask: Any) -> Params:
    """The floating parameters in another dtype; with a tree `mask` of bools only those that are True in it."""

    def one(leaf: Array, is_chosen: bool = True) -> Array:
        return leaf.astype(dtype) if is_chosen and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, params) if mask is None else jax.tree.map(one, params, mask)


def prune(attention: Any, kept: Sequence[int], head_dim: int) -> None:
    """Keeps some heads of one attention: columns of query, key and value, rows of the output."""
    places = (np.asarray(kept)[:, None] * head_dim + np.arange(head_dim)).reshape(-1)
    for projection in attention["attention"].values():
        for name, leaf in projection.items():
            projection[name] = leaf[..., places]
    attention["output"]["dense"]["kernel"] = attention["output"]["dense"]["kernel"][places]


def checked_dtype(model: str, name: str, dtype: Any) -> np.dtype:
    """A dtype of JAX.

    Raises:
        InputError: one that JAX is not set up for.
    """
    found = jnp.dtype(dtype_name(dtype))
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise InputError(f"{model}: {name}: JAX is not set up for {found.name}; use it inside jax.enable_x64(True).")
    return found


def loading_dtype(model: str, dtype: Any, params_dtype: Any) -> str:
    """The dtype to read parameters in: what was asked for, else float32 or wider for a computation in `dtype`."""
    if params_dtype is not None:
        return "auto" if is_auto(params_dtype) else checked_dtype(model, "params_dtype", params_dtype).name
    return "auto" if is_auto(dtype) else at_least_float32(checked_dtype(model, "dtype", dtype)).name


def is_auto(dtype: Any) -> bool:
    """Whether the checkpoint is to say the dtype."""
    return isinstance(dtype, str) and dtype == "auto"
