"""One training step on two simulated devices, by both rules of vit_flax.sharding, against the same step on one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import vit_flax
from vit_flax.sharding import DATA, MODEL, fully_sharded, shardings, tensor_parallel

SIZES = {"image_size": 8, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
assert len(jax.devices()) == 2
model = vit_flax.FlaxViTForImageClassification(vit_flax.ViTConfig(**SIZES, intermediate_size=36, num_labels=5), seed=1)
images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
labels = np.array([0, 1, 2, 3], np.int32)


def step(params, images, labels):
    loss, gradients = jax.value_and_grad(lambda p: model(images, params=p, labels=labels).loss)(params)
    return loss, jax.tree.map(lambda leaf, gradient: leaf - gradient, params, gradients)


expected, after = jax.jit(step)(model.params, images, labels)
RULES = {DATA: lambda params: fully_sharded(params, 2), MODEL: tensor_parallel}
for axis, rule in RULES.items():
    mesh = jax.make_mesh((2,), (axis,), axis_types=(AxisType.Auto,))
    places = shardings(mesh, rule(model.params))
    batch = NamedSharding(mesh, PartitionSpec(DATA) if axis == DATA else PartitionSpec())
    compiled = jax.jit(step, in_shardings=(places, batch, batch), out_shardings=(None, places))
    params = jax.device_put(model.params, places)
    loss, got = compiled(params, images, labels)
    layer = got["vit"]["encoder"]["layer"]["0"]
    for kernel in (layer["attention"]["attention"]["query"]["kernel"], layer["intermediate"]["dense"]["kernel"]):
        assert kernel.addressable_shards[0].data.size == kernel.size // 2, (axis, kernel.shape)
    text = compiled.lower(params, images, labels).compile().as_text()
    assert "all-reduce" in text or "all-gather" in text or "reduce-scatter" in text, axis
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1, np.abs(b).max())), got, after)
assert jnp.isfinite(expected)
