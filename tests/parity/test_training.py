"""The same curve of training in every framework, each by its own optimiser and loop; and the same as written down.

curves.json was computed once, in float64 by PyTorch, so that a framework that is installed alone is held to it too.
"""

import json
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import small_models  # noqa: F401  # has XLA compile quickly
from backends import INSTALLED

from vitriad.parity_matrix.training import LOSS_TOLERANCES, RUNS, STEPS, WEIGHT_TOLERANCES, apart, trained

CURVES = json.loads(Path(__file__).with_name("curves.json").read_text())
FEW = 20


@cache
def run(backend, name, dtype, steps):
    with import_module("jax").enable_x64(dtype == "float64") if backend == "flax" else nullcontext():
        return trained(backend, name, dtype, steps)


@pytest.mark.every_day("few-float64-finetune", "few torch")
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("dtype", LOSS_TOLERANCES)
@pytest.mark.parametrize("steps", [FEW, STEPS], ids=["few", "all"])
def test_every_backend_trains_along_the_same_curve(backend, name, dtype, steps):
    found, expected = run(backend, name, dtype, steps), CURVES[name][:steps]
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=LOSS_TOLERANCES[dtype] * max(expected))
    for other in INSTALLED[: INSTALLED.index(backend)]:
        losses, weights = apart(run(other, name, dtype, steps), found)
        np.testing.assert_array_less(losses, LOSS_TOLERANCES[dtype])
        for weight, error in weights.items():
            np.testing.assert_array_less(error, WEIGHT_TOLERANCES[dtype], err_msg=weight)


def test_the_curves_are_of_runs_that_learn():
    for name, curve in CURVES.items():
        assert len(curve) == STEPS and np.mean(curve[-20:]) < 0.8 * np.mean(curve[:20]), name
