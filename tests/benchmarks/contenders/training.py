"""A training step of ViTMAE-B on 8 images: the loss and its gradients, without an optimizer."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group, without_other_frameworks
from benchmarks.contenders.forward import Calls, sizes
from benchmarks.contenders.products import Product, floor, of_layers, with_gradients

BATCH, CASE = 8, "8 images"
DECODER = (512, 8, 16, 2048)  # hidden, layers, heads, mlp
TINY_DECODER = (32, 1, 2, 64)


def config(package: str, tiny: bool) -> Any:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    decoder = zip(names, TINY_DECODER if tiny else DECODER, strict=True)
    return import_module(package).ViTMAEConfig(**sizes(tiny), **{f"decoder_{name}": value for name, value in decoder})


def products(tiny: bool) -> dict[str, list[Product]]:
    hidden, layers, heads, mlp, side, patch = sizes(tiny).values()
    narrow, depth, decoder_heads, decoder_mlp = TINY_DECODER if tiny else DECODER
    patches, pixels = (side // patch) ** 2, 3 * patch**2
    kept, all_tokens = patches // 4 + 1, patches + 1
    forward = [
        (1, (BATCH * patches, pixels), (pixels, hidden)),
        *of_layers(BATCH, kept, hidden, mlp, heads, layers),
        (1, (BATCH * kept, hidden), (hidden, narrow)),
        *of_layers(BATCH, all_tokens, narrow, decoder_mlp, decoder_heads, depth),
        (1, (BATCH * all_tokens, narrow), (narrow, pixels)),
    ]
    return {CASE: with_gradients(forward)}


def by_torch(package: str, folder: Path, tiny: bool, *, mixed: bool = False) -> Calls:
    import torch

    without_other_frameworks()
    model = import_module(package).ViTMAEForPreTraining(config(package, tiny)).train()
    images = torch.randn(BATCH, 3, *[sizes(tiny)["image_size"]] * 2)

    def run() -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = model(images).loss
        loss.backward()

    return {CASE: run}


def by_tensorflow(package: str, folder: Path, tiny: bool) -> Calls:
    import tensorflow as tf

    model = import_module(package).TFViTMAEForPreTraining(config(package, tiny))
    images = tf.random.normal((BATCH, 3, *[sizes(tiny)["image_size"]] * 2))
    model(images)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = model(images, training=True).loss
        return tape.gradient(loss, model.trainable_variables)

    return {CASE: step}


def by_flax(package: str, folder: Path, tiny: bool) -> Calls:
    import jax

    model = import_module(package).FlaxViTMAEForPreTraining(config(package, tiny))
    images = jax.random.normal(jax.random.key(0), (BATCH, 3, *[sizes(tiny)["image_size"]] * 2))
    step = jax.jit(jax.grad(lambda params: model(images, params=params, mask_rng=jax.random.key(1)).loss))

    def run() -> None:
        jax.block_until_ready(step(model.params))

    return {CASE: run}


FLOOR = {"matrix products, torch": Contender(floor("torch", products), "floor")}
GROUPS = {  # two, since each process holds a few gigabytes
    "training-torch": Group(
        "Training step of ViTMAE-B in PyTorch, float32",
        {
            **FLOOR,
            "vit_torch": Contender(partial(by_torch, "vit_torch"), "ours"),
            "vit_torch, products in bfloat16": Contender(partial(by_torch, "vit_torch", mixed=True), "ours"),
            "transformers 4.57.6": Contender(partial(by_torch, "transformers"), "peer", "vit_torch", "hf4"),
            "transformers 5.24.0": Contender(partial(by_torch, "transformers"), "peer", "vit_torch", "hf5"),
        },
    ),
    "training": Group(
        "Training step of ViTMAE-B in TensorFlow and JAX, float32",
        {
            **FLOOR,
            "vit_tf, in tf.function": Contender(partial(by_tensorflow, "vit_tf"), "ours"),
            "vit_flax, in jax.jit": Contender(partial(by_flax, "vit_flax"), "ours"),
            "transformers 4.57.6, in tf.function": Contender(
                partial(by_tensorflow, "transformers"), "peer", "vit_tf, in tf.function", "hf4"
            ),
        },
    ),
}
