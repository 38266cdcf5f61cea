"""How layers of Keras get the names, and weights the values, of the canonical table.

A layer goes by the name of the attribute that holds it; `build` makes its weights, each with its value, under the path
of the layers around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow import Tensor

from vit_tf import _keras

# (path, dtype) -> the value that the weight at the path starts with, in the model whose weights are being made
source: ContextVar[Any] = ContextVar("source")
is_inner: ContextVar[bool] = ContextVar("is_inner", default=False)  # whether a model is being made around this layer


@contextmanager
def setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Inside this block the variable has that value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class Value(keras.initializers.Initializer):
    """What a weight starts with: its tensor where the model is being loaded, fresh values elsewhere.

    It is found by the path at which the weight is being made, so nothing is drawn only to be replaced.
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The value, in Keras' layout."""
        return source.get()(tf.get_current_name_scope(), dtype)


VALUE = Value()

RESERVED = {"attention_output": "output", "mlp_output": "output"}  # Keras has another `output` of its own


class NamedParts:
    """A layer or a model whose layers, while it is being made, get the names of the attributes that hold them.

    Weights are then found under their canonical names: `encoder/layer.0/layernorm_before/gamma`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if is_inner.get():
            named(RESERVED.get(name, name), value)
        super().__setattr__(name, value)


def named(name: str, value: Any) -> None:
    """Gives a layer its name, or those in a list the name and their numbers; built ones, as users give, keep theirs."""
    if isinstance(value, keras.layers.Layer) and not value.built:
        value.name = name
    elif isinstance(value, list):
        for i, layer in enumerate(value):
            named(f"{name}.{i}", layer)


class Parameter(NamedTuple):
    """A weight that its layer gets once it is built."""

    shape: tuple[int, ...]
    trainable: bool


def parameter(shape: tuple[int, ...], trainable: bool = True) -> Any:
    """What to assign to an attribute of a `Module` that is to be a weight."""
    return Parameter(shape, trainable)


class Module(NamedParts, keras.layers.Layer):
    """A layer made of weights of its own and of layers: they are all made with it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            name, value = "parameters", {**vars(self).get("parameters", {}), name: value}
        super().__setattr__(name, value)

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        for name, parameter in vars(self).get("parameters", {}).items():
            weight = self.add_weight(parameter.shape, VALUE, trainable=parameter.trainable, name=name)
            setattr(self, name, weight)
        build_parts(self)


def build_parts(layer: keras.layers.Layer) -> None:
    """Makes the weights of the layers that a layer is made of, in the order in which it got them."""
    for part in _keras.layers_of(layer, itself=False, deep=False):
        if not part.built:
            part.build(getattr(part, "_built_for", None))


class ModuleDict(Module):
    """Layers by name: one more step in the paths of their weights."""

    def __init__(self, parts: Mapping[str, keras.layers.Layer]) -> None:
        super().__init__()
        for name, part in parts.items():
            named(name, part)
        self.parts = dict(parts)

    def __getitem__(self, name: str) -> keras.layers.Layer:
        return self.parts[name]

    def values(self) -> Any:
        """The layers."""
        return self.parts.values()


class Sequential(ModuleDict):
    """Layers one after the other, named "0", "1", …"""

    def __init__(self, *parts: keras.layers.Layer) -> None:
        super().__init__({str(i): part for i, part in enumerate(parts)})

    def call(self, x: Tensor) -> Tensor:
        """The outputs of the last layer."""
        for part in self.values():
            x = part(x)
        return x
