"""A step of training in Keras' own ways: its optimizer in `fit`, policies, files, XLA, LoRA, two devices."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sameness import check_tensors
from tf_models import BACKEND

from vit_core import InputError
from vit_core.training import Optimisation, Schedule, TrainingBatch
from vit_tf.optimizers import ScheduledRate
from vit_tf.training import TrainStep, optimizer

# Keras reads its variables in a way that NumPy 2 deprecates, whenever it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CLASSIFIER = "TFViTForImageClassification"
make_model = partial(BACKEND.make_model, num_hidden_layers=1)
RECIPE = Optimisation(weight_decay=0.3, layer_decay=0.6, clip=0.5, average=0.7)
SCHEDULE = Schedule(rate=1e-2, steps=6, warmup=2)


def make_batch(number=0):
    """In float32, as Keras has every batch, with shares that add up to 1 to the bit, which its own loss relies on."""
    random = np.random.default_rng([3, number])
    targets = (random.multinomial(8, np.full(5, 0.2), size=4) / 8).astype(np.float32)
    return TrainingBatch(random.standard_normal((4, 3, 12, 20), np.float32), targets)


def compiled(model, recipe=RECIPE, schedule=SCHEDULE):
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, dtype=model.variable_dtype)
    model.compile(optimizer(model, recipe, schedule), loss=loss, jit_compile=False)
    return model


def check_close(found, expected, tolerance):
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)


def fit(model, batches):
    return [float(model.train_on_batch(batch.pixel_values, batch.targets)) for batch in batches]


def test_fit_with_the_optimizer_of_a_recipe_is_the_same_run():
    step, model = TrainStep(make_model(CLASSIFIER, "float64"), RECIPE), compiled(make_model(CLASSIFIER, "float64"))
    batches = [make_batch(number) for number in range(6)]
    losses = [float(step(batch, SCHEDULE(number)).loss) for number, batch in enumerate(batches)]
    np.testing.assert_allclose(fit(model, batches), losses, rtol=1e-6)  # metrics of Keras are float32
    check_close(model.canonical_tensors(), step.model.canonical_tensors(), 1e-11)
    for found, expected in zip(model.optimizer.averages, step.optimizer.averages, strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-11)


@pytest.mark.long
def test_accumulated_batches_of_fit_are_the_parts_of_a_step():
    recipe = Optimisation(clip=0.5, average=0.7, accumulate=2)
    step = TrainStep(make_model(CLASSIFIER, "float64"), recipe)
    model = compiled(make_model(CLASSIFIER, "float64"), recipe)
    for number in range(4):
        batch = make_batch(number)
        step(batch, SCHEDULE(number))
        fit(model, [TrainingBatch(*(array[half] for array in batch[:2])) for half in (slice(0, 2), slice(2, 4))])
    check_close(model.canonical_tensors(), step.model.canonical_tensors(), 1e-11)
    for found, expected in zip(model.optimizer.averages, step.optimizer.averages, strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-11)


def test_a_saved_fit_goes_on_to_the_bit(tmp_path):
    model = compiled(make_model(CLASSIFIER))
    batches = [make_batch(number) for number in range(4)]
    fit(model, batches[:2])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert fit(loaded, batches[2:]) == fit(model, batches[2:])
    check_tensors(loaded.canonical_tensors(), model.canonical_tensors())


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_rates_are_those_of_the_schedule_to_the_bit(kind):
    schedule = Schedule(rate=0.3, steps=7, warmup=3, final=0.01, kind=kind)
    rates = ScheduledRate.from_config(ScheduledRate(schedule, calls=2).get_config())
    assert [float(rates(call)) for call in range(14)] == [schedule(call // 2) for call in range(14)]
    assert float(rates(tf.constant(99))) == schedule(6)


def test_what_fit_cannot_do_as_the_recipe_says_is_refused():
    with pytest.raises(InputError, match="expected that of the model, float32, got bfloat16"):
        optimizer(make_model(CLASSIFIER), Optimisation(precision="bfloat16"), 1e-3)
    model = make_model(CLASSIFIER)
    recipe = Optimisation(freeze="encoder")
    with pytest.raises(InputError, match=r"freeze='encoder' leaves vit.embeddings.cls_token as it is"):
        optimizer(model, recipe, 1e-3)
    model.vit.trainable = False
    before = model.canonical_tensors()
    fit(compiled(model, recipe), [make_batch()])
    changed = {name for name, array in model.canonical_tensors().items() if (array != before[name]).any()}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_lora_is_trained_by_fit_and_refused_by_the_step():
    model = make_model(CLASSIFIER)
    model.vit.encoder.layer[0].intermediate["dense"].enable_lora(2)
    with pytest.raises(InputError, match=r"alone, got .*lora_kernel_a as well"):
        TrainStep(model)
    before = model.canonical_tensors()
    fit(compiled(model), [make_batch(number) for number in range(2)])
    name = "vit.encoder.layer.0.intermediate.dense.weight"
    assert np.any(model.canonical_tensors()[name] != before[name])


@pytest.mark.every_day("bfloat16")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_is_the_policy_of_keras(precision):
    """The same logits to the bit, and a model that is as it was once the step is made."""
    model, batch = make_model(CLASSIFIER), make_batch()
    mixed = type(model).from_tensors(model.config, model.canonical_tensors(), dtype=f"mixed_{precision}")
    step = TrainStep(model, Optimisation(precision=precision, recompute=True))
    np.testing.assert_array_equal(step.evaluate(batch)["logits"], mixed(batch.pixel_values).logits)
    step(batch, 1e-3)
    assert {layer.dtype_policy.name for layer in [model, model.classifier, *model.vit.encoder.layer]} == {"float32"}
    assert not model.is_gradient_checkpointing


def test_only_what_is_trained_has_a_gradient():
    step = TrainStep(make_model(CLASSIFIER), Optimisation(freeze="encoder"))
    given = step._on_devices(make_batch(), 1.0)
    graph = step._add.get_concrete_function(given, None).graph
    assert len(graph.structured_outputs[1]) == 2
    assert not [op.name for op in graph.get_operations() if "gradient_tape" in op.name and "encoder" in op.name]


@pytest.mark.long
def test_graphs_and_xla_make_the_same_steps_and_are_made_once_for_a_size_of_batch():
    eager, *compiled = (TrainStep(make_model(CLASSIFIER), RECIPE, jit_compile=jit) for jit in (False, False, True))
    for number, rate in enumerate((1e-3, 2e-3, 3e-3)):
        with BACKEND.steps():
            expected = eager(make_batch(number), rate)
        for step in compiled:
            found = step(make_batch(number), rate)
            np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)
            np.testing.assert_allclose(found.gradient_norm, expected.gradient_norm, rtol=1e-4)
    for step in compiled:
        assert (step._add.experimental_get_tracing_count(), step._move.experimental_get_tracing_count()) == (1, 1)


@pytest.mark.long
def test_a_compiled_run_goes_on_from_its_state_to_the_bit():
    def fresh():
        return TrainStep(
            make_model(CLASSIFIER, hidden_dropout_prob=0.2), Optimisation(precision="float16", average=0.9)
        )

    whole, other = fresh(), fresh()
    whole(make_batch(0), 1e-2)
    other.restore(whole.state())
    for number in (1, 2):
        assert float(other(make_batch(number), 1e-2).loss) == float(whole(make_batch(number), 1e-2).loss)
    check_tensors(other.state(), whole.state())


@pytest.mark.long
def test_two_mirrored_devices_make_the_steps_of_one():
    script = Path(__file__).with_name("on_two_devices.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
