"""What JAX's users see of a step of training: compiled once, its state given away, and a function to take away."""

import jax
import numpy as np
import pytest
from flax_models import BACKEND, make_model
from sameness import check_tensors
from training_steps import TRAINED, make_batch, make_step

from vit_core import InputError
from vit_core.training import Optimisation
from vit_flax.training import TrainStep, first_state, training_step

CLASSIFIER = TRAINED[0]


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
