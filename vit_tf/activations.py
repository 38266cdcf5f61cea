"""Activations by the names that configurations use. No default of Keras is relied on."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
from keras import ops
from tensorflow import Tensor

from vit_core.config import SAME_ACTIVATIONS
from vit_core.errors import ConfigError
from vit_tf.modules import Module, parameter

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: Tensor) -> Tensor:
    """x * Phi(x) with the exact normal distribution function.

    Differs: written out, because keras.ops.gelu rounds sqrt(2) to float32 and has no form that ONNX knows.
    """
    return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016), section 2.
    """
    return 0.5 * x * (1 + ops.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))


def gelu_fast(x: Tensor) -> Tensor:
    """The tanh approximation with sqrt(2 / pi) rounded to ten digits."""
    return 0.5 * x * (1 + ops.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))


def laplace(x: Tensor, mean: float = 0.707107, deviation: float = 0.282095) -> Tensor:
    """The Laplace attention function.

    Source: Ma et al., Mega: Moving Average Equipped Gated Attention (2022), section 3.4.
    """
    return 0.5 * (1 + ops.erf((x - mean) / (deviation * math.sqrt(2))))


def glu(x: Tensor) -> Tensor:
    """The first half of the last axis, gated by the sigmoid of the second."""
    values, gates = ops.split(x, 2, axis=-1)
    return values * ops.sigmoid(gates)


def selu(x: Tensor) -> Tensor:
    """The self-normalising exponential unit.

    Source: Klambauer et al., Self-Normalizing Neural Networks (2017), equation 2.
    """
    return 1.0507009873554805 * ops.where(x > 0, x, 1.6732632423543772 * ops.expm1(ops.minimum(x, 0.0)))


def swiglu(x: Tensor) -> Tensor:
    """The second half of the last axis, gated by the SiLU of the first.

    Source: Shazeer, GLU Variants Improve Transformer (2020), equation 5.
    """
    gates, values = ops.split(x, 2, axis=-1)
    return gates * ops.sigmoid(gates) * values


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_10": lambda x: ops.clip(gelu(x), -10.0, 10.0),
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_tanh,
    "glu": glu,
    "laplace": laplace,
    "leaky_relu": lambda x: ops.where(x > 0, x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "relu2": lambda x: ops.square(ops.relu(x)),
    "relu6": ops.relu6,
    "selu": selu,
    "sigmoid": ops.sigmoid,
    "silu": lambda x: x * ops.sigmoid(x),
    "swiglu": swiglu,
    "tanh": ops.tanh,
}


class Activation(Module):
    """An activation without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Tensor) -> Tensor:
        """The function, element by element."""
        return self.function(x)


class PReLU(Module):
    """The leaky rectifier with one trainable slope.

    Differs: one slope for all units, as in torch; keras.layers.PReLU has one for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = parameter((1,))

    def call(self, x: Tensor) -> Tensor:
        """The function, element by element."""
        return ops.where(x > 0, x, self.weight * x)


class XIELU(Module):
    """A trainable activation: quadratic right of zero, exponential left of it.

    Source: Huang and Schlag, Deriving Activation Functions Using Integration (2024), section 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha_p = parameter((1,))
        self.alpha_n = parameter((1,))
        self.beta = parameter((), trainable=False)
        self.eps = parameter((), trainable=False)

    def call(self, x: Tensor) -> Tensor:
        """The function, element by element."""
        alpha_p, alpha_n = ops.softplus(self.alpha_p), self.beta + ops.softplus(self.alpha_n)
        right = alpha_p * x * x + self.beta * x
        left = (ops.expm1(ops.minimum(x, self.eps)) - x) * alpha_n + self.beta * x
        return ops.where(x > 0, right, left)


def activation(name: str | Callable[[Tensor], Tensor]) -> keras.layers.Layer:
    """The layer for an activation given by name, as a function or as a layer.

    Raises:
        ConfigError: a layer with weights; no initialiser and no checkpoint would know them.
    """
    if isinstance(name, keras.layers.Layer) and (name.weights or not name.built):
        raise ConfigError(
            f"activation: expected a function, or a layer without weights, got {type(name).__name__}.\n"
            'Activations with parameters go by name: "prelu", "xielu".'
        )
    if callable(name):
        return Activation(name)
    if name == "prelu":
        return PReLU()
    return XIELU() if name == "xielu" else Activation(FUNCTIONS[SAME_ACTIVATIONS.get(name, name)])
