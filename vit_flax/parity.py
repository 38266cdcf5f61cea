"""What `vitriad parity` and the tests ask of this backend, in NumPy and canonical names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vit_core.tensors import Array, to_numpy
from vit_flax.weights import laid_out

FRAMEWORKS = ("jax", "flax")


def outputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every output of a call, hidden states and attentions included, as NumPy arrays or tuples of them."""
    found = model(**inputs, **_training(inputs), output_attentions=True, output_hidden_states=True)
    return {name: tuple(map(to_numpy, out)) if isinstance(out, tuple) else to_numpy(out) for name, out in found.items()}


def gradients(model: Any, inputs: Mapping[str, Any], weights: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """The sum of weighted outputs, and its gradient by canonical name of every trainable parameter.

    Args:
        model: of any class.
        inputs: arguments of the call.
        weights: output name -> weights; {"loss": 1} for the loss.
    """

    def number(params: Any) -> Any:
        found = model(**inputs, **_training(inputs), params=params)
        return sum((found[name] * np.asarray(weight, found[name].dtype)).sum() for name, weight in weights.items())

    value, found = jax.value_and_grad(number)(model.params)
    got, table = model.canonical_tensors(found), model.parameter_table()
    return float(value), {name: gradient for name, gradient in got.items() if table[name].trainable}


def _training(inputs: Mapping[str, Any]) -> dict[str, bool]:
    """Training where a mask of branches asks for that."""
    return {"train": "drop_path_mask" in inputs}


def assign(model: Any, tensors: Mapping[str, Array]) -> None:
    """Gives the parameters new values."""
    table = model.parameter_table()
    model.params = laid_out(table, {name: np.asarray(tensors[name]) for name in table})
