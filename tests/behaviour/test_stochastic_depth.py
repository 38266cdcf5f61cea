"""Stochastic depth: branches of layers that training leaves out, drawn by a rate or given as a mask."""

import numpy as np
import pytest
from sameness import check_same
from small_models import MAIN_OUTPUT

from vit_core import InputError
from vit_core.masking import drop_path_mask
from vit_core.reference import forward
from vit_core.tensors import to_numpy

RATE, IMAGES = 0.3, 120
UNFIT = {
    "got (2, 2).": np.zeros((2, 2), bool),
    "got (3, 2, 2).": np.zeros((3, 2, 2), bool),
    "got (2, 1, 2).": np.zeros((2, 1, 2), bool),
    "got (2, 2, 5).": np.zeros((2, 2, 5), bool),
    "got (2, 2, 2) of another dtype.": np.zeros((2, 2, 2), np.float32),
    "got (2, 3, 2) of another dtype.": np.zeros((2, 3, 2), np.int64),
}


def output_of(backend, name, model, seed, inputs, mask=None):
    """The main output of a call in training."""
    given = {} if mask is None else {"drop_path_mask": backend.native(mask)}
    return to_numpy(backend.train(model, seed, {**inputs, **given})[MAIN_OUTPUT[name]])


@pytest.mark.every_day("torch", "ViTModel")
def test_evaluation_leaves_nothing_out(backend, name):
    inputs = backend.make_inputs(name)
    plain, deep = (backend.make_model(name, drop_path_rate=rate) for rate in (0.0, 0.9))
    check_same(deep(**inputs).to_tuple(), plain(**inputs).to_tuple())


@pytest.mark.every_day("torch", "ViTModel")
def test_a_rate_of_0_leaves_nothing_out_in_training(backend, name):
    model, inputs = backend.make_model(name), backend.make_inputs(name)
    check_same(backend.train(model, 1, inputs).to_tuple(), model(**inputs).to_tuple())


@pytest.mark.every_day("torch", "ViTModel")
def test_a_given_mask_leaves_out_just_that(backend, name):
    inputs = {key: np.asarray(to_numpy(value), np.float64) for key, value in backend.make_inputs(name).items()}
    fields = {"drop_path_rate": 0.5, "num_hidden_layers": 3}
    config, tensors = backend.make_config(name, **fields), backend.make_tensors(name, "float64", **fields)
    mask = drop_path_mask(2, 2, config.drop_path_rates)
    assert mask.any() and not mask.all()
    with backend.doubles():
        model = backend.make_model(name, "float64", **fields)
        native = {key: backend.native(value) for key, value in inputs.items()}
        found = output_of(backend, name, model, 0, native, mask)
        none = output_of(backend, name, model, 0, native, np.zeros_like(mask))
    expected = forward(name, config, tensors, **inputs, drop_path_mask=mask)[MAIN_OUTPUT[name]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert np.abs(none - expected).max() > 1e-3


@pytest.mark.every_day("torch", "ViTModel")
def test_branches_are_drawn_one_by_one_and_as_often_as_the_rate_says(backend, name):
    """Of two layers the first leaves out nothing, so that four outcomes are possible for each image."""
    model, inputs = backend.make_model(name, drop_path_rate=RATE), backend.make_inputs(name, batch=IMAGES)
    outcomes = []
    for attention, mlp in np.ndindex(2, 2):
        mask = np.zeros((2, 2, IMAGES), bool)
        mask[1] = [[attention], [mlp]]
        outcomes.append(output_of(backend, name, model, 0, inputs, mask).reshape(IMAGES, -1))
    drawn = output_of(backend, name, model, 1, inputs).reshape(IMAGES, -1)
    distances = np.abs(np.stack(outcomes) - drawn).max(axis=2)  # (outcomes, images)
    np.testing.assert_allclose(distances.min(axis=0), 0, atol=1e-5)
    counts = np.bincount(distances.argmin(axis=0), minlength=4)
    chances = np.outer([1 - RATE, RATE], [1 - RATE, RATE]).ravel()
    deviations = np.sqrt(IMAGES * chances * (1 - chances))
    assert (np.abs(counts - IMAGES * chances) < 4 * deviations).all(), counts


@pytest.mark.every_day("torch", "ViTModel")
def test_every_call_in_training_draws_anew(backend, name):
    model, inputs = backend.make_model(name, drop_path_rate=0.5), backend.make_inputs(name, batch=16)
    same, first, second = (output_of(backend, name, model, seed, inputs) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, first)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.every_day("torch", "ViTModel")
@pytest.mark.parametrize("name", ["ViTModel", "ViTMAEForPreTraining"])
def test_what_is_computed_again_leaves_out_what_is_given(backend, name):
    with backend.doubles():
        model = backend.make_model(name, "float64", drop_path_rate=0.5)
        inputs = {key: backend.native(np.asarray(x, np.float64)) for key, x in backend.make_inputs(name).items()}
        inputs["drop_path_mask"] = backend.native(np.arange(8).reshape(2, 2, 2) % 3 == 0)
        expected = backend.gradients(model, 7, inputs)
        model.gradient_checkpointing_enable()
        found = backend.gradients(model, 7, inputs)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.every_day("torch", "ViTModel")
def test_masks_that_do_not_fit_are_refused(backend, name):
    model, inputs = backend.make_model(name), backend.make_inputs(name)
    expected = f"{type(model).__name__}: drop_path_mask: expected (layers, 2, batch) = (2, 2, 2) of bool, "
    for got, mask in UNFIT.items():
        with pytest.raises(InputError) as caught:
            backend.train(model, 0, {**inputs, "drop_path_mask": backend.native(mask)})
        assert str(caught.value).startswith(expected + got + "\nTrue leaves a branch out")


@pytest.mark.every_day("torch", "ViTModel")
def test_a_mask_outside_training_is_refused(backend, name):
    model, mask = backend.make_model(name, drop_path_rate=0.5), backend.native(np.zeros((2, 2, 2), bool))
    for call in backend.refusals(model, {**backend.make_inputs(name), "drop_path_mask": mask}, True).values():
        with pytest.raises(InputError, match="drop_path_mask: expected a call in training"):
            call()
