"""Features from inside an encoder in TensorFlow's own ways: kept graphs, and calls inside graphs."""

import numpy as np
import tensorflow as tf
from sameness import check_same
from tf_models import TensorFlow

PIXELS = np.random.default_rng(5).standard_normal((2, 3, 8, 28)).astype(np.float32)


def make_model():
    return TensorFlow().make_model("TFViTModel", compiles=True, num_hidden_layers=3)


def test_stopping_early_compiles_once_and_adds_no_weights():
    model = make_model()
    names = [weight.path for weight in model.weights]
    for depth in (1, 1, 2, 1):
        model.forward_intermediates(PIXELS, [depth - 1], stop_early=True)
    kept = model._graphs.of_first_layers
    assert {depth: len(made._graphs.functions) for depth, made in kept.items()} == {1: 1, 2: 1}
    assert [weight.path for weight in model.weights] == names


def test_what_is_set_on_the_model_holds_for_its_first_layers():
    model = make_model()
    model.forward_intermediates(PIXELS, [0], stop_early=True)
    model.compiles_calls = False
    model.gradient_checkpointing_enable()
    model.forward_intermediates(PIXELS, [0], stop_early=True)
    made = model._graphs.of_first_layers[1]
    assert (made.compiles_calls, made.encoder.checkpointing, len(made.encoder.layer)) == (False, True, 1)


def test_a_function_takes_images_of_any_size():
    model = make_model()
    signature = [tf.TensorSpec((None, 3, None, None))]
    function = tf.function(
        lambda pixels: model.forward_intermediates(pixels, [0, 1], stop_early=True, norm=True)[1],
        input_signature=signature,
    )
    for pixels in (PIXELS, PIXELS[:1, :, :, :16]):
        expected = model.forward_intermediates(pixels, [0, 1], norm=True, intermediates_only=True)
        check_same(tuple(function(pixels)), tuple(expected), 1e-5)
