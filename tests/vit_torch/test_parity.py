"""Every output, hidden state, attention, loss and gradient of every class against the float64 oracle."""

import numpy as np
import oracle
import pytest
import torch
from torch_models import BACKEND

from vit_torch import parity


def run(model: torch.nn.Module, case: oracle.Case, **flags: bool) -> dict:
    inputs = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in case.inputs.items()
    }
    return model(**inputs, **flags)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", (*oracle.CASES, *oracle.TRAINING_CASES), ids=str)
def test_outputs(case, dtype):
    oracle.check_outputs(case, parity.outputs(BACKEND.of_case(case, dtype), case.inputs), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", (*oracle.CASES, *oracle.TRAINING_CASES), ids=str)
def test_gradients(case, dtype):
    _, gradients = parity.gradients(BACKEND.of_case(case, dtype), case.inputs, oracle.projection(case))
    oracle.check_gradients(case, gradients, dtype)


@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_kernels_agree(case):
    model = BACKEND.of_case(case, "float64")
    outputs = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            outputs[implementation] = oracle.as_numpy(run(model, case))
    for name, eager in outputs["eager"].items():
        scale = np.abs(eager).max()
        np.testing.assert_allclose(outputs["sdpa"][name], eager, rtol=0, atol=1e-12 * scale, err_msg=name)
