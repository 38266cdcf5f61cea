"""What JAX's users see of a step of training: compiled once, its state given away, and a function to take away."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax_models import BACKEND, make_model
from jax.sharding import AxisType
from sameness import check_tensors
from training_steps import TRAINED, make_batch, make_step

from vit_core import BackendError, InputError
from vit_core.training import Optimisation
from vit_flax.sharding import MODEL, data_mesh
from vit_flax.training import TrainStep, first_state, training_step

CLASSIFIER = TRAINED[0]


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@pytest.fixture(autouse=True)
def strict():
    """Not here: optax promotes."""


def test_a_step_is_compiled_once_whatever_the_rate_and_after_a_restore():
    step, batch = make_step(BACKEND, CLASSIFIER, "float32", average=0.9), make_batch(CLASSIFIER, dtype="float32")
    for rate in (1e-3, 2e-3, np.float64(1e-3)):
        step(batch, rate)
    step.restore(step.state())
    step(batch, 0)
    assert step._step._cache_size() == 1


def test_the_model_has_the_new_parameters_and_the_old_ones_are_given_away():
    model, batch = make_model(CLASSIFIER), make_batch(CLASSIFIER, dtype="float32")
    given = model.params["classifier"]["kernel"]
    step = TrainStep(model)
    held = model.params["classifier"]["kernel"]
    step(batch, 1e-2)
    assert held.is_deleted() and not given.is_deleted()  # what the caller had before stays the caller's
    weights = {name.removeprefix("model."): array for name, array in step.state().items() if name.startswith("model.")}
    check_tensors(model.canonical_tensors(), weights)
    np.testing.assert_allclose(model(batch.pixel_values).logits, step.evaluate(batch)["logits"], rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_refused_leaves_the_state_as_it_was():
    step = make_step(BACKEND, CLASSIFIER, "float32")
    before = step.state()
    with pytest.raises(InputError, match="needs targets"):
        step(make_batch(TRAINED[2], dtype="float32"), 1e-3)
    check_tensors(step.state(), before)


def test_the_function_is_taken_away():
    model, batch, settings = make_model(CLASSIFIER), make_batch(CLASSIFIER, dtype="float32"), Optimisation(clip=1.0)
    step, state = jax.jit(training_step(model, settings)), first_state(model, settings)
    whole = TrainStep(model, settings)
    for rate in (1e-3, 2e-3):
        state, result = step(state, batch, rate)
        np.testing.assert_allclose(float(result.loss), float(whole(batch, rate).loss), rtol=1e-6)
    for name, leaf in state.weights.items():
        np.testing.assert_allclose(leaf, whole.current.weights[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.every_day("shares-one]")
@pytest.mark.parametrize("which", ["one", "all"])
@pytest.mark.parametrize("how", ["copies", "shares"])
def test_two_devices_make_the_steps_of_one(how, which, tmp_path):
    """Losses, norms, evaluations, gathered states and folders; with batches that do not divide by the devices."""
    code = Path(__file__).with_name("steps_on_two_devices.py")
    command = [sys.executable, str(code), how, which, str(tmp_path / "model")]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-5000:]


@pytest.mark.long
def test_two_processes_with_a_device_each_make_the_steps_of_one(tmp_path):
    code, port = Path(__file__).with_name("steps_on_two_devices.py"), free_port()
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(code), "shares", "one", str(tmp_path), str(rank), str(port)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said


def test_what_is_no_mesh_for_batches_is_refused():
    model = make_model(CLASSIFIER)
    with pytest.raises(InputError, match="expected a mesh as well"):
        TrainStep(model, sharded=True)
    with pytest.raises(InputError, match=r"expected an axis 'data' of type Auto, got model \(Auto\)"):
        TrainStep(model, mesh=jax.make_mesh((1,), (MODEL,), axis_types=(AxisType.Auto,)))
    with pytest.raises(BackendError, match=r"devices: expected 1 to \d+, .* got 4000"):
        data_mesh(4000)
