"""Activations by the names that configurations use. No default of torch is relied on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_core.config import SAME_ACTIVATIONS
from vit_core.errors import ConfigError

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: Tensor) -> Tensor:
    """x * Phi(x) with the exact normal distribution function."""
    return F.gelu(x, approximate="none")


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016), section 2.
    """
    return F.gelu(x, approximate="tanh")


def gelu_fast(x: Tensor) -> Tensor:
    """The tanh approximation with sqrt(2 / pi) rounded to ten digits."""
    return 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))


def laplace(x: Tensor, mean: float = 0.707107, deviation: float = 0.282095) -> Tensor:
    """The Laplace attention function.

    Source: Ma et al., Mega: Moving Average Equipped Gated Attention (2022), section 3.4.
    """
    return 0.5 * (1 + torch.erf((x - mean) / (deviation * math.sqrt(2))))


def glu(x: Tensor) -> Tensor:
    """The first half of the last axis, gated by the sigmoid of the second."""
    values, gates = x.chunk(2, dim=-1)
    return values * torch.sigmoid(gates)


def swiglu(x: Tensor) -> Tensor:
    """The second half of the last axis, gated by the SiLU of the first.

    Source: Shazeer, GLU Variants Improve Transformer (2020), equation 5.
    """
    gates, values = x.chunk(2, dim=-1)
    return F.silu(gates) * values


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_10": lambda x: gelu(x).clamp(-10, 10),
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_tanh,
    "glu": glu,
    "laplace": laplace,
    "leaky_relu": lambda x: F.leaky_relu(x, negative_slope=0.01),
    "linear": lambda x: x,
    "mish": F.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swiglu": swiglu,
    "tanh": torch.tanh,
}


class Activation(nn.Module):
    """An activation without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function, element by element."""
        return self.function(x)


class XIELU(nn.Module):
    """A trainable activation: quadratic right of zero, exponential left of it.

    Source: Huang and Schlag, Deriving Activation Functions Using Integration (2024), section 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta: Tensor
        self.eps: Tensor
        self.alpha_p = nn.Parameter(torch.empty(1))
        self.alpha_n = nn.Parameter(torch.empty(1))
        self.register_buffer("beta", torch.empty(()))
        self.register_buffer("eps", torch.empty(()))

    def forward(self, x: Tensor) -> Tensor:
        """The function, element by element."""
        alpha_p, alpha_n = F.softplus(self.alpha_p), self.beta + F.softplus(self.alpha_n)
        right = alpha_p * x * x + self.beta * x
        left = (torch.expm1(torch.minimum(x, self.eps)) - x) * alpha_n + self.beta * x
        return torch.where(x > 0, right, left)


def activation(name: str | Callable[[Tensor], Tensor]) -> nn.Module:
    """The module for an activation given by name, as a function or as a module.

    Raises:
        ConfigError: a module with parameters or buffers; no initialiser and no checkpoint would know them.
    """
    if isinstance(name, nn.Module):
        if [*name.parameters(), *name.buffers()]:
            raise ConfigError(
                f"activation: expected a function, or a module without parameters, got {type(name).__name__}.\n"
                'Activations with parameters go by name: "prelu", "xielu".'
            )
        return name
    if callable(name):
        return Activation(name)
    if name == "prelu":
        return nn.PReLU()
    return XIELU() if name == "xielu" else Activation(FUNCTIONS[SAME_ACTIVATIONS.get(name, name)])
