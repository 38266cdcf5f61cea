"""One step of training, told the same and doing the same in every backend."""

import warnings
from functools import cache

import numpy as np
import pytest
from backends import INSTALLED, adapters
from sameness import check_tensors
from training_steps import TRAINED, Reference, make_batch, make_step, part_of, step_class

from vit_core.errors import InputError
from vit_core.training import Optimisation, TrainingBatch

CLASSIFIER, MASKED, MAE = TRAINED
RATES = (1e-2, 3e-2, 2e-2)

OPTIONS = {
    "plain": {"clip": 1e6},
    "decays": {"weight_decay": 0.3, "layer_decay": 0.6},
    "frozen layers": {"freeze": 1, "betas": (0.8, 0.95), "epsilon": 1e-3, "recompute": True},
    "frozen encoder": {"freeze": "encoder", "average": 0.6},
    "in even parts": {"accumulate": 3, "clip": 0.05},
    "all": {"clip": 0.1, "average": 0.9, "layer_decay": 0.5, "accumulate": 4, "freeze": 0},
}


@pytest.fixture(params=adapters(), ids=INSTALLED, scope="module")
def backend(request):
    return request.param


@pytest.fixture(autouse=True)
def strict():
    """Not here: optax promotes."""


@pytest.fixture(autouse=True)
def doubles(backend):
    with backend.doubles(), backend.steps():
        yield


def check_close(found, expected):
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.every_day("torch", "-plain]", "-all]")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_move_as_written_down(backend, options):
    step, reference = make_step(backend, CLASSIFIER, **options), Reference(backend, CLASSIFIER, **options)
    for number, rate in enumerate(RATES):
        batch = make_batch(CLASSIFIER, number)
        result = step(batch, rate)
        reference(batch, rate)
        np.testing.assert_allclose(float(result.gradient_norm), reference.norm, rtol=1e-9)
    state = step.state()
    check_close(part_of(state, "model"), reference.weights)
    check_close(part_of(state, "average"), reference.average if "average" in options else {})
    assert {*part_of(state, "first")} == {*part_of(state, "second")} == {*reference.moments}
    assert state["steps"] == len(RATES) and state["steps"].dtype == np.int64


@pytest.mark.every_day("torch", "ViTMAEForPreTraining")
@pytest.mark.parametrize("name", [MASKED, MAE])
def test_every_class_with_a_loss_learns(backend, name):
    step, reference = make_step(backend, name, accumulate=2), Reference(backend, name)
    for rate in RATES:
        step(make_batch(name), rate)
        reference(make_batch(name), rate)
    check_close(part_of(step.state(), "model"), reference.weights)
    losses = [float(step(make_batch(name), 1e-3).loss) for _ in range(5)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.every_day("torch", "-4]")
@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_loss_is_that_of_the_whole_batch_before_the_step(backend, count):
    step, batch = make_step(backend, CLASSIFIER, accumulate=count), make_batch(CLASSIFIER)
    logits = step.evaluate(batch)["logits"]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    expected = -(batch.targets * np.log(shares / shares.sum(1, keepdims=True))).sum(1).mean()
    np.testing.assert_allclose(float(step(batch, 1e-2).loss), expected, rtol=1e-10)


RESUMED = {
    "dropout": (CLASSIFIER, {}),
    "masked": (MASKED, {"average": 0.9, "clip": 0.1, "accumulate": 2}),
    "float16": (MAE, {"precision": "float16", "average": 0.9}),
}


@pytest.mark.every_day("torch", "-dropout]")
@pytest.mark.parametrize(("name", "options"), RESUMED.values(), ids=RESUMED)
def test_a_run_goes_on_from_its_state_to_the_bit(backend, name, options):
    fields = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1, "drop_path_rate": 0.3}

    def fresh():
        return make_step(backend, name, "float32", fields, **options)

    def steps(step, numbers):
        return [float(step(make_batch(name, number, "float32"), 1e-2).loss) for number in numbers]

    whole = fresh()
    steps(whole, range(2))
    state = whole.state()
    kept = {key: array.copy() for key, array in state.items()}
    losses = steps(whole, range(2, 4))
    check_tensors(state, kept)  # which training does not write to
    other = fresh()
    steps(other, [7])
    other.restore(state)
    check_tensors(other.state(), state)
    assert steps(other, range(2, 4)) == losses
    check_tensors(other.state(), whole.state())


def test_dropouts_go_by_seed_and_step_alone(backend):
    def losses(seed):
        step = make_step(
            backend, CLASSIFIER, "float64", {"hidden_dropout_prob": 0.4, "num_hidden_layers": 1}, seed=seed
        )
        return [float(step(make_batch(CLASSIFIER), 0.0).loss) for _ in range(2)]

    one = losses(3)
    assert one == losses(3)
    assert len({*one, *losses(4)}) == 4


def test_float16_leaves_out_a_step_that_is_not_finite(backend):
    step, batch = make_step(backend, CLASSIFIER, "float32", precision="float16", average=0.5), make_batch(CLASSIFIER)
    step(batch, 1e-2)
    before = step.state()
    assert before["loss_scale"] == 2**16 and before["good_steps"] == before["steps"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the cast
        result = step(batch._replace(pixel_values=batch.pixel_values * 1e30), 1e-2)
    assert not np.isfinite(float(result.gradient_norm))
    after = step.state()
    assert after.pop("loss_scale") == 2**15 and after.pop("good_steps") == 0
    check_tensors(after, {key: array for key, array in before.items() if key not in ("loss_scale", "good_steps")})
    assert np.isfinite(float(step(batch, 1e-2).loss)) and step.state()["steps"] == 2


def test_the_scale_of_the_loss_doubles_after_2000_steps(backend):
    step, batch = make_step(backend, CLASSIFIER, "float32", precision="float16"), make_batch(CLASSIFIER)
    step.restore(step.state() | {"good_steps": np.array(1998)})
    found = []
    for _ in range(2):
        step(batch, 1e-4)
        found.append((float(step.state()["loss_scale"]), int(step.state()["good_steps"])))
    assert found == [(2**16, 1999), (2**17, 0)]


@cache
def losses_in(backend, name, precision):
    step = make_step(backend, name, "float32", clip=1.0, precision=precision)
    losses = [float(step(make_batch(name, dtype="float32"), 3e-3).loss) for _ in range(4)]
    assert {str(array.dtype) for array in part_of(step.state(), "model").values()} == {"float32"}
    return losses


@pytest.mark.every_day("torch", "tf ViTMAEForPreTraining")
@pytest.mark.parametrize(("name", "precision"), [(CLASSIFIER, "bfloat16"), (MASKED, "float16"), (MAE, "bfloat16")])
def test_half_precision_learns_nearly_the_same(backend, name, precision):
    exact, half = losses_in(backend, name, "float32"), losses_in(backend, name, precision)
    np.testing.assert_allclose(half, exact, rtol=3e-2)
    assert half != exact and half[-1] < half[0]


@pytest.mark.every_day("torch", "ViTForImageClassification")
@pytest.mark.parametrize("name", TRAINED)
def test_evaluation_changes_nothing(backend, name):
    step, batch = make_step(backend, name, average=0.7, fields={"hidden_dropout_prob": 0.3}), make_batch(name)
    step(batch, 3e-2)
    before = step.state()
    found = step.evaluate(batch, averaged=True)
    check_tensors(step.state(), before)
    other = make_step(backend, name)
    weights = {f"model.{key}": array for key, array in part_of(before, "average").items()}
    other.restore(other.state() | weights)
    expected, trained = other.evaluate(batch), step.evaluate(batch)
    assert [*found] == [*expected] and {*found} >= ({"logits"} if name == CLASSIFIER else {"loss"})
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=1e-9, atol=1e-12, err_msg=key)
    key = "logits" if name == CLASSIFIER else "loss"
    assert np.any(trained[key] != found[key])


def test_evaluation_needs_an_average_and_no_targets(backend):
    step, batch = make_step(backend, CLASSIFIER), make_batch(CLASSIFIER)
    assert step.evaluate(TrainingBatch(batch.pixel_values))["logits"].shape == (6, 5)
    with pytest.raises(InputError, match="there is no average"):
        step.evaluate(batch, averaged=True)


def test_what_cannot_be_trained_is_refused(backend):
    with pytest.raises(InputError, match="ViTModel has no loss"):
        make_step(backend, "ViTModel")
    with pytest.raises(InputError, match="float32 to train with precision='bfloat16', got float64"):
        make_step(backend, CLASSIFIER, precision="bfloat16")
    with pytest.raises(InputError, match="freeze: expected 'encoder' or a number of layers from 0 to 2"):
        make_step(backend, CLASSIFIER, freeze=3)
    step, before = make_step(backend, CLASSIFIER), make_step(backend, CLASSIFIER).state()
    with pytest.raises(InputError, match="needs targets, got pixel_values, noise"):
        step(make_batch(MAE), 1e-3)
    check_tensors(step.state(), before)


@pytest.mark.parametrize(
    ("options", "fields", "said"),
    [
        ({"average": 0.9}, {}, "average.* missing"),
        ({}, {"num_labels": 4}, r"classifier.* is float64 \((4|5),"),
        ({"freeze": 1}, {}, "first.* unknown"),
        ({"precision": "float16"}, {}, "missing|float32"),
    ],
)
def test_the_state_of_another_run_is_refused_and_changes_nothing(backend, options, fields, said):
    state = make_step(backend, CLASSIFIER).state()
    dtype = "float32" if "precision" in options else "float64"
    step = make_step(backend, CLASSIFIER, dtype, fields, **options)
    before = step.state()
    with pytest.raises(InputError, match=f"restore: .*{said}"):
        step.restore(state)
    check_tensors(step.state(), before)


def test_every_backend_has_a_step(backend):
    assert step_class(backend)(backend.make_model(CLASSIFIER)).optimisation == Optimisation()
