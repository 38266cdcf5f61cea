"""Calls as compiled graphs, kept from call to call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor

from vit_core.errors import InputError
from vit_tf import _keras

KEPT_GRAPHS = 16  # compiled calls of a model; one is made per image size and set of arguments
GRAPH_SETTINGS = ("dtype_policy", "rate", "activation", "epsilon", "heads", "implementation", "checkpointing")
TENSORS = ("pixel_values", "bool_masked_pos", "head_mask", "labels", "noise", "drop_path_mask")  # arguments of calls


class ByIdentity:
    """Equal to what holds the very same object; keeps it, so that its id is not given to another one."""

    def __init__(self, kept: object) -> None:
        self.kept = kept

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.kept is other.kept


class Graphs:
    """The compiled calls of a model, the oldest first.

    Attributes:
        state: of the model when they were made.
        functions: kinds of inputs -> function.
        of_first_layers: depth -> the model without the layers behind, with graphs of its own.
    """

    def __init__(self) -> None:
        self.state: object = None
        self.functions: dict[Any, Any] = {}
        self.of_first_layers: dict[int, Any] = {}

    def keep(self, key: Any, function: Any) -> None:
        """Keeps one more, and no more than KEPT_GRAPHS."""
        if len(self.functions) == KEPT_GRAPHS:
            del self.functions[next(iter(self.functions))]
        self.functions[key] = function


class CompiledCalls(keras.Model):
    """A model whose plain calls run as compiled graphs. Set `compiles_calls` to False to run operation by operation."""

    config: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compiles_calls = True
        self._graphs = Graphs()

    def _is_plain_call(self) -> bool:
        """Whether a call stands alone: eager, and inside no layer, scope or strategy that would change what it does."""
        return (
            tf.executing_eagerly()
            and not (self.run_eagerly or tf.config.functions_run_eagerly() or tf.distribute.has_strategy())
            and _keras.is_alone()
        )

    def _call_compiled(self, inputs: Mapping[str, Any]) -> Any:
        """The call as a graph for any batch of such inputs, kept until something changes that it was made from."""
        if self._graph_state() != self._graphs.state:
            self._graphs = Graphs()
        tensors = {name: value for name, value in inputs.items() if name in TENSORS}
        specs = {name: _any_batch(name, tensor) for name, tensor in tensors.items()}
        others = static(inputs)
        key = (*specs.items(), *others.items())
        try:
            if key not in self._graphs.functions:
                self._graphs.keep(key, self._graph(specs, others))
                self._graphs.state = self._graph_state()
            return self._graphs.functions[key](tensors)
        except (InputError, tf.errors.InvalidArgumentError):
            return super().__call__(**inputs)  # a graph knows no batch: let the call itself say what is wrong

    def _graph(self, specs: Mapping[str, tf.TensorSpec], others: Mapping[str, Any]) -> Any:
        """The call with these arguments as a compiled function of tensors."""
        plain = super().__call__
        function = tf.function(lambda tensors: plain(**tensors, **others), input_signature=[specs], autograph=False)
        function.get_concrete_function()  # raises what the call raises
        return function

    def _graph_state(self) -> list[Any]:
        """What a graph depends on: layers, weights and Keras' random numbers; settings of layers; the configuration."""
        layers = _keras.layers_of(self)
        objects = (*layers, *self.weights, _keras.random_source())
        settings = [[getattr(layer, name, None) for name in GRAPH_SETTINGS] for layer in layers]
        return [[ByIdentity(x) for x in objects], settings, dict(vars(self.config))]


def static(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that are no tensors."""
    return {name: value for name, value in inputs.items() if name not in TENSORS}


def _any_batch(name: str, tensor: Tensor) -> tf.TensorSpec:
    sides = [*tensor.shape]
    if sides and name != "head_mask":
        sides[-1 if name == "drop_path_mask" else 0] = None
    return tf.TensorSpec(sides, tensor.dtype, name)
