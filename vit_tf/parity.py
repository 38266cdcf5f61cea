"""What `vitriad parity` and the tests ask of this backend, in NumPy and canonical names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from conversion.layouts import from_canonical, to_canonical
from vit_core.tensors import Array, to_numpy

FRAMEWORKS = ("tensorflow", "keras")


def outputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every output of a call, hidden states and attentions included, as NumPy arrays or tuples of them."""
    found = model(**inputs, **_training(inputs), output_attentions=True, output_hidden_states=True)
    return {name: tuple(map(to_numpy, out)) if isinstance(out, tuple) else to_numpy(out) for name, out in found.items()}


def gradients(model: Any, inputs: Mapping[str, Any], weights: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """The sum of weighted outputs, and its gradient by canonical name of every trainable parameter.

    The call that is differentiated runs operation by operation: compiling it takes as long as a hundred such calls.

    Args:
        model: of any class.
        inputs: arguments of the call.
        weights: output name -> weights; {"loss": 1} for the loss.
    """
    trained = {name: weight.value for name, weight in model.named_weights().items() if weight.trainable}
    with _operation_by_operation(model), tf.GradientTape() as tape:
        found = model(**inputs, **_training(inputs))
        number = sum(
            tf.reduce_sum(found[name] * tf.cast(weight, found[name].dtype)) for name, weight in weights.items()
        )
    got = tape.gradient(number, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    table = model.parameter_table()
    return float(number), {
        name: to_canonical(to_numpy(gradient), table[name].kind, "keras") for name, gradient in got.items()
    }


def _training(inputs: Mapping[str, Any]) -> dict[str, bool]:
    """Training where a mask of branches asks for that."""
    return {"training": "drop_path_mask" in inputs}


@contextmanager
def _operation_by_operation(model: Any) -> Iterator[None]:
    compiles, model.compiles_calls = model.compiles_calls, False
    try:
        yield
    finally:
        model.compiles_calls = compiles


def assign(model: Any, tensors: Mapping[str, Array]) -> None:
    """Gives the parameters new values."""
    table = model.parameter_table()
    for name, weight in model.named_weights().items():
        weight.assign(from_canonical(np.asarray(tensors[name]), table[name].kind, "keras"))
