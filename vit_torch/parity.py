"""What `vitriad parity` and the tests ask of this backend, in NumPy and canonical names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vit_core.tensors import Array, to_numpy

FRAMEWORKS = ("torch",)


def outputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every output of a call, hidden states and attentions included, as NumPy arrays or tuples of them."""
    with torch.no_grad(), _training(model, inputs):
        found = model(**_tensors(model, inputs), output_attentions=True, output_hidden_states=True)
    return {name: tuple(map(to_numpy, out)) if isinstance(out, tuple) else to_numpy(out) for name, out in found.items()}


def gradients(model: Any, inputs: Mapping[str, Any], weights: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """The sum of weighted outputs, and its gradient by canonical name of every trainable parameter.

    Args:
        model: of any class.
        inputs: arguments of the call.
        weights: output name -> weights; {"loss": 1} for the loss.
    """
    model.zero_grad()
    with _training(model, inputs):
        found = model(**_tensors(model, inputs))
    number = sum((found[name] * torch.as_tensor(weight).to(found[name])).sum() for name, weight in weights.items())
    number.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return float(number.detach()), {
        name: np.zeros(tuple(parameter.shape)) if parameter.grad is None else to_numpy(parameter.grad)
        for name, parameter in trained.items()
    }


def assign(model: Any, tensors: Mapping[str, Array]) -> None:
    """Gives the parameters new values."""
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            parameter.copy_(torch.as_tensor(np.asarray(tensors[name])))


@contextmanager
def _training(model: Any, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the model is in training where a mask of branches asks for that."""
    before = model.training
    model.train(before or "drop_path_mask" in inputs)
    try:
        yield
    finally:
        model.train(before)


def _tensors(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.as_tensor(value, device=model.device) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }
