"""Every output, hidden state, attention, loss and gradient of every class against the float64 oracle."""

import numpy as np
import oracle
import pytest
import torch

import vit_torch
from vit_core.tensors import to_numpy


def build(case: oracle.Case, dtype: str) -> torch.nn.Module:
    tensors = {name: array.astype(dtype) for name, array in oracle.random_tensors(case).items()}
    return getattr(vit_torch, case.cls).from_tensors(case.config, tensors, **case.options)


def run(model: torch.nn.Module, case: oracle.Case, **flags: bool) -> dict:
    inputs = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in case.inputs.items()
    }
    return model(**inputs, **flags)


def as_numpy(output: dict) -> dict:
    return {
        name: tuple(map(to_numpy, value)) if isinstance(value, tuple) else to_numpy(value)
        for name, value in output.items()
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_outputs(case, dtype):
    with torch.no_grad():
        output = run(build(case, dtype), case, output_attentions=True, output_hidden_states=True)
    oracle.check_outputs(case, as_numpy(output), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_gradients(case, dtype):
    model = build(case, dtype)
    output = run(model, case)
    if "loss" in output:
        scalar = output.loss
    else:
        weights = {name: torch.from_numpy(array.astype(dtype)) for name, array in oracle.projection(case).items()}
        scalar = sum((output[name] * weight).sum() for name, weight in weights.items())
    scalar.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in trained.items()}
    oracle.check_gradients(case, gradients, dtype)


@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_kernels_agree(case):
    model = build(case, "float64")
    outputs = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            outputs[implementation] = as_numpy(run(model, case))
    for name, eager in outputs["eager"].items():
        scale = np.abs(eager).max()
        np.testing.assert_allclose(outputs["sdpa"][name], eager, rtol=0, atol=1e-12 * scale, err_msg=name)
