"""The parity harness can fail: it sees what is perturbed, missing, extra, misshapen, not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest

from vit_core.config import ACTIVATIONS
from vit_core.parameters import MODEL_CLASSES, draw

BY_NAME = {case.name: case for case in oracle.CASES}
CLASSIFIER = BY_NAME["ViTForImageClassification-single_label"]
MAE = BY_NAME["ViTMAEForPreTraining-plain"]
ENCODER = BY_NAME["ViTModel-head_mask_per_layer"]
SEVERAL = pytest.mark.parametrize("case", [CLASSIFIER, MAE, ENCODER], ids=str)
DTYPES = pytest.mark.parametrize("dtype", oracle.LADDER)


def perfect_gradients(case: oracle.Case) -> dict[str, Any]:
    """Gradients that have the expected derivatives along the directions."""
    want = oracle.directional_derivatives(case)
    return {name: way * want[name] / (way * way).sum() for name, way in oracle.directions(case).items()}


@SEVERAL
@DTYPES
def test_the_oracle_itself_passes(case, dtype):
    oracle.check_outputs(case, oracle.expected(case), dtype)
    oracle.check_gradients(case, perfect_gradients(case), dtype)


@SEVERAL
@DTYPES
def test_every_perturbed_output_is_named(case, dtype):
    want, rung = oracle.expected(case), oracle.LADDER[dtype]
    for name, value in want.items():
        layers = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for layer, array in layers:
            wrong = np.array(array, np.float64)
            wrong.flat[-1] += 1.1 * rung.tolerance * np.abs(array).max()
            changed = wrong if layer is None else (*value[:layer], wrong, *value[layer + 1 :])
            place = name if layer is None else rf"{name}\[{layer}\]"
            with pytest.raises(AssertionError, match=f"{case}: {place}"):
                oracle.check_outputs(case, {**want, name: changed}, dtype)


@SEVERAL
@DTYPES
def test_every_perturbed_gradient_is_named(case, dtype):
    gradients, ways = perfect_gradients(case), oracle.directions(case)
    scale = max(map(abs, oracle.directional_derivatives(case).values()))
    for name, way in ways.items():
        wrong = gradients[name] + 1.1 * oracle.LADDER[dtype].tolerance * scale * way / (way * way).sum()
        with pytest.raises(AssertionError, match=f"{case}: gradient of {name} "):
            oracle.check_gradients(case, {**gradients, name: wrong}, dtype)


@SEVERAL
def test_missing_and_extra_names(case):
    outputs, gradients = oracle.expected(case), perfect_gradients(case)
    for name in outputs:
        with pytest.raises(AssertionError, match="outputs: names"):
            oracle.check_outputs(case, {key: value for key, value in outputs.items() if key != name}, "float32")
    for name in gradients:
        with pytest.raises(AssertionError, match="gradients: names"):
            oracle.check_gradients(case, {key: value for key, value in gradients.items() if key != name}, "float32")
    with pytest.raises(AssertionError, match="outputs: names"):
        oracle.check_outputs(case, {**outputs, "cross_attentions": ()}, "float32")
    with pytest.raises(AssertionError, match="gradients: names"):
        oracle.check_gradients(case, {**gradients, "lm_head.weight": np.zeros(3)}, "float32")


@pytest.mark.parametrize("name", ["hidden_states", "attentions"])
def test_missing_layer(name):
    want = oracle.expected(ENCODER)
    with pytest.raises(AssertionError, match=f"number of {name}"):
        oracle.check_outputs(ENCODER, {**want, name: want[name][:-1]}, "float32")


def test_shapes_and_values_that_broadcasting_would_hide():
    want = oracle.expected(CLASSIFIER)
    with pytest.raises(AssertionError, match="loss: shape"):
        oracle.check_outputs(CLASSIFIER, {**want, "loss": want["loss"][None]}, "float32")
    with pytest.raises(AssertionError, match="logits"):
        oracle.check_outputs(CLASSIFIER, {**want, "logits": want["logits"] * np.nan}, "float32")
    gradients = perfect_gradients(CLASSIFIER)
    with pytest.raises(AssertionError, match="shape of the gradient of classifier"):
        oracle.check_gradients(
            CLASSIFIER, {**gradients, "classifier.weight": gradients["classifier.weight"].T}, "float32"
        )


def test_a_wrong_mask_is_wrong_in_every_dtype():
    want = oracle.expected(MAE)
    for name in ("mask", "ids_restore"):
        with pytest.raises(AssertionError, match=name):
            oracle.check_outputs(MAE, {**want, name: want[name][:, ::-1]}, "bfloat16")


@SEVERAL
def test_directional_derivatives_are_central_differences(case):
    h, tensors = 1e-5, oracle.random_tensors(case)
    want = oracle.directional_derivatives(case)
    scale = max(map(abs, want.values()))
    for name, way in oracle.directions(case).items():
        ends = [oracle.run(case, {**tensors, name: tensors[name] + sign * h * way}) for sign in (1, -1)]
        high, low = (oracle.scalar(outputs, case) for outputs in ends)
        np.testing.assert_allclose((high - low) / (2 * h) / scale, want[name] / scale, rtol=0, atol=1e-7, err_msg=name)


def test_cases_are_many_small_and_odd():
    np.testing.assert_equal(len(BY_NAME), len(oracle.CASES))
    np.testing.assert_equal({case.cls for case in oracle.CASES}, {*MODEL_CLASSES})
    np.testing.assert_equal({case.config.hidden_act for case in oracle.CASES}, {*ACTIVATIONS})
    np.testing.assert_array_less(44, len(oracle.CASES))
    for case in oracle.CASES:
        config = case.config
        sizes = config.hidden_size, config.intermediate_size, len(case.inputs["pixel_values"])
        np.testing.assert_array_less(sizes, (49, 49, 4), case.name)
        np.testing.assert_array_less(oracle.expected(case)["hidden_states"][0].shape[1], 61, case.name)
        head_dim = config.hidden_size // config.num_attention_heads
        np.testing.assert_equal(config.hidden_size != config.intermediate_size, True, case.name)
        np.testing.assert_equal(config.num_attention_heads != head_dim, True, case.name)


def test_every_parameter_is_random():
    for case in oracle.CASES:
        fresh = draw(case.config, case.cls, seed=0, **case.options)
        tensors = oracle.random_tensors(case)
        np.testing.assert_equal(sorted(tensors), sorted(fresh), case.name)
        for name, tensor in tensors.items():
            np.testing.assert_equal(tensor.shape, fresh[name].shape)
            np.testing.assert_equal((tensor != fresh[name]).all(), True, f"{case}: {name}")
            np.testing.assert_array_equal(tensor, tensor.astype(np.float32), name)  # exact in float32


def test_equal_names_are_equal_cases():
    again = oracle.build("ViTModel", "plain")
    np.testing.assert_equal(again.config.to_dict(), BY_NAME[again.name].config.to_dict())
    np.testing.assert_equal(again.inputs, BY_NAME[again.name].inputs)
