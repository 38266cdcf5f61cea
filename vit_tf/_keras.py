"""What Keras has no public words for, in one place: layers inside layers, weights that go, where a call stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.global_state import get_global_attribute


def layers_of(layer: keras.layers.Layer, *, itself: bool = True, deep: bool = True) -> list[keras.layers.Layer]:
    """A layer and the layers it is made of, outer ones first, in the order in which they were made.

    Args:
        layer: to look into.
        itself: whether the layer is one of them.
        deep: whether the layers inside its layers are.
    """
    return list(layer._flatten_layers(include_self=itself, recursive=deep))


def unlock(layer: keras.layers.Layer) -> None:
    """Lets a built layer take more layers and weights."""
    layer._tracker.unlock()


def forget_weights(layer: keras.layers.Layer) -> None:
    """Takes the weights of a built layer away, so that it can be built again."""
    for weight in layer.weights:
        layer._untrack_variable(weight)
    unlock(layer)


def is_alone() -> bool:
    """Whether what runs now is inside no call of a layer and no scope in which variables have other values."""
    return get_global_attribute("current_call_ctx") is get_global_attribute("stateless_scope") is None


def random_source() -> Any:
    """What Keras' global random numbers come from; another object once the seed is set anew."""
    return get_global_attribute("global_seed_generator")


def lora(model: keras.Model) -> tuple[dict[str, Any], set[str]]:
    """Of the layers that LoRA trains: path of a weight -> its value with what was added, and the paths of additions."""
    layers = [layer for layer in layers_of(model) if getattr(layer, "lora_enabled", False)]
    added = {part.path for layer in layers for part in (layer.lora_kernel_a, layer.lora_kernel_b)}
    return {layer._kernel.path: layer.kernel for layer in layers}, added


@contextmanager
def known_shapes(model: keras.Model, images: tf.TensorSpec) -> Iterator[None]:
    """Inside, `summary` finds the shape of each layer's first output in a call on images; it can look no deeper.

    Nothing is computed. Of a subclass that takes more than images, shapes stay unknown.
    """
    layers = [layer for layer in layers_of(model, itself=False) if "output_shape" not in vars(layer)]
    for layer in layers:
        vars(layer)["call"] = _noting(layer)
    try:
        with suppress(TypeError, ValueError):
            tf.function(model, autograph=False).get_concrete_function(images)
    finally:
        for layer in layers:
            del vars(layer)["call"]
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("output_shape", None)


def _noting(layer: keras.layers.Layer) -> Callable[..., Any]:
    """The call of a layer, which leaves the shape of its first output there."""
    call = layer.call

    @wraps(call)
    def noting(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        main = next(part for part in keras.tree.flatten(output) if part is not None)
        vars(layer)["output_shape"] = tuple(main.shape)
        return output

    return noting


@contextmanager
def intact(model: keras.Model) -> Iterator[None]:
    """A training or evaluation that fails inside leaves nothing behind of what Keras made for it.

    Otherwise metrics stay as they were chosen for its data, and its functions refuse to make the variables of others.
    """
    compiled = (getattr(model, name, None) for name in ("_compile_metrics", "_compile_loss"))
    fresh = [part for part in compiled if part is not None and not part.built]
    try:
        yield
    except Exception:
        model.train_function = model.test_function = None
        for part in fresh:
            part.metrics.clear()
            part.built = False
        raise


def place_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The place of a weight among those that an optimizer was built for, whichever device's copy of it this is."""
    return optimizer._get_variable_index(variable)


class AveragingOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose own `update_step` moves the averages of `use_ema`, which start as the weights.

    Keras' averages start as the weights after the first step, and are moved at every part of an accumulated one.
    """

    def build(self, variables: Any) -> None:
        """Makes the averages, and what else there is for every weight."""
        super().build(variables)
        with tf.init_scope():  # once, also where a graph is made that builds the optimizer
            for average, variable in zip(self.averages, variables if self.use_ema else (), strict=True):
                average.assign(variable)

    @property
    def averages(self) -> list[keras.Variable]:
        """The average of each weight, where there are any."""
        return self._model_variables_moving_average if self.use_ema else []

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        """Nothing: `update_step` did."""
