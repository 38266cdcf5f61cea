"""How a model is called: its arguments in every form, and the compiled code behind a call."""

import copy
import inspect
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax_models import make_config, make_inputs, make_model

import vit_flax
from vit_core import InputError

CLASSIFIER, AUTOENCODER = "FlaxViTForImageClassification", "FlaxViTMAEForPreTraining"
SWITCHES = ("train", "output_attentions", "output_hidden_states", "return_dict")
VIT = ("params", "dropout_rng", *SWITCHES, "head_mask", "interpolate_pos_encoding")
MAE = (
    "params",
    "dropout_rng",
    "mask_rng",
    *SWITCHES,
    "head_mask",
    "interpolate_pos_encoding",
    "mask_ratio",
    "bool_masked_pos",
)
SIGNATURES = {
    "FlaxViTModel": ("pixel_values", *VIT, "bool_masked_pos"),
    "FlaxViTForImageClassification": ("pixel_values", *VIT, "labels"),
    "FlaxViTForMaskedImageModeling": ("pixel_values", "bool_masked_pos", *VIT),
    "FlaxViTMAEModel": ("pixel_values", "noise", *MAE),
    "FlaxViTMAEForPreTraining": ("pixel_values", "noise", *MAE),
}


def check_same(got, expected, tolerance=0.0):
    assert type(got) is type(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def test_positional_order_is_the_documented_one(name):
    assert tuple(inspect.signature(getattr(vit_flax, name).__call__).parameters)[1:] == (
        *SIGNATURES[name],
        "drop_path_mask",
    )


@pytest.mark.every_day("FlaxViTForImageClassification", "FlaxViTMAEModel")
def test_arguments_in_every_form_give_the_same(name):
    model, inputs = make_model(name), make_inputs(name)
    expected = model(**inputs)
    images = inputs["pixel_values"]
    for got in (
        model(*inputs.values()),
        model(**{key: jnp.asarray(value) for key, value in inputs.items()}),
        model(**{key: value.tolist() for key, value in inputs.items()}),
        model(**{**inputs, "pixel_values": images.astype(np.float64)}),
        model(**{**inputs, "pixel_values": images.transpose(0, 2, 3, 1)}),
        jax.jit(lambda inputs: model(**inputs))(inputs),
    ):
        check_same(got, expected, 1e-6)


def without(params, *path):
    first, *rest = path
    return {**params, first: without(params[first], *rest)} if rest else {k: v for k, v in params.items() if k != first}


PARAMS = {
    "an empty tree": (lambda params: {}, "40 do not fit: vit.embeddings.cls_token missing"),
    "a list": (lambda params: [1], "nested dict of parameters, got list"),
    "variables": (lambda params: {"params": params}, "under 'params'"),
    "another shape": (
        lambda p: {**p, "classifier": {**p["classifier"], "bias": np.ones(6)}},
        r"classifier.bias \(6,\)",
    ),
    "something missing": (lambda p: without(p, "vit", "layernorm", "scale"), "vit.layernorm.scale missing"),
    "something unknown": (lambda params: {**params, "adapter": np.ones(3)}, "adapter unknown"),
}


@pytest.mark.parametrize("change", PARAMS)
def test_parameters_that_do_not_fit_are_refused(change):
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    broken, text = PARAMS[change][0](model.params), PARAMS[change][1]
    for give in (lambda: model(**inputs, params=broken), lambda: setattr(model, "params", broken)):
        with pytest.raises(InputError, match=text) as caught:
            give()
        assert len(str(caught.value).splitlines()) <= 3
    model(**inputs)


@pytest.mark.parametrize("key", [0, "a", np.zeros(2, np.float32), jax.random.split(jax.random.key(0)), None])
def test_what_is_no_key_is_refused(key):
    model, inputs = make_model(AUTOENCODER, hidden_dropout_prob=0.1), make_inputs(AUTOENCODER)
    with pytest.raises(InputError, match="dropout_rng"):
        model(**inputs, train=True, dropout_rng=key)
    for call, name in ((model.init_weights, "rng"), (partial(model, inputs["pixel_values"]), "mask_rng")):
        if key is not None or name == "rng":
            with pytest.raises(InputError, match=name):
                call(**{name: key})


@pytest.mark.parametrize("seed", ["a", -1, 0.5, None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InputError, match="seed"):
        vit_flax.FlaxViTModel(make_config("FlaxViTModel"), seed=seed)


def test_compiled_code_never_keeps_a_mask():
    model, images = make_model(AUTOENCODER), make_inputs(AUTOENCODER)["pixel_values"]
    losses = [jax.value_and_grad(lambda params: model(images, params=params).loss)(model.params)[0] for _ in range(2)]
    assert losses[0] != losses[1]
    for compiled in (jax.jit(lambda params: model(images, params=params).loss), jax.jit(lambda _: model(images).loss)):
        with pytest.raises(InputError, match="mask_rng"):
            compiled(model.params)


CHANGES = {
    "weights": lambda model: setattr(model, "params", jax.tree.map(lambda leaf: 2 * leaf, model.params)),
    "heads": lambda model: model.prune_heads({0: [1]}),
    "configuration": lambda model: setattr(model.config, "layer_norm_eps", 0.5),
    "activation": lambda model: setattr(model.config, "hidden_act", jnp.sin),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen_by_the_next_call(change):
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    before = model(**inputs).logits
    CHANGES[change](model)
    after = model(**inputs).logits
    np.testing.assert_allclose(
        after, model.module.apply({"params": model.params}, **inputs).logits, rtol=0, atol=1e-5 * np.abs(after).max()
    )
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize("act", [jnp.tanh, jax.nn.gelu, partial(jax.nn.gelu, approximate=False), lambda x: 2 * x])
def test_calls_with_activations_of_the_user_are_compiled_once(act):
    model, inputs = make_model(CLASSIFIER, hidden_act=act), make_inputs(CLASSIFIER)
    for _ in range(3):
        model(**inputs)
    assert model._compiled_call() is model._compiled_call()
    assert model._compiled_call()._cache_size() == 1


@pytest.mark.every_day("FlaxViTModel", "FlaxViTMAEForPreTraining")
def test_models_are_copied_and_pickled(name):
    model, inputs = make_model(name), make_inputs(name)
    expected = model(**inputs)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.config.layer_norm_eps = 0.5
        assert np.abs(twin(**inputs)[0] - expected[0]).max() > 0
        check_same(model(**inputs), expected)
