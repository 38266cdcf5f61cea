"""Speed of the TensorFlow backend on this machine; read the ratios within a group, not the times.

`make bench` runs these. The floor is what the same matrix products alone take.
"""

import numpy as np
import pytest
import tensorflow as tf

import vit_tf
from vit_core.parameters import draw

pytestmark = pytest.mark.bench

BATCH = 4


def matrix_products(config: vit_tf.ViTConfig, batch: int):
    """A function that does the matrix products of one forward pass of ViT and nothing else."""
    tokens, hidden, mlp, layers = 197, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    x, y = tf.random.normal((batch * tokens, hidden)), tf.random.normal((batch * tokens, mlp))
    square, up, down = (tf.random.normal(shape) for shape in ((hidden, hidden), (hidden, mlp), (mlp, hidden)))
    query, scores = tf.random.normal((batch, heads, tokens, head_dim)), tf.random.normal((batch, heads, tokens, tokens))

    def run() -> None:
        for _ in range(layers):
            for _ in range(4):
                tf.matmul(x, square)
            tf.matmul(query, query, transpose_b=True)
            tf.matmul(scores, query)
            tf.matmul(x, up)
            tf.matmul(y, down)

    return run


@pytest.fixture(scope="module")
def base():
    model = vit_tf.TFViTForImageClassification(vit_tf.ViTConfig.preset("vit-base-patch16-224"))
    model.compile()
    return model


@pytest.mark.benchmark(group="TensorFlow: forward ViT-B/16, batch 4, float32")
@pytest.mark.parametrize("what", ["floor", "tf.function", "plain call", "predict", "not compiled"])
def test_forward(benchmark, base, what):
    images = np.random.default_rng(0).standard_normal((BATCH, 3, 224, 224)).astype(np.float32)
    compiled, tensor = tf.function(lambda x: base(x).logits), tf.constant(images)
    base.compiles_calls = what == "plain call"
    runs = {
        "floor": matrix_products(base.config, BATCH),
        "tf.function": lambda: compiled(tensor),
        "plain call": lambda: base(tensor).logits,
        "predict": lambda: base.predict_on_batch(images),
        "not compiled": lambda: base(tensor).logits,
    }
    benchmark.pedantic(runs[what], rounds=5, warmup_rounds=2)


@pytest.mark.benchmark(group="TensorFlow: training step ViTMAE-B, batch 4, float32")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_mae_step(benchmark, checkpointing):
    model = vit_tf.TFViTMAEForPreTraining(vit_tf.ViTMAEConfig.preset("vit-mae-base"))
    if checkpointing:
        model.gradient_checkpointing_enable()
    images = tf.random.normal((BATCH, 3, 224, 224))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = model(images, training=True).loss
        return tape.gradient(loss, model.trainable_weights)

    benchmark.pedantic(step, rounds=3, warmup_rounds=1)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    config = vit_tf.ViTConfig.preset("vit-large-patch16-224")
    tensors = draw(config, "ViTForImageClassification", seed=0)
    vit_tf.TFViTForImageClassification.from_tensors(config, tensors).save_pretrained(folder)
    return folder


@pytest.mark.benchmark(group="TensorFlow: loading ViT-L/16, 304 M parameters")
@pytest.mark.parametrize("what", ["read the bytes", "verified", "unverified", "random initialisation"])
def test_load(benchmark, large, what):
    cls = vit_tf.TFViTForImageClassification
    runs = {
        "read the bytes": lambda: (large / "model.safetensors").read_bytes(),
        "verified": lambda: cls.from_pretrained(large),
        "unverified": lambda: cls.from_pretrained(large, verify=False, allow_nonfinite=True),
        "random initialisation": lambda: cls(vit_tf.ViTConfig.preset("vit-large-patch16-224")),
    }
    benchmark.pedantic(runs[what], rounds=3, warmup_rounds=1)
