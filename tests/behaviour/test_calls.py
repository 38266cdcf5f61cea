"""What a call of the five classes takes and gives, beside the numbers."""

import logging
from importlib import import_module

import numpy as np
import pytest
from sameness import check_same
from small_models import MAIN_OUTPUT, PATCHES

from vit_core import ConfigError, InputError
from vit_core.config import ACTIVATIONS, SAME_ACTIVATIONS
from vit_core.inputs import warn_unseen
from vit_core.parameters import ACTIVATION_PARAMETERS
from vit_core.reference import ACTIVATION_FUNCTIONS
from vit_core.tensors import to_numpy


@pytest.mark.every_day("torch", "ViTMAEForPreTraining-call", "ViTModel-config")
@pytest.mark.parametrize("through", ["call", "config"])
def test_tuples_hold_the_fields_that_are_present(backend, name, through):
    model, inputs = backend.make_model(name), backend.make_inputs(name)
    named = model(**inputs, output_attentions=True)
    if through == "config":
        model.config.return_dict = False
    values = model(**inputs, output_attentions=True, **({"return_dict": False} if through == "call" else {}))
    assert type(values) is tuple
    assert len(values) == len(named)
    check_same(values, named.to_tuple())


@pytest.mark.every_day("torch", "ViTForImageClassification")
def test_switches_come_from_the_config(backend, name):
    model = backend.make_model(name, output_attentions=True, output_hidden_states=True)
    output = model(**backend.make_inputs(name))
    assert [len(output.attentions), len(output.hidden_states)] == [2, 3]
    assert "attentions" not in model(**backend.make_inputs(name), output_attentions=False)


def test_the_configuration_is_a_copy_and_stays_as_it_was(backend):
    name = "ViTForImageClassification"
    config = backend.make_config(name)
    model = backend.cls(name)(config)
    before = config.to_json_string()
    model(**backend.make_inputs(name), labels=backend.native(np.array([1, 2])))
    model.prune_heads({0: [1]})
    assert config.to_json_string() == before
    assert model.config.problem_type is None
    assert backend.config_inside(model) is model.config


def test_arguments_stay_as_they_were(backend):
    model = backend.make_model("ViTModel", options={"use_mask_token": True})
    inputs = {
        **backend.make_inputs("ViTModel"),
        "head_mask": backend.native(np.ones((2, 3))),
        "bool_masked_pos": backend.native(np.zeros((2, PATCHES), bool)),
    }
    before = {key: to_numpy(value).copy() for key, value in inputs.items()}
    for call in (lambda: model(**inputs), *backend.other_calls(model, inputs)):
        call()
        assert list(inputs) == list(before)
        for key, value in before.items():
            np.testing.assert_array_equal(to_numpy(inputs[key]), value)


@pytest.mark.every_day("torch", "ViTModel")
def test_unknown_keyword_is_an_error(backend, name):
    with pytest.raises(TypeError, match="attention_mask"):
        backend.make_model(name)(**backend.make_inputs(name), attention_mask=None)


@pytest.mark.every_day("torch", "ViTMAEForPreTraining")
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_head_mask_silences_heads_under_both_kernels(backend, name, implementation):
    model, inputs = backend.make_model(name, attn_implementation=implementation), backend.make_inputs(name)
    mask = backend.native(np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.5]]))
    masked = model(**inputs, head_mask=mask, output_attentions=True)
    plain = model(**inputs, output_attentions=True)
    attentions = to_numpy(masked.attentions[0])
    assert np.abs(attentions[:, 1]).max() == 0
    np.testing.assert_array_equal(attentions[:, 0], to_numpy(plain.attentions[0])[:, 0])
    assert np.abs(to_numpy(masked[MAIN_OUTPUT[name]]) - to_numpy(plain[MAIN_OUTPUT[name]])).max() > 1e-3


@pytest.mark.every_day("torch", "ViTModel")
def test_pruning_is_masking_for_good(backend, name):
    with backend.doubles():
        model, inputs = backend.make_model(name, dtype="float64"), backend.make_inputs(name)
        mask = backend.native(np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))
        expected = model(**inputs, head_mask=mask)[MAIN_OUTPUT[name]]
        model.prune_heads({0: [1]})
        assert model.config.pruned_heads == {0: [1]}
        check_same(model(**inputs)[MAIN_OUTPUT[name]], expected, 1e-12)
        model.prune_heads({0: [1], 1: [2]})
        assert model.config.pruned_heads == {0: [1], 1: [2]}
        shapes = {key: array.shape for key, array in model.canonical_tensors().items()}
        assert shapes == {key: row.shape for key, row in model.parameter_table().items()}
        with pytest.raises(ConfigError):
            model.prune_heads({0: [0, 2]})


@pytest.mark.every_day("torch", "ViTModel")
def test_attention_dropout_is_drawn_for_every_number(backend, name):
    model = backend.make_model(name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    output = backend.train(model, 0, {**backend.make_inputs(name), "output_attentions": True})
    attentions = to_numpy(output.attentions[0])
    dropped = (attentions == 0).reshape(-1, *attentions.shape[2:])  # (batch * heads, tokens, tokens)
    assert len(np.unique(dropped, axis=0)) == len(dropped)


@pytest.mark.every_day("torch", "ViTModel")
def test_dropout_is_on_in_training_only(backend, name):
    model = backend.make_model(name, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    inputs = backend.make_inputs(name)
    first, second = (model(**inputs)[MAIN_OUTPUT[name]] for _ in range(2))
    check_same(first, second)
    same, first, second = (to_numpy(backend.train(model, seed, inputs)[MAIN_OUTPUT[name]]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, first)
    assert np.abs(first - second).max() > 1e-3


def test_mask_ratio_zero_encodes_everything_in_image_order(backend):
    whole = backend.make_model("ViTMAEModel")(**backend.make_inputs("ViTMAEModel"), mask_ratio=0)
    assert whole.last_hidden_state.shape == (2, 1 + PATCHES, 24)
    assert to_numpy(whole.mask).sum() == 0
    np.testing.assert_array_equal(to_numpy(whole.ids_restore), np.tile(np.arange(PATCHES), (2, 1)))


def test_only_kept_patches_and_one_token_per_patch_are_gathered(backend, monkeypatch):
    vit_mae, lengths = backend.package.vit_mae, []
    take = vit_mae.take
    monkeypatch.setattr(vit_mae, "take", lambda tokens, ids: lengths.append(tokens.shape[1]) or take(tokens, ids))
    backend.make_model("ViTMAEForPreTraining")(**backend.make_inputs("ViTMAEForPreTraining"))
    assert lengths == [PATCHES, PATCHES]  # those of the encoder, and those of the decoder


@pytest.mark.parametrize("size", [(12, 20), (16, 8), (14, 23)])
def test_patchify_and_back(backend, size):
    model = backend.make_model("ViTMAEForPreTraining")
    pixel_values = np.random.default_rng(1).standard_normal((2, 3, *size), np.float32)
    patches = model.patchify(backend.native(pixel_values), interpolate_pos_encoding=True)
    rows, columns = size[0] // 4, size[1] // 4
    assert patches.shape == (2, rows * columns, 48)
    np.testing.assert_array_equal(to_numpy(patches)[1, columns, :4], pixel_values[1, :, 4, :2].T.flatten()[:4])
    whole = pixel_values[:, :, : rows * 4, : columns * 4]
    np.testing.assert_array_equal(to_numpy(model.unpatchify(patches, size)), whole)
    with pytest.raises(InputError, match="unpatchify"):
        model.unpatchify(patches[:, 1:], size)


def test_unseen_pixels_are_named_once(backend, caplog):
    warn_unseen.cache_clear()
    model = backend.make_model("ViTModel", image_size=(13, 22))
    with caplog.at_level(logging.WARNING, logger="vitriad"):
        for _ in range(2):
            model(backend.native(np.zeros((1, 3, 15, 21), np.float32)), interpolate_pos_encoding=True)
    assert [record.getMessage() for record in caplog.records] == [
        "images of 13x22 pixels in patches of 4x4: the bottom 1 rows and the right 2 columns are never seen",
        "images of 15x21 pixels in patches of 4x4: the bottom 3 rows and the right 1 columns are never seen",
    ]


def test_functions_of_activation_are_those_of_the_reference(backend):
    functions = import_module(f"{backend.package.__name__}.activations").FUNCTIONS
    x = np.linspace(-12, 12, 202).reshape(2, 101)[:, 1:]  # far enough out to clip; zero is among them
    assert {*functions} | {*SAME_ACTIVATIONS} | {*ACTIVATION_PARAMETERS} == {*ACTIVATIONS, "swiglu"}
    with backend.doubles():
        for name, function in functions.items():
            expected = ACTIVATION_FUNCTIONS[name](x)
            np.testing.assert_allclose(
                to_numpy(function(backend.native(x))), expected, rtol=0, atol=1e-12, err_msg=name
            )


@pytest.mark.every_day("torch")
def test_every_activation_runs_with_the_parameters_of_the_table(backend):
    inputs = backend.make_inputs("ViTModel")
    for activation in ACTIVATIONS:
        model = backend.make_model("ViTModel", hidden_act=activation, pooler_act=activation, num_hidden_layers=1)
        assert np.isfinite(to_numpy(model(**inputs).pooler_output)).all(), activation
    doubled = backend.make_model("ViTModel", hidden_act=lambda x: 2 * x)
    assert np.isfinite(to_numpy(doubled(**inputs).last_hidden_state)).all()
