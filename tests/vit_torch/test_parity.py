"""Every output, hidden state, attention, loss and gradient of every class against the float64 oracle."""

import numpy as np
import oracle
import pytest
import torch

import vit_torch
from vit_core.tensors import to_numpy
from vit_torch import parity


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
    oracle.check_outputs(case, parity.outputs(build(case, dtype), case.inputs), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_gradients(case, dtype):
    _, gradients = parity.gradients(build(case, dtype), case.inputs, oracle.projection(case))
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
