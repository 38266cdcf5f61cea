"""Training as JAX users do it: optax, keys, averages, frozen parts, meshes, checkpoints, export."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
from flax.serialization import to_bytes
from flax.training.train_state import TrainState
from flax_models import FIELDS, make_config, make_inputs, make_model
from jax import export
from sklearn.datasets import load_digits

import vit_flax
from vit_flax.compiled import switches_of

CLASSIFIER, MAE = "FlaxViTForImageClassification", "FlaxViTMAEForPreTraining"
DIGITS = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
IMAGES = jnp.asarray(load_digits().images[:512, None] / 8 - 1, jnp.float32)
CLASSES = jnp.asarray(load_digits().target[:512], jnp.int32)


@pytest.fixture(autouse=True)
def strict():
    """Not here: optax promotes."""


def fresh(name: str, **fields):
    return getattr(vit_flax, name)(make_config(name, **{**DIGITS, **fields}), seed=1)


def trained(model, optimizer, steps: int = 32) -> tuple[dict, list[float]]:
    """Parameters and losses of some steps over the digits, in a compiled step that gives its old state away."""
    is_mae = type(model).__name__ == MAE

    def loss_of(params, images, labels, key):
        rest = {"mask_rng": key} if is_mae else {"labels": labels}
        return model(images, params=params, train=True, dropout_rng=key, **rest).loss

    def step(params, state, images, labels, key):
        loss, gradients = jax.value_and_grad(loss_of)(params, images, labels, key)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    step = jax.jit(step, donate_argnums=(0, 1))
    params, losses = jax.tree.map(jnp.copy, model.params), []
    state = optimizer.init(params)
    for i in range(steps):
        batch = slice(i * 64 % 512, i * 64 % 512 + 64)
        key = jax.random.fold_in(jax.random.key(0), i)
        params, state, loss = step(params, state, IMAGES[batch], CLASSES[batch], key)
        losses.append(float(loss))
    assert step._cache_size() == 1
    return params, losses


@pytest.mark.every_day("MAE")
@pytest.mark.parametrize("name", [CLASSIFIER, MAE])
def test_the_loss_on_digits_falls(name):
    _, losses = trained(fresh(name, hidden_dropout_prob=0.1), optax.adamw(3e-3))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_bfloat16_computes_over_float32_parameters():
    model = vit_flax.FlaxViTForImageClassification(make_config(CLASSIFIER, **DIGITS), dtype=jnp.bfloat16, seed=1)
    params, losses = trained(model, optax.adamw(3e-3))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_dropout_is_that_of_its_key():
    one, same = (trained(fresh(CLASSIFIER, hidden_dropout_prob=0.3), optax.sgd(0.1), 4)[1] for _ in range(2))
    assert one == same


def test_averages_and_frozen_parts_go_through_masks_of_optax():
    model = fresh(CLASSIFIER)
    labels = jax.tree.map(lambda _: "frozen", model.params) | {
        "classifier": jax.tree.map(lambda _: "trained", model.params["classifier"])
    }
    optimizer = optax.multi_transform({"trained": optax.adamw(3e-3), "frozen": optax.set_to_zero()}, labels)
    params, _ = trained(model, optimizer, 4)
    for one, other in zip(*map(jax.tree.leaves, (params["vit"], model.params["vit"])), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(params["classifier"]["kernel"] != model.params["classifier"]["kernel"])
    average = optax.ema(0.5, debias=False)
    mean, _ = average.update(params, average.init(params))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other / 2), dict(mean), dict(params))


def test_positions_of_an_autoencoder_stay():
    model = fresh(MAE)
    params, _ = trained(model, optax.sgd(0.1), 2)
    for tree in (params, model.params):
        found = tree["vit"]["embeddings"]["position_embeddings"], tree["decoder"]["decoder_pos_embed"]
        for one, row in zip(found, ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"), strict=True):
            np.testing.assert_array_equal(one, model.canonical_tensors()[row])


def test_parameters_pass_through_orbax(tmp_path):
    model = make_model(CLASSIFIER)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", model.params)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "params", model.params_shape_tree)
    jax.tree.map(np.testing.assert_array_equal, restored, dict(model.params))


@pytest.mark.every_day("gelu-FlaxViTForImageClassification", "xielu-FlaxViTMAEForPreTraining")
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("hidden_act", ["gelu", "xielu"])
def test_a_train_state_is_loaded_as_its_parameters(tmp_path, name, hidden_act):
    model = make_model(name, hidden_act=hidden_act)
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(3e-3), optax.trace(0.9))
    state = TrainState.create(apply_fn=model.module.apply, params=model.params, tx=optimizer)
    state = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, model.params))
    model.config.save_pretrained(tmp_path)
    for file, tree in {"state.msgpack": state, "variables.msgpack": {"params": state.params}}.items():
        (tmp_path / file).write_bytes(to_bytes(tree))
        found = type(model).from_pretrained(tmp_path / file)
        jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(state.params))


def test_modules_become_those_of_nnx():
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]
    bridged = nnx.bridge.ToNNX(model.module, rngs=nnx.Rngs(0)).lazy_init(images)
    expected = model.module.apply({"params": nnx.to_pure_dict(nnx.state(bridged, nnx.Param))}, images).logits
    np.testing.assert_allclose(bridged(images).logits, expected, rtol=0, atol=1e-6)


@pytest.mark.every_day("ForImageClassification", "MAEModel")
@pytest.mark.parametrize("name", FIELDS)
def test_exports_take_any_number_of_images(name):
    model, inputs = make_model(name), make_inputs(name)
    (batch,) = export.symbolic_shape("batch")
    specs = {key: jax.ShapeDtypeStruct((batch, *value.shape[1:]), value.dtype) for key, value in inputs.items()}
    written = export.export(jax.jit(lambda params, inputs: model(**inputs, params=params)))(model.params, specs)
    read = export.deserialize(bytearray(written.serialize()))
    expected = model(**inputs)
    for count in (1, 2):
        got = read.call(model.params, {key: value[:count] for key, value in inputs.items()})
        assert type(got) is type(expected)
        if count == 2:
            for key, value in expected.items():
                np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=key)


def test_calls_are_compiled_once_per_shapes_and_switches():
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]
    for _ in range(3):
        model(images)
    assert model._compiled_call()._cache_size() == 1
    model(images, params=jax.tree.map(jnp.zeros_like, model.params))
    assert model._compiled_call()._cache_size() == 1
    model(images, output_attentions=True)
    assert model._compiled_call()._cache_size() == 2
    text = model._compiled_call().lower(model.params, {}, {"pixel_values": images}, static_of(model)).as_text()
    assert "callback" not in text
    assert re.findall(r"constant dense<\S+> : tensor<24x", text) == []  # no parameter among the constants


def static_of(model) -> tuple:
    switches = switches_of(model._flags(None, None, None))
    return tuple(sorted({**switches, "interpolate_pos_encoding": False, "deterministic": True}.items()))


def test_users_transform_the_pure_module():
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]

    def logits_of(params, image):
        return model.module.apply({"params": params}, image[None]).logits[0]

    expected = model(images).logits
    got = jax.vmap(logits_of, in_axes=(None, 0))(model.params, images)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    _, scanned = jax.lax.scan(lambda carry, image: (carry, logits_of(model.params, image)), 0, images)
    np.testing.assert_allclose(scanned, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.long
def test_two_devices_compute_what_one_does():
    code = Path(__file__).with_name("on_two_devices.py")
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    run = subprocess.run([sys.executable, code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
