"""The example of `fit` makes the steps of TrainStep, and saves a model that knows digits it has not seen."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vit_core import AutoImageProcessor
from vit_tf import TFViTForImageClassification
from vit_tf.training import TrainStep

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "train_with_fit.py"


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("train_with_fit", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.long
def test_fit_learns_what_the_step_learns(example, tmp_path):
    recipe = example.make_recipe(epochs=2)
    history = example.train(recipe, example.make_model(), tmp_path)
    model = example.make_model()
    feed, held_out = example.make_feed(recipe, model)
    step, rates = TrainStep(model, recipe.optimisation()), recipe.learning_rates(feed.steps)
    found = [(float(step(fed.batch, rates(fed.number)).loss), len(fed.names)) for fed in feed.training()]
    losses, sizes = np.transpose(found).reshape(2, recipe.epochs, feed.steps_of_epoch)
    np.testing.assert_allclose(history["loss"], np.average(losses, axis=1, weights=sizes), rtol=1e-5)  # found: 4e-7

    saved = TFViTForImageClassification.from_pretrained(tmp_path / "best")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "best")
    pixels = processor(list(example.SCANS[held_out]), input_data_format="none", return_tensors="np")["pixel_values"]
    accuracy = (saved(pixels).logits.numpy().argmax(axis=1) == example.DIGITS.target[held_out]).mean()
    np.testing.assert_allclose(accuracy, max(history["val_accuracy"]), atol=1e-6)
    assert accuracy > 0.15  # of ten classes, after two of twelve epochs
