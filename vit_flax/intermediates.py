"""Features from inside an encoder: what `vit_core.intermediates` needs of Flax."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from typing import Any

import jax.numpy as jnp
from jax import Array

from vit_core.inputs import Grid, images_given
from vit_core.intermediates import Intermediates
from vit_flax.inputs import as_array
from vit_flax.layers import final_norm


class FlaxIntermediates(Intermediates):
    """The arrays of `forward_intermediates` and `get_intermediate_layers`."""

    def _images_of(self: Any, pixel_values: Any) -> tuple[Array, Grid]:
        model = type(self).__name__
        images: tuple[Array, Grid] = self.module._checked_images(
            jnp.asarray(as_array(model, "pixel_values", images_given(model, pixel_values))), True
        )
        return images

    def _first_layers(self: Any, depth: int, call: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        made, params = copy(self), call.get("params")
        made.config = deepcopy(self.config)
        made.config.pruned_heads = {i: heads for i, heads in self.config.pruned_heads.items() if i < depth}
        made.config.num_hidden_layers = depth
        made._compiled = self._compiled_depths.get(depth)
        made._compiled_call()
        self._compiled_depths[depth] = made._compiled
        params = self.params if params is None else params
        layers = {name: params["encoder"]["layer"][name] for name in map(str, range(depth))}
        return made, {**call, "params": {**params, "encoder": {**params["encoder"], "layer": layers}}}

    def _normed(self: Any, state: Array, call: Mapping[str, Any]) -> Array:
        params = self.params if call.get("params") is None else call["params"]
        normed: Any = final_norm(self.config, self.dtype).apply({"params": params.get("layernorm", {})}, state)
        return jnp.asarray(normed)

    def _as_map(self, patches: Array, grid: Grid) -> Array:
        batch, _, hidden = patches.shape
        return patches.transpose(0, 2, 1).reshape(batch, hidden, grid.rows, grid.columns)
