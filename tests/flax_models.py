"""Small models of this backend, and what tests ask of it."""

from contextlib import contextmanager

import jax
import numpy as np
import small_models
from small_models import DECODER, PATCHES, SIZES, Backend

import vit_flax

__all__ = [
    "BACKEND",
    "DECODER",
    "FIELDS",
    "PATCHES",
    "SIZES",
    "make_config",
    "make_inputs",
    "make_model",
    "make_tensors",
]

FIELDS = {f"Flax{name}": fields for name, fields in small_models.FIELDS.items()}


class Flax(Backend):
    name, prefix, package, tensors_word = "flax", "Flax", vit_flax, "jax"
    relu = staticmethod(jax.nn.relu)

    def train(self, model, seed, inputs):
        return model(**inputs, train=True, dropout_rng=jax.random.key(seed))

    def gradients(self, model, seed, inputs):
        def number(params):
            output = model(**inputs, params=params, dropout_rng=jax.random.key(seed), train=True)
            return jax.numpy.square(output[self.main_output(model)]).sum()

        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(number))(model.params))]

    def add_one(self, model):
        step = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 1, params), donate_argnums=0)
        model.params = step(model.params)

    def config_inside(self, model):
        return model.module.config

    def refusals(self, model, inputs, in_graphs):
        arrays = {key: value for key, value in inputs.items() if isinstance(value, np.ndarray)}
        rest = {key: value for key, value in inputs.items() if key not in arrays}
        traced = {"traced by the caller": lambda: jax.jit(lambda arrays: model(**arrays, **rest))(arrays)}
        return {**super().refusals(model, inputs, in_graphs), **(traced if in_graphs else {})}

    @contextmanager
    def strict(self):
        """Nothing is promoted silently, in rank or in dtype."""
        with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
            yield

    def doubles(self):
        return jax.enable_x64(True)


BACKEND = Flax()
make_config, make_tensors, make_inputs = BACKEND.make_config, BACKEND.make_tensors, BACKEND.make_inputs
make_model = BACKEND.make_model
