"""The five classes in Keras: its kernels, graphs, dtypes and random numbers."""

from functools import partial

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from small_models import MAIN_OUTPUT
from tf_models import BACKEND, make_config, make_inputs, make_model

import vit_tf
import vit_tf.layers
from vit_core import ConfigError

CLASSIFIER = "TFViTForImageClassification"


def check_same(got, expected, tolerance=0.0):
    for one, other in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.every_day("TFViTModel", "TFViTMAEForPreTraining")
@pytest.mark.parametrize("asked", [{"output_attentions": True}, {"head_mask": np.array([1.0, 0.0, 1.0])}])
def test_one_call_falls_back_to_eager_and_the_next_uses_the_kernel_again(name, asked, monkeypatch):
    calls = []
    kernel = vit_tf.layers.attended
    monkeypatch.setattr(vit_tf.layers, "attended", lambda *a: calls.append(1) or kernel(*a))
    model, inputs = make_model(name), make_inputs(name)
    encoder, decoder = 2, 1 if name == "TFViTMAEForPreTraining" else 0
    for flags, expected in (({}, encoder + decoder), (asked, decoder), ({}, encoder + decoder)):
        calls.clear()
        model(**inputs, **flags)
        assert len(calls) == expected
    model.set_attn_implementation("eager")
    calls.clear()
    model(**inputs)
    assert calls == []


@pytest.mark.parametrize("tokens", [1, 24, 25, 60])
def test_attention_in_blocks_of_queries_is_that_of_all_and_holds_no_square_of_the_tokens(tokens, monkeypatch):
    query, key, value = tf.random.stateless_normal((3, 2, 3, tokens, 5), (1, 2), dtype=tf.float64)
    whole = tf.nn.softmax(query @ tf.linalg.matrix_transpose(key)) @ value
    check_same(vit_tf.layers.attended(query, key, value, block=12), whole, 1e-14)
    attended = tf.function(partial(vit_tf.layers.attended, block=12))
    check_same(attended(query, key, value), whole, 1e-14)
    graph = attended.get_concrete_function(query, key, value).graph
    assert max(x.shape.num_elements() for op in graph.get_operations() for x in op.outputs) <= 2 * 3 * tokens * 12


def test_a_graph_of_any_tokens_attends_to_all_at_once():
    anything = tf.TensorSpec((None, 2, None, 4))
    attended = tf.function(vit_tf.layers.attended, input_signature=[anything] * 3)
    one, other = (tf.random.stateless_normal((3, batch, 2, 9, 4), (5, 6)) for batch in (1, 2))
    check_same(attended(*one), vit_tf.layers.attended(*one))
    check_same(attended(*other), vit_tf.layers.attended(*other))


@pytest.mark.every_day("TFViTForImageClassification")
def test_gradient_checkpointing_changes_no_gradient_of_a_compiled_call(name):
    options = {"compiles": True, "hidden_dropout_prob": 0.3, "num_hidden_layers": 1}
    model, inputs = make_model(name, "float64", **options), make_inputs(name)
    expected = BACKEND.gradients(model, 7, inputs)
    model.gradient_checkpointing_enable()
    for one, other in zip(BACKEND.gradients(model, 7, inputs), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.every_day("ForImageClassification", "mixed_float16")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_near_and_losses_are_wide(name, dtype):
    model, inputs, main = make_model(name), make_inputs(name), MAIN_OUTPUT[name.removeprefix("TF")]
    wide = model(**inputs)[main]
    stored = dtype if "mixed" not in dtype else "float32"
    tensors = {key: array.astype(stored) for key, array in model.canonical_tensors().items()}
    labels = {"labels": np.array([0, 4])} if name == CLASSIFIER else {}
    half = BACKEND.as_tested(getattr(vit_tf, name).from_tensors(model.config, tensors, dtype=dtype))(**inputs, **labels)
    is_head = "mixed" in dtype and "For" in name
    assert half[main].dtype.name == ("float32" if is_head else dtype.removeprefix("mixed_"))
    error = np.abs(tf.cast(half[main], tf.float32) - wide).max()
    assert error < (0.05 if "bfloat16" in dtype else 0.006) * np.abs(wide).max()
    assert half.get("loss", tf.zeros(())).dtype == tf.float32
    if labels:
        oracle.check_cross_entropy(half.loss, tf.cast(half.logits, tf.float32), **labels)


@pytest.mark.parametrize("compiles", [False, True])
def test_noise_comes_from_keras_when_none_is_given(compiles):
    model, inputs = make_model("TFViTMAEModel", compiles=compiles), make_inputs("TFViTMAEModel")
    masks = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        masks.append(model(inputs["pixel_values"]).mask.numpy())
        masks.append(model(inputs["pixel_values"]).mask.numpy())
    np.testing.assert_array_equal(masks[:2], masks[2:4])
    assert len({mask.tobytes() for mask in masks}) == 4


def test_a_label_out_of_range_makes_compiled_losses_nan():
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    for jit in (False, True):
        output = tf.function(model, jit_compile=jit)(**inputs, labels=tf.constant([1, 7]))
        assert np.isnan(output.loss)


def test_activation_layers_may_not_have_weights():
    assert vit_tf.TFViTModel(make_config("TFViTModel", hidden_act=keras.layers.ReLU()))
    with pytest.raises(ConfigError, match="PReLU"):
        vit_tf.TFViTModel(make_config("TFViTModel", hidden_act=keras.layers.PReLU()))


def test_fresh_models_train_all_but_the_positions():
    model = vit_tf.TFViTMAEForPreTraining(make_config("TFViTMAEForPreTraining"))
    assert [weight.trainable for weight in model.weights].count(False) == 2
