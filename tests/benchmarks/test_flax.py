"""Speed of the JAX backend on this machine; read the ratios within a group, not the times.

`make bench` runs these. The floor is what the same matrix products alone take: XLA's own, which on a CPU are slower
than torch's or TensorFlow's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_flax
from vit_core.parameters import draw

pytestmark = pytest.mark.bench

BATCH = 4


def matrix_products(config: vit_flax.ViTConfig, batch: int):
    """A function that does the matrix products of one forward pass of ViT and nothing else."""
    tokens, hidden, mlp, layers = 197, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    shapes = (
        *((batch * tokens, hidden), (batch * tokens, mlp), (hidden, hidden), (hidden, mlp), (mlp, hidden)),
        *((batch, heads, tokens, head_dim), (batch, heads, tokens, tokens)),
    )
    x, y, square, up, down, query, scores = (jax.random.normal(jax.random.key(0), shape) for shape in shapes)
    product, transposed = jax.jit(jnp.matmul), jax.jit(lambda a, b: a @ b.swapaxes(2, 3))

    def run() -> None:
        for _ in range(layers):
            for _ in range(4):
                product(x, square).block_until_ready()
            transposed(query, query).block_until_ready()
            product(scores, query).block_until_ready()
            product(x, up).block_until_ready()
            product(y, down).block_until_ready()

    return run


@pytest.mark.benchmark(group="JAX: forward ViT-B/16, batch 4, float32")
@pytest.mark.parametrize("what", ["floor", "eager", "sdpa", "raw jit"])
def test_forward(benchmark, what):
    config = vit_flax.ViTConfig.preset("vit-base-patch16-224")
    config.attn_implementation = what if what == "sdpa" else "eager"
    model = vit_flax.FlaxViTForImageClassification(config)
    images = jax.random.normal(jax.random.key(0), (BATCH, 3, 224, 224))
    compiled = jax.jit(lambda params, images: model.module.apply({"params": params}, images).logits)
    runs = {
        "floor": matrix_products(config, BATCH),
        "raw jit": lambda: compiled(model.params, images).block_until_ready(),
    }
    run = runs.get(what, lambda: model(images).logits.block_until_ready())
    benchmark.pedantic(run, rounds=5, warmup_rounds=2)


@pytest.mark.benchmark(group="JAX: training step ViTMAE-B, batch 4, float32")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_mae_step(benchmark, checkpointing):
    model = vit_flax.FlaxViTMAEForPreTraining(vit_flax.ViTMAEConfig.preset("vit-mae-base"))
    if checkpointing:
        model.gradient_checkpointing_enable()
    images, key = jax.random.normal(jax.random.key(0), (BATCH, 3, 224, 224)), jax.random.key(1)
    step = jax.jit(jax.grad(lambda params: model(images, params=params, mask_rng=key).loss))
    benchmark.pedantic(lambda: jax.block_until_ready(step(model.params)), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="JAX: a second call of a small model")
@pytest.mark.parametrize("what", ["raw jit", "call"])
def test_overhead(benchmark, what):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = vit_flax.FlaxViTModel(vit_flax.ViTConfig(**sizes, image_size=8, patch_size=4))
    images = np.zeros((1, 3, 8, 8), np.float32)
    compiled = jax.jit(lambda params, images: model.module.apply({"params": params}, images))
    runs = {"raw jit": lambda: compiled(model.params, images), "call": lambda: model(images)}
    benchmark.pedantic(lambda: jax.block_until_ready(runs[what]()), rounds=200, warmup_rounds=20)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    config = vit_flax.ViTConfig.preset("vit-large-patch16-224")
    tensors = draw(config, "ViTForImageClassification", seed=0)
    vit_flax.FlaxViTForImageClassification.from_tensors(config, tensors).save_pretrained(folder)
    return folder


@pytest.mark.benchmark(group="JAX: loading ViT-L/16, 304 M parameters")
@pytest.mark.parametrize("what", ["read the bytes", "verified", "unverified", "random initialisation"])
def test_load(benchmark, large, what):
    cls = vit_flax.FlaxViTForImageClassification
    runs = {
        "read the bytes": lambda: (large / "model.safetensors").read_bytes(),
        "verified": lambda: jax.block_until_ready(cls.from_pretrained(large).params),
        "unverified": lambda: jax.block_until_ready(
            cls.from_pretrained(large, verify=False, allow_nonfinite=True).params
        ),
        "random initialisation": lambda: jax.block_until_ready(
            cls(vit_flax.ViTConfig.preset("vit-large-patch16-224")).params
        ),
    }
    benchmark.pedantic(runs[what], rounds=3, warmup_rounds=1)
