"""The example of optax makes the steps of TrainStep, as a bare loop and in NNX."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vit_flax.training import TrainStep

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "train_with_optax.py"


@pytest.fixture(autouse=True)
def strict():
    """Not here: optax promotes."""


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("train_with_optax", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(example):
    """The losses of an epoch, and the logits after it."""
    recipe, model = example.make_recipe(epochs=1), example.make_model()
    feed, _ = example.make_feed(recipe, model)
    step, rates = TrainStep(model, recipe.optimisation()), recipe.learning_rates(feed.steps)
    found = [(float(step(fed.batch, rates(fed.number)).loss), fed.batch) for fed in feed.training()]
    return [loss for loss, _ in found], model(found[0][1].pixel_values).logits


@pytest.mark.long
@pytest.mark.parametrize("loop", ["optax", "nnx"])
def test_a_loop_learns_what_the_step_learns(example, expected, loop):
    model = example.make_model()
    feed, _ = example.make_feed(example.make_recipe(epochs=1), model)
    losses = list(example.LOOPS[loop](model, feed))
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5)  # found: 1e-7
    logits = model(next(feed.training()).batch.pixel_values).logits
    np.testing.assert_allclose(logits, expected[1], rtol=0, atol=1e-3)
    assert len({*losses[:2], losses[-1]}) == 3 and losses[-1] < losses[0]
