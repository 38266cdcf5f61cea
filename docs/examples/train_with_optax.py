"""Trains a small classifier of handwritten digits in JAX by a recipe: a bare optax loop, and the same one in NNX.

    pip install -e '.[flax]' scikit-learn
    python docs/examples/train_with_optax.py --output out
    python docs/examples/train_with_optax.py --output out --loop nnx

OUTPUT loads with from_pretrained in every backend. For your images, take `vit_core.training.data_files.read_data`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from vit_core.training import TrainingBatch, parameter_groups
from vit_core.training.data import labelled, split
from vit_core.training.feeding import Feed
from vit_core.training.recipe import Recipe
from vit_flax import FlaxViTForImageClassification, ViTConfig, ViTImageProcessor
from vit_flax.weights import path_of

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
PROCESSOR = ViTImageProcessor(size=16, image_mean=[0.5], image_std=[0.5])
DIGITS = load_digits()
SCANS = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)


def make_recipe(**changes) -> Recipe:
    """What the run does."""
    settings = {"epochs": 12, "rate": 1.2e-2, "layer_decay": 0.9, "clip": 1.0, "smoothing": 0.1}
    pictures = {"area": (0.6, 1.0), "mirror": 0.0, "operations": 1, "mixup": 0.2}
    return Recipe("classification", "digits", "flax", config="made here", **{**settings, **pictures, **changes})


def make_model() -> FlaxViTForImageClassification:
    """A fresh classifier."""
    config = ViTConfig(**SIZES, image_size=16, patch_size=4, num_channels=1, num_labels=10, initializer_range=0.1)
    return FlaxViTForImageClassification(config)


def make_feed(recipe: Recipe, model: FlaxViTForImageClassification) -> tuple[Feed, np.ndarray]:
    """The batches of the run, decoded and varied in threads, and the numbers of the images that are held out."""
    names = [f"{place:04}" for place in range(len(SCANS))]
    data = labelled("digits", names, SCANS.__getitem__, [str(label) for label in DIGITS.target])
    rows, held_out = split(data.labels, len(data), 0.2, recipe.seed)
    return Feed(recipe, model.config, PROCESSOR, data, rows), held_out


def make_optimizer(model: FlaxViTForImageClassification, recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """AdamW with a decay and a rate for each group of parameters, for trees of Linen and states of NNX."""
    schedule, settings = recipe.learning_rates(steps), recipe.optimisation()
    rates = jnp.array([schedule(step) for step in range(steps)])
    decays = {"weight_decay": settings.weight_decay, "layer_decay": settings.layer_decay}
    groups = parameter_groups(model.config, type(model), **decays)
    table = model.parameter_table()
    places = {path_of(table[name]): str(place) for place, group in enumerate(groups) for name in group.names}
    moving = {
        str(place): optax.adamw(
            lambda step, scale=group.scale: scale * rates[step],
            *settings.betas,
            settings.epsilon,
            weight_decay=group.weight_decay,
        )
        for place, group in enumerate(groups)
    }

    def group_of(path, _) -> str:
        return places[tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))]

    def labels(params):
        return jax.tree_util.tree_map_with_path(group_of, params)

    return optax.chain(optax.clip_by_global_norm(settings.clip), optax.multi_transform(moving, labels))


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The loss of a recipe: targets are shares of classes."""
    return optax.losses.softmax_cross_entropy(logits, targets).mean()


def train_by_optax(model: FlaxViTForImageClassification, feed: Feed) -> Iterator[float]:
    """The loss of every step; the model has the parameters of the last."""
    optimizer = make_optimizer(model, feed.recipe, feed.steps)

    @jax.jit
    def step(params, state, batch: TrainingBatch):
        def loss_of(params):
            return cross_entropy(model(batch.pixel_values, params=params, train=True).logits, batch.targets)

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    state = optimizer.init(model.params)
    for fed in feed.training():
        model.params, state, loss = step(model.params, state, fed.batch)
        yield float(loss)


def train_by_nnx(model: FlaxViTForImageClassification, feed: Feed) -> Iterator[float]:
    """The same by an NNX module, which holds the parameters, and its optimizer."""
    images = jnp.zeros((1, 1, 16, 16))
    module = nnx.bridge.ToNNX(model.module, rngs=nnx.Rngs(0)).lazy_init(images)
    nnx.update(module, nnx.State(jax.tree.map(nnx.Param, model.params)))
    optimizer = nnx.Optimizer(module, make_optimizer(model, feed.recipe, feed.steps), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer, batch: TrainingBatch):
        def loss_of(module):
            return cross_entropy(module(batch.pixel_values, deterministic=False).logits, batch.targets)

        loss, gradients = nnx.value_and_grad(loss_of)(module)
        optimizer.update(module, gradients)
        return loss

    for fed in feed.training():
        yield float(step(module, optimizer, fed.batch))
    model.params = nnx.to_pure_dict(nnx.state(module, nnx.Param))


LOOPS = {"optax": train_by_optax, "nnx": train_by_nnx}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--loop", choices=LOOPS, default="optax")
    arguments = parser.parse_args()
    recipe, model = make_recipe(), make_model()
    feed, held_out = make_feed(recipe, model)
    for number, loss in enumerate(LOOPS[arguments.loop](model, feed), 1):
        if number % feed.steps_of_epoch == 0:
            print(f"epoch {number // feed.steps_of_epoch}: loss {loss:.3f}")
    pixels = PROCESSOR(list(SCANS[held_out]), input_data_format="none", return_tensors="np")["pixel_values"]
    accuracy = (model(pixels).logits.argmax(axis=1) == DIGITS.target[held_out]).mean()
    print(f"held-out accuracy {accuracy:.1%}")
    model.save_pretrained(arguments.output)
    PROCESSOR.save_pretrained(arguments.output)
