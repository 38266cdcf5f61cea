"""Every output, hidden state, attention, loss and gradient of every class against the float64 oracle."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax_models import BACKEND

import vit_flax

EVERYTHING = {"output_attentions": True, "output_hidden_states": True}


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@cache
def computed(case: oracle.Case, dtype: str) -> tuple[dict, dict]:
    """Outputs, and gradients by canonical name: one program, as compiling is what takes the time here."""
    model = BACKEND.of_case(case, dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {np.dtype(dtype)}
    arrays = {name: jnp.asarray(value) for name, value in case.inputs.items() if isinstance(value, np.ndarray)}
    flags = {name: value for name, value in case.inputs.items() if name not in arrays}
    flags["train"] = case in oracle.TRAINING_CASES

    def scalar_and_output(params, arrays):
        output = dict(model(**arrays, **flags, **EVERYTHING, params=params))
        weights = {name: jnp.asarray(weight, output[name].dtype) for name, weight in oracle.projection(case).items()}
        return sum((output[name] * weight).sum() for name, weight in weights.items()), output

    found, output = jax.jit(jax.grad(scalar_and_output, has_aux=True))(model.params, arrays)
    gradients, table = model.canonical_tensors(found), model.parameter_table()
    for name in [name for name in gradients if not table[name].trainable]:
        np.testing.assert_array_equal(gradients.pop(name), 0, err_msg=name)
    return output, gradients


def test_norms_survive_a_large_mean():
    x = 1000 + np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
    norm = vit_flax.layers.layer_norm(vit_flax.ViTConfig(), np.float32)
    got = norm.apply({"params": {"scale": np.ones(24, np.float32), "bias": np.zeros(24, np.float32)}}, x)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)


@pytest.mark.every_day("ViTModel-plain", "one_side_larger", "ViTMAEModel-pruned", "ViTMAEForPreTraining-square")
@pytest.mark.parametrize("case", oracle.CASES[::4], ids=lambda case: case.name)
def test_attention_in_blocks_gives_the_same(case, monkeypatch):
    kernel, calls = vit_flax.layers.attended, []
    monkeypatch.setattr(vit_flax.layers, "attended", lambda *args: calls.append(args) or kernel(*args, block=7))
    model = BACKEND.of_case(case, "float32")
    output = model(**case.inputs)
    decoder_layers = getattr(case.config, "decoder_num_hidden_layers", 0) if "PreTraining" in case.cls else 0
    layers = 0 if "head_mask" in case.inputs else case.config.num_hidden_layers
    assert len(calls) == layers + decoder_layers
    want = oracle.expected(case)
    got = oracle.as_numpy(output)
    oracle.check_outputs(case, {**{name: want[name] for name in want if name not in got}, **got}, "float32")


@pytest.mark.every_day(*(f"float64 {name}" for name in oracle.EVERY_DAY_COMPILED), "float32 square")
@pytest.mark.parametrize("case", (*oracle.CASES, *oracle.TRAINING_CASES), ids=str)
def test_outputs(case, dtype):
    output, _ = computed(case, dtype)
    computed_values = [out for name, out in output.items() if name not in ("mask", "ids_restore")]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(computed_values)} == {dtype}
    oracle.check_outputs(case, oracle.as_numpy(output), dtype)


@pytest.mark.every_day(*(f"float64 {name}" for name in oracle.EVERY_DAY_COMPILED), "float32 square")
@pytest.mark.parametrize("case", (*oracle.CASES, *oracle.TRAINING_CASES), ids=str)
def test_gradients(case, dtype):
    _, gradients = computed(case, dtype)
    oracle.check_gradients(case, gradients, dtype)


@pytest.mark.every_day("ViTModel-mask", "ViTForImageClassification-single_label", "ViTMAEModel-larger")
@pytest.mark.parametrize("case", oracle.CASES[1::8], ids=lambda case: case.name)
def test_a_plain_call_gives_the_same(case):
    model = BACKEND.of_case(case, "float32")
    oracle.check_outputs(case, oracle.as_numpy(model(**case.inputs, **EVERYTHING)), "float32")
