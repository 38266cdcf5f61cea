"""Activations by the names that configurations use. No default of JAX is relied on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import Array

from vit_core.config import SAME_ACTIVATIONS
from vit_core.errors import ConfigError
from vit_core.parameters import ACTIVATION_PARAMETERS
from vit_flax.layers import Module

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: Array) -> Array:
    """x * Phi(x) with the exact normal distribution function.

    Differs: jax.nn.gelu is the tanh approximation unless told otherwise, and slower on a CPU where it is told.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016), section 2.
    """
    return 0.5 * x * (1 + jnp.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))


def gelu_fast(x: Array) -> Array:
    """The tanh approximation with sqrt(2 / pi) rounded to ten digits."""
    return 0.5 * x * (1 + jnp.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))


def laplace(x: Array, mean: float = 0.707107, deviation: float = 0.282095) -> Array:
    """The Laplace attention function.

    Source: Ma et al., Mega: Moving Average Equipped Gated Attention (2022), section 3.4.
    """
    return 0.5 * (1 + jax.lax.erf((x - mean) / (deviation * math.sqrt(2))))


def glu(x: Array) -> Array:
    """The first half of the last axis, gated by the sigmoid of the second."""
    values, gates = jnp.split(x, 2, axis=-1)
    return values * jax.nn.sigmoid(gates)


def swiglu(x: Array) -> Array:
    """The second half of the last axis, gated by the SiLU of the first.

    Source: Shazeer, GLU Variants Improve Transformer (2020), equation 5.
    """
    gates, values = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gates) * values


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_10": lambda x: jnp.clip(gelu(x), -10, 10),
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_tanh,
    "glu": glu,
    "laplace": laplace,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, negative_slope=0.01),
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swiglu": swiglu,
    "tanh": jnp.tanh,
}


class PReLU(Module):
    """The leaky rectifier with one trainable slope."""

    dtype: Any

    def setup(self) -> None:
        """Makes the parameter."""
        self.weight = self.parameter("weight", *ACTIVATION_PARAMETERS["prelu"]["weight"])

    def __call__(self, x: Array) -> Array:
        """The function, element by element."""
        return jnp.where(x > 0, x, self.weight[0] * x)


class XIELU(Module):
    """A trainable activation: quadratic right of zero, exponential left of it.

    Source: Huang and Schlag, Deriving Activation Functions Using Integration (2024), section 4.
    """

    dtype: Any

    def setup(self) -> None:
        """Makes the parameters."""
        rows = ACTIVATION_PARAMETERS["xielu"]
        self.alpha_p = self.parameter("alpha_p", *rows["alpha_p"])
        self.alpha_n = self.parameter("alpha_n", *rows["alpha_n"])
        self.beta = self.parameter("beta", *rows["beta"])
        self.eps = self.parameter("eps", *rows["eps"])

    def __call__(self, x: Array) -> Array:
        """The function, element by element."""
        alpha_p, alpha_n = jax.nn.softplus(self.alpha_p[0]), self.beta + jax.nn.softplus(self.alpha_n[0])
        right = alpha_p * x * x + self.beta * x
        left = (jnp.expm1(jnp.minimum(x, self.eps)) - x) * alpha_n + self.beta * x
        return jnp.where(x > 0, right, left)


def activation(name: str | Callable[[Array], Array], dtype: Any) -> Callable[[Array], Array]:
    """The module or function for an activation given by name or as a function.

    Raises:
        ConfigError: a module; no initialiser and no checkpoint would know its parameters.
    """
    if isinstance(name, linen.Module):
        raise ConfigError(
            f"activation: expected a function, got the module {type(name).__name__}.\n"
            'Activations with parameters go by name: "prelu", "xielu".'
        )
    if callable(name):
        return name
    if name == "prelu":
        return PReLU(dtype)
    return XIELU(dtype) if name == "xielu" else FUNCTIONS[SAME_ACTIVATIONS.get(name, name)]
