"""The five classes in JAX: its keys, dtypes, trees and compiled code."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from flax_models import make_config, make_inputs, make_model
from sameness import check_same
from small_models import MAIN_OUTPUT

import vit_flax
import vit_flax.layers
from vit_core import ConfigError, InputError

CLASSIFIER = "FlaxViTForImageClassification"


@pytest.mark.every_day("FlaxViTModel", "FlaxViTMAEForPreTraining")
def test_gradient_checkpointing_is_in_the_program(name):
    model, inputs = make_model(name), make_inputs(name)
    for switch, count in ((model.gradient_checkpointing_enable, 2), (model.gradient_checkpointing_disable, 0)):
        switch()
        text = str(jax.make_jaxpr(lambda params: model(**inputs, params=params)[0])(model.params))
        assert min(text.count("remat"), 2) == count


@pytest.mark.every_day("ForImageClassification", "MAEForPreTraining bfloat16")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["the same", "float32"])
def test_half_precision_stays_near_and_losses_are_wide(name, dtype, stored):
    model, inputs = make_model(name), make_inputs(name)
    wide = model(**inputs)[MAIN_OUTPUT[name.removeprefix("Flax")]]
    with jax.numpy_dtype_promotion("standard"):
        half = getattr(vit_flax, name)(model.config, dtype=dtype, _do_init=False)
        cast = {"bfloat16": half.to_bf16, "float16": half.to_fp16}[dtype]
        labels = {"labels": np.array([0, 4])} if name == CLASSIFIER else {}
        output = half(**inputs, **labels, params=model.params if stored == "float32" else cast(model.params))
    assert output[MAIN_OUTPUT[name.removeprefix("Flax")]].dtype.name == dtype
    error = np.abs(np.asarray(output[MAIN_OUTPUT[name.removeprefix("Flax")]], np.float32) - wide).max()
    assert error < (0.05 if dtype == "bfloat16" else 0.006) * np.abs(wide).max()
    assert output.get("loss", jnp.zeros(())).dtype == np.float32


@pytest.mark.every_day("ForImageClassification", "MAEForPreTraining")
def test_softmax_is_computed_in_float32(name):
    model, inputs = getattr(vit_flax, name)(make_config(name), dtype=jnp.bfloat16, seed=0), make_inputs(name)
    with jax.numpy_dtype_promotion("standard"):
        text = jax.jit(lambda params: model(**inputs, params=params)).lower(model.params).as_text()
    exponentials = re.findall(r"stablehlo.exponential %\w+ : tensor<\w*x(\w+)>", text)
    assert set(exponentials) == {"f32"}


@pytest.mark.every_day("FlaxViTMAEModel")
@pytest.mark.parametrize("name", ["FlaxViTMAEModel", "FlaxViTMAEForPreTraining"])
def test_noise_is_drawn_anew_for_each_call_when_none_is_given(name):
    images = make_inputs(name)["pixel_values"]
    one, same = ([make_model(name)(images).mask for model in [make_model(name)]] for _ in range(2))
    check_same(one, same)
    model = make_model(name)
    masks = [np.asarray(model(images).mask).tobytes() for _ in range(4)]
    assert len(set(masks)) == 4
    by_key = [model(images, mask_rng=key).mask for key in (jax.random.key(3), jax.random.PRNGKey(3))]
    check_same(*by_key)
    for compiled in (lambda: model(images), lambda: jax.grad(lambda p: model(images, params=p)[0].sum())(model.params)):
        with pytest.raises(InputError, match="mask_rng"):  # also where the images are constants
            jax.jit(compiled)()
    jax.jit(lambda images, key: model(images, mask_rng=key))(images, jax.random.key(3))


def test_a_label_out_of_range_makes_compiled_losses_nan():
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    output = jax.jit(lambda labels: model(**inputs, labels=labels))(jnp.array([1, 7]))
    assert np.isnan(output.loss)


def test_activation_modules_may_not_have_parameters():
    for name in ("hidden_act", "pooler_act"):
        with pytest.raises(ConfigError, match="PReLU"):
            vit_flax.FlaxViTModel(make_config("FlaxViTModel", **{name: linen.PReLU()}), _do_init=False)


def test_trees_are_cast_where_a_mask_says():
    model = make_model("FlaxViTModel")
    chosen = jax.tree.map(lambda leaf: leaf.ndim > 1, model.params)
    for cast, dtype in ((model.to_bf16, "bfloat16"), (model.to_fp16, "float16")):
        for leaf, is_chosen in zip(*map(jax.tree.leaves, (cast(model.params, chosen), chosen)), strict=True):
            assert leaf.dtype.name == (dtype if is_chosen else "float32")
        assert {leaf.dtype.name for leaf in jax.tree.leaves(model.to_fp32(cast(model.params)))} == {"float32"}


@pytest.mark.every_day("ForImageClassification")
@pytest.mark.parametrize(
    "name", ["FlaxViTForImageClassification", "FlaxViTForMaskedImageModeling", "FlaxViTMAEForPreTraining"]
)
def test_intermediates_hold_what_the_encoder_returns(name):
    model, inputs = make_model(name), make_inputs(name)
    kept = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, state = model.module.apply({"params": model.params}, **inputs, **kept)
    (encoded,) = state["intermediates"]["vit"]["__call__"]
    assert encoded.last_hidden_state.shape[2] == 24


def test_options_that_a_class_does_not_have_are_refused():
    with pytest.raises(InputError, match=r"no option 'pooling'\. Options are add_pooling_layer, use_mask_token"):
        vit_flax.FlaxViTModel(make_config("FlaxViTModel"), pooling=True)
    with pytest.raises(InputError, match=r"no option 'add_pooling_layer'"):
        vit_flax.FlaxViTMAEModel(make_config("FlaxViTMAEModel"), add_pooling_layer=False)


@pytest.mark.every_day("FlaxViTForImageClassification")
def test_dropout_takes_keys_of_both_kinds_and_asks_for_one(name):
    model, inputs = make_model(name, hidden_dropout_prob=0.5), make_inputs(name)
    by_key, by_numbers = (
        model(**inputs, train=True, dropout_rng=key).to_tuple() for key in (jax.random.key(1), jax.random.PRNGKey(1))
    )
    check_same(by_numbers, by_key)
    with pytest.raises(InputError, match="dropout_rng"):
        model(**inputs, train=True)


def test_pruned_parameters_may_be_set_again(name):
    model = make_model(name)
    model.prune_heads({0: [1]})
    model.params = model.params  # of the shapes that are wanted now


def summed(query, key, value, block):
    return vit_flax.layers.attended(query, key, value, block=block).sum()


@pytest.mark.parametrize("run", [summed, jax.grad(summed)], ids=["call", "gradient"])
def test_blocks_of_queries_hold_no_square_of_the_tokens(run):
    tokens = 600
    arguments = [jax.ShapeDtypeStruct((1, 2, tokens, 4), np.float32)] * 3
    whole, blocks = (
        jax.jit(partial(run, block=block)).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
        for block in (tokens, 20)
    )
    assert blocks < 4 * 2 * tokens * tokens / 4 < whole  # a quarter of the scores
