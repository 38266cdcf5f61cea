"""Calls compiled by `jax.jit`, kept from call to call."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import jax
from jax import Array

from vit_core.errors import InputError
from vit_core.inputs import images_given
from vit_core.model import Flags
from vit_flax.inputs import CheckedInputs, FlaxViTPreTrainedModule, as_array, checked_key
from vit_flax.weights import HeldParams, Params, check_params


class CompiledCalls(CheckedInputs, HeldParams):
    """A model whose calls are compiled, once per shapes and switches."""

    module_class: ClassVar[type[FlaxViTPreTrainedModule]]
    dtype: Any
    checkpointing: bool
    key: Array  # of the seed, under the name that transformers has for it
    _calls: int  # of a masked autoencoder without noise: each has another mask
    _compiled: tuple[Any, Any] | None
    _compiled_depths: dict[int, Any]  # of the model without its last layers, by depth

    @property
    def module(self) -> FlaxViTPreTrainedModule:
        """The pure module: `model.module.apply({"params": params}, …)` is what calls compile."""
        options: dict[str, Any] = self.options
        return self.module_class(self.config, self.dtype, self.checkpointing, **options)

    def _run(
        self,
        inputs: Mapping[str, Any],
        flags: Flags,
        params: Params | None,
        dropout_rng: Array | None,
        train: bool,
        mask_rng: Array | None = None,
        **switches: Any,
    ) -> Any:
        """Checks a call and runs it, compiled once per shapes and switches.

        Raises:
            InputError: an argument does not fit the model, or a key is missing.
        """
        model, keys = type(self).__name__, {}
        given = {name: value for name, value in inputs.items() if value is not None}
        if "pixel_values" in given:
            given["pixel_values"] = images_given(model, given["pixel_values"])
        arrays = {name: as_array(model, name, value) for name, value in given.items()}
        self._check_values(arrays)
        if dropout_rng is not None:
            keys["dropout"] = checked_key(model, "dropout_rng", dropout_rng)
        elif train and self._draws(arrays):
            raise InputError(f"{model}: dropout_rng: training with dropout needs a key, got None.")
        if "noise" in inputs and "noise" not in arrays:
            keys["mask"] = self._mask_key(arrays) if mask_rng is None else checked_key(model, "mask_rng", mask_rng)
        static = tuple(sorted({**switches_of(flags), **switches, "deterministic": not train}.items()))
        return self._compiled_call()(self.params if params is None else params, keys, arrays, static)

    def _draws(self, arrays: Mapping[str, Any]) -> bool:
        """Whether a call in training with these arguments draws what it drops."""
        config = self.config
        drops_branches = any(config.drop_path_rates) and "drop_path_mask" not in arrays
        return bool(config.hidden_dropout_prob or config.attention_probs_dropout_prob or drops_branches)

    def _compiled_call(self) -> Any:
        """The compiled call, of params, keys, inputs and switches; a new one where the configuration changed."""
        state = ({**vars(self.config)}, self.dtype, self.checkpointing, self.options)
        if self._compiled is None or self._compiled[0] != state:
            call = jax.jit(partial(_apply, self.module, self.params_shape_tree), static_argnums=3)
            callables = {id(value): value for value in state[0].values() if callable(value)}
            self._compiled = deepcopy(state, callables), call  # activations are kept: some are not equal to their copy
        return self._compiled[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": None, "_compiled_depths": {}}  # compiled code cannot be pickled

    def _mask_key(self, arrays: Mapping[str, Any]) -> Array:
        key = jax.random.fold_in(self.key, self._calls + 1)  # in code that is being compiled even this is traced
        if any(isinstance(array, jax.core.Tracer) for array in (key, *arrays.values())):
            raise InputError(
                f"{type(self).__name__}: noise: inside compiled code every call would have the same mask.\n"
                "Pass noise= or mask_rng=."
            )
        self._calls += 1
        return key


def switches_of(flags: Flags) -> dict[str, bool]:
    """The output switches by the names that modules have for them: each set of them is compiled on its own."""
    switches = {**flags.named(), "return_dict": flags.return_dict}
    return {name: bool(switch) for name, switch in switches.items()}


def _apply(
    module: FlaxViTPreTrainedModule,
    shapes: Params,
    params: Params,
    keys: Mapping[str, Array],
    inputs: Mapping[str, Array],
    static: Any,
) -> Any:
    check_params(module.model, shapes, params)
    given: dict[str, Any] = {**inputs, **dict(static)}
    return module.apply({"params": params}, **given, rngs=dict(keys))
