"""Features from inside an encoder in JAX's own ways: compiled once, differentiated, and with other parameters."""

import jax
import numpy as np
from flax_models import Flax
from sameness import check_same

PIXELS = np.random.default_rng(5).standard_normal((2, 3, 8, 28)).astype(np.float32)


def make_model():
    return Flax().make_model("FlaxViTModel", num_hidden_layers=3)


def test_stopping_early_compiles_once():
    model = make_model()
    for depth in (1, 1, 2, 1):
        model.forward_intermediates(PIXELS, [depth - 1], stop_early=True)
    assert {depth: call._cache_size() for depth, (_, call) in model._compiled_depths.items()} == {1: 1, 2: 1}


def test_a_changed_configuration_is_compiled_anew():
    model = make_model()
    before = model.forward_intermediates(PIXELS, [0], stop_early=True, intermediates_only=True)[0]
    model.config.layer_norm_eps = 0.5
    after = model.forward_intermediates(PIXELS, [0], stop_early=True, intermediates_only=True)[0]
    check_same(after, np.asarray(model.forward_intermediates(PIXELS, [0], intermediates_only=True)[0]), 1e-6)
    assert np.abs(np.asarray(after) - np.asarray(before)).max() > 1e-3


def test_it_is_a_function_of_the_parameters():
    model = make_model()

    def total(params):
        return model.forward_intermediates(PIXELS, [1], stop_early=True, params=params, norm=True)[1][0].sum()

    doubled = jax.tree.map(lambda array: 2 * array, model.params)
    compiled, plain = jax.jit(total), total(doubled)
    np.testing.assert_allclose(compiled(doubled), plain, rtol=1e-4)
    gradients = jax.grad(total)(model.params)["encoder"]["layer"]
    largest = [float(np.abs(gradients[i]["output"]["dense"]["kernel"]).max()) for i in "012"]
    assert largest[0] > 0 and largest[1] > 0 and largest[2] == 0
