"""The product of a linear layer with its matrix packed in the order in which a processor reads it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_torch.activations import gelu, gelu_tanh

PLAIN: Any = ("none", [], "")
# What oneDNN's products compute with what they write: name, numbers, variant.
FUSED: dict[Any, Any] = {gelu: ("gelu", [], "none"), gelu_tanh: ("gelu", [], "tanh"), F.relu: ("relu", [], "")}


class Product:
    """A linear layer with its matrix packed: MKL's order for float32 on Intel, where it measures faster, else oneDNN's.

    Args:
        weight: (out, in).
        bias: (out,).
        tokens: rows that MKL's order is for; other numbers are computed with `weight` itself.
        fused: what is done with the result before it is written, of `FUSED`; oneDNN only.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, tokens: int, fused: Any = PLAIN) -> None:
        self.weight, self.bias, self.tokens, self.fused = weight, bias, tokens, fused
        self.is_mkl = has_mkl_products(weight.dtype)
        if self.is_mkl:
            self.matrix = torch.ops.mkl._mkl_reorder_linear_weight(weight, tokens)
        else:
            self.matrix = torch.ops.mkldnn._reorder_linear_weight(weight)
            del self.weight

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(batch, tokens, in) -> (batch, tokens, out), with the residual added to it."""
        if not self.is_mkl:
            if residual is None:
                return torch.ops.mkldnn._linear_pointwise(x, self.matrix, self.bias, *self.fused)
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.matrix, self.bias, "add")
        product = torch.ops.mkl._mkl_linear(x, self.matrix, self.weight, self.bias, self.tokens)
        return product if residual is None else product.add_(residual)


@cache
def has_mkl_products(dtype: torch.dtype) -> bool:
    """Whether MKL's products are the faster ones: in float32 on Intel's processors, as far as torch knows this one."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return dtype == torch.float32 and torch.backends.mkl.is_available() and "Intel" in str(known.get("cpu_name"))
