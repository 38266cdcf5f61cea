"""Steps of training of any backend, their batches, and the same arithmetic in NumPy."""

from __future__ import annotations

import zlib
from functools import cache
from importlib import import_module

import numpy as np
from sameness import check_tensors

from vit_core.training import Optimisation, TrainingBatch, parameter_groups, soft_targets

TRAINED = ("ViTForImageClassification", "ViTForMaskedImageModeling", "ViTMAEForPreTraining")
IMAGES, PATCHES = 6, 15
SPREAD = {  # recipes of steps whose batches several devices share
    TRAINED[0]: {"clip": 0.1, "average": 0.9, "layer_decay": 0.7, "accumulate": 2, "freeze": 1},
    TRAINED[1]: {"accumulate": 2},
    TRAINED[2]: {"average": 0.5, "recompute": True},
}


def step_class(backend):
    """The TrainStep of a backend."""
    return import_module(f"{backend.package.__name__}.training").TrainStep


def make_step(backend, name, dtype="float64", fields=None, **options):
    """A small model in a step of training."""
    return step_class(backend)(backend.make_model(name, dtype, **(fields or {})), Optimisation(**options))


def make_batch(name, number=0, dtype="float64", images=IMAGES):
    """A batch for a class: another one for every number."""
    random = np.random.default_rng([zlib.crc32(name.encode()), number])
    pixels = random.standard_normal((images, 3, 12, 20)).astype(dtype)
    if name == "ViTForImageClassification":
        return TrainingBatch(pixels, targets=soft_targets(random.integers(5, size=images), 5, smoothing=0.1))
    if name == "ViTForMaskedImageModeling":
        masked = random.random((images, PATCHES)) < 0.5
        return TrainingBatch(pixels, bool_masked_pos=masked)
    return TrainingBatch(pixels, noise=random.random((images, PATCHES), np.float32))


def part_of(state, word):
    """The arrays of a state under a word, by canonical name."""
    return {name.removeprefix(f"{word}."): array for name, array in state.items() if name.startswith(f"{word}.")}


def check_spread(make, name, dtype, tolerance, sizes=(5, 8, 1)):
    """A step on two devices is that on one: losses, norms, evaluations, states, and what goes on from its state.

    Args:
        make: name, dtype, recipe, whether on two -> a step of training.
        name: class that is trained.
        dtype: of its weights.
        tolerance: share of the largest value.
        sizes: of batches; of one that does not divide a device has more, of one image a device has none.

    Returns:
        The step on two devices.
    """
    recipe = Optimisation(**SPREAD[name])
    alone, spread = (make(name, dtype, recipe, on_two) for on_two in (False, True))
    for number, images in enumerate(sizes):
        batch = make_batch(name, number, dtype, images)
        for one, other in zip(spread(batch, 1e-2), alone(batch, 1e-2), strict=True):
            np.testing.assert_allclose(float(one), float(other), rtol=tolerance)
        found, expected = (step.evaluate(batch, averaged=recipe.average is not None) for step in (spread, alone))
        check_near(found, expected, tolerance)
    state = spread.state()
    check_near(state, alone.state(), 10 * tolerance)
    again = make(name, dtype, recipe, True)
    again.restore(state)
    losses = [float(step(make_batch(name, 7, dtype), 1e-3).loss) for step in (spread, again)]
    assert losses[0] == losses[1]
    check_tensors(again.state(), spread.state())
    return spread


def check_near(found, expected, tolerance):
    """Compares arrays by name; the biases of keys loosely, as their gradients are rounding."""
    assert [*found] == [*expected]
    for key, array in expected.items():
        scale = (10 if key.endswith("key.bias") else tolerance) * np.abs(array).max()
        np.testing.assert_allclose(found[key], array, rtol=0, atol=scale, err_msg=key)


@cache
def probe(backend, name):
    """A step whose first moments are its gradients; with a rate of 0 it moves nothing."""
    return make_step(backend, name, betas=(0.0, 0.0))


class Reference:
    """AdamW as `Optimisation` writes it down, in NumPy; gradients are the first moments of a step with beta1 = 0."""

    def __init__(self, backend, name, **options):
        self.probe, self.options = probe(backend, name), Optimisation(**options)
        self.weights = backend.make_tensors(name, "float64")
        config, settings = backend.make_config(name), self.options
        self.groups = parameter_groups(
            config,
            name,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            freeze=settings.freeze,
        )
        self.average = dict(self.weights)
        self.moments = {key: (0.0, 0.0) for group in self.groups for key in group.names}
        self.steps = 0

    def gradients(self, batch):
        """The gradients at the weights."""
        state = self.probe.state() | {f"model.{name}": array for name, array in self.weights.items()}
        self.probe.restore(state)
        self.probe(batch, 0.0)
        return part_of(self.probe.state(), "first")

    def __call__(self, batch, rate):
        found, settings = self.gradients(batch), self.options
        self.norm = np.sqrt(sum(np.sum(np.square(found[name])) for name in self.moments))
        factor = 1.0 if settings.clip is None else min(1.0, settings.clip / self.norm)
        self.steps += 1
        for group in self.groups:
            for name in group.names:
                self._move(name, found[name] * factor, rate * group.scale, group.weight_decay)
        for name, array in self.weights.items():
            share = settings.average or 0.0
            self.average[name] = share * self.average[name] + (1 - share) * array

    def _move(self, name, gradient, rate, decay):
        betas = self.options.betas
        first, second = self.moments[name]
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        self.moments[name] = first, second
        mean, square = first / (1 - betas[0] ** self.steps), second / (1 - betas[1] ** self.steps)
        decayed = self.weights[name] * (1 - rate * decay)
        self.weights[name] = decayed - rate * mean / (np.sqrt(square) + self.options.epsilon)
