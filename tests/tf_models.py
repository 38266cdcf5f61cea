"""Small models of this backend, and what tests ask of it."""

import os
import tempfile
from contextlib import contextmanager

os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp())  # Keras reads its settings from there, and writes them

import keras
import small_models
import tensorflow as tf
from small_models import PATCHES, SIZES, Backend

import vit_tf

__all__ = ["BACKEND", "FIELDS", "PATCHES", "SIZES", "make_config", "make_inputs", "make_model", "make_tensors"]

FIELDS = {f"TF{name}": fields for name, fields in small_models.FIELDS.items()}


class TensorFlow(Backend):
    name, prefix, package, tensors_word = "tf", "TF", vit_tf, "tf"
    relu = staticmethod(keras.ops.relu)

    def make_model(self, name, dtype="float32", options=None, compiles=False, **fields):
        """A model whose plain calls run operation by operation, unless it `compiles`: building graphs takes time."""
        model = super().make_model(name, dtype, options, **fields)
        model.compiles_calls = compiles
        return model

    def train(self, model, seed, inputs):
        for place, layer in enumerate(model._flatten_layers()):
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
                layer.seed_generator.state.assign([seed, place])
        return model(**inputs, training=True)

    def gradients(self, model, seed, inputs):
        with tf.GradientTape() as tape:
            number = tf.reduce_sum(tf.square(self.train(model, seed, inputs)[self.main_output(model)]))
        weights = [weight.value for weight in model.trainable_weights]
        found = tape.gradient(number, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [each.numpy() for each in found]

    def add_one(self, model):
        for weight in model.weights:
            weight.value.assign_add(tf.ones_like(weight.value))

    def other_calls(self, model, inputs):
        return (lambda: model(inputs),)

    def as_tested(self, model):
        model.compiles_calls = False
        return model

    @contextmanager
    def steps(self):
        """Operation by operation: building the graphs of a step takes a hundred times as long as running them."""
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)

    def seed(self, seed):
        keras.utils.set_random_seed(seed)

    def refusals(self, model, inputs, in_graphs):
        def compiled():
            model.compiles_calls = True
            try:
                return model(**inputs)
            finally:
                model.compiles_calls = False

        graph = {"in a graph of the caller's": lambda: tf.function(model)(**inputs)} if in_graphs else {}
        return {**super().refusals(model, inputs, in_graphs), "compiled": compiled, **graph}


BACKEND = TensorFlow()
make_config, make_tensors, make_inputs = BACKEND.make_config, BACKEND.make_tensors, BACKEND.make_inputs
make_model = BACKEND.make_model
