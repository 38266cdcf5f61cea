"""What a call brings, as tensors that fit the model: checked once, where a public call begins."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from vit_core.config import pair
from vit_core.inputs import (
    Grid,
    check_call,
    check_drop_path_mask,
    check_head_mask,
    check_labels,
    check_mask_token,
    check_numbers,
    check_per_patch,
    check_pixel_values,
    is_checked,
    no_images,
    no_numbers,
    warn_unseen,
)
from vit_core.keywords import check_keywords
from vit_core.model import NeutralModel
from vit_core.tensors import Array, to_numpy
from vit_tf.graphs import TENSORS
from vit_tf.layers import grid_of, static


class CheckedInputs(NeutralModel, keras.Model):
    """Checks what a call brings, and hands it on in the model's form and dtype."""

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, without those that are None."""
        first, rest = (args[0] if args else None), args[1:]
        signature = inspect.signature(self.call)
        given = [*kwargs, *(first if isinstance(first, Mapping) else ())]
        check_keywords(type(self).__name__, given, signature.parameters)
        if isinstance(first, Mapping):
            bound = signature.bind(*rest, **first, **kwargs)
        elif isinstance(first, list | tuple):
            bound = signature.bind(*first, *rest, **kwargs)
        else:
            bound = signature.bind(*args, **kwargs)
        return {name: value for name, value in bound.arguments.items() if value is not None}

    def _as_tensor(self, name: str, value: Any) -> Tensor:
        """An argument of a call as a tensor.

        Raises:
            InputError: it holds no real numbers.
        """
        check_numbers(self._called_as, name, value)
        try:
            return value if tf.is_tensor(value) else tf.convert_to_tensor(value)
        except (TypeError, ValueError):
            raise no_numbers(self._called_as, name, value) from None

    def _check_values(self, inputs: Mapping[str, Tensor]) -> None:
        """Checks the values of the arguments of a call, where they can be looked at.

        Raises:
            InputError: NaN or infinity, a mask outside [0, 1], or labels that are no classes.
        """
        hosts = {name: self._host_values(inputs[name]) for name in TENSORS if name in inputs}
        batch = next(iter(dims(inputs["pixel_values"])), None) if "pixel_values" in inputs else None
        check_call(type(self).__name__, self.config, hosts, batch)

    def _host_values(self, tensor: Tensor) -> Array | None:
        """The values of a tensor where they can be looked at: eager, and on the CPU or inside `vit_core.checked()`."""
        if not tf.executing_eagerly():
            return None
        return to_numpy(tensor) if "CPU" in tensor.device or is_checked() else None

    def _checked_images(self, pixel_values: Tensor | None, interpolate: bool | Grid | None) -> tuple[Tensor, Grid]:
        """The images as (batch, channels, height, width) in the weights' dtype, and their patch grid.

        Raises:
            InputError: no images, or they do not fit the model.
        """
        if isinstance(interpolate, Grid):  # checked by the model around this one
            return pixel_values, interpolate
        model, config = self._called_as, self.config
        if pixel_values is None:
            raise no_images(model)
        pixel_values = ops.convert_to_tensor(pixel_values)
        channels_last = check_pixel_values(
            model,
            config,
            dims(pixel_values),
            is_float=pixel_values.dtype.is_floating,
            interpolate=bool(interpolate),
        )
        if channels_last:
            pixel_values = ops.transpose(pixel_values, (0, 3, 1, 2))
        if not interpolate:  # a side that is not known while tracing is checked when the graph runs
            pixel_values = tf.ensure_shape(pixel_values, (None, config.num_channels, *pair(config.image_size)))
        size, patch = ops.shape(pixel_values)[2:], pair(config.patch_size)
        if all(isinstance(side, int) for side in size):
            warn_unseen(tuple(size), patch)
        return ops.cast(pixel_values, self.variable_dtype), grid_of(pixel_values, patch)

    def _checked_mask(self, bool_masked_pos: Tensor | None, pixel_values: Tensor, grid: Grid) -> Tensor | None:
        """bool_masked_pos as a tensor (batch, patches).

        Raises:
            InputError: another shape, or the model has no mask token.
        """
        if bool_masked_pos is None:
            return None
        model = self._called_as
        check_mask_token(model, self.base_model.embeddings.mask_token is not None)
        shape = ops.shape(pixel_values)[0], grid.patches
        check_per_patch(model, "bool_masked_pos", dims(bool_masked_pos), *static(*shape))
        return ops.reshape(bool_masked_pos, shape)  # what is not known while tracing is checked as the graph runs

    def _checked_noise(self, noise: Tensor | None, pixel_values: Tensor, grid: Grid) -> Tensor:
        """The noise of a call, or fresh noise: (batch, patches).

        Raises:
            InputError: another shape.
        """
        shape = ops.shape(pixel_values)[0], grid.patches
        if noise is None:
            # a strategy runs its replicas in threads, which do not see Keras' global seed
            seed = self.seed_generator if tf.distribute.has_strategy() else None
            return keras.random.uniform(shape, minval=0.0, maxval=1.0, dtype="float32", seed=seed)
        check_per_patch(self._called_as, "noise or bool_masked_pos", dims(noise), *static(*shape))
        return ops.reshape(noise, shape)  # what is not known while tracing is checked as the graph runs

    def _checked_labels(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, str]:
        """labels as a tensor, and the problem type of a call with them.

        Raises:
            InputError: no classifier, or labels of another shape or dtype.
        """
        labels = ops.convert_to_tensor(labels)
        batch, is_float = logits.shape[0], labels.dtype.is_floating
        return labels, check_labels(self._called_as, self.config, labels.shape, batch, is_float=is_float)

    def _checked_head_mask(self, head_mask: Tensor | None) -> Tensor | None:
        """head_mask as (layers, batch or 1, heads, tokens or 1, tokens or 1) in the weights' dtype.

        Raises:
            InputError: another shape.
        """
        if head_mask is None:
            return None
        check_head_mask(self._called_as, self.config, dims(head_mask))
        heads, layers = self.config.num_attention_heads, self.config.num_hidden_layers
        if len(head_mask.shape) < 5:
            head_mask = head_mask[..., None, :, None, None]
        return ops.cast(head_mask, self.variable_dtype) * ops.ones((layers, 1, heads, 1, 1), self.variable_dtype)

    def _checked_drop_path_mask(
        self, drop_path_mask: Tensor | None, pixel_values: Tensor, training: bool
    ) -> Tensor | None:
        """drop_path_mask as a tensor (layers, 2, batch).

        Raises:
            InputError: another shape or dtype, or a call outside training.
        """
        if drop_path_mask is None:
            return None
        shape, is_bool = dims(drop_path_mask), drop_path_mask.dtype == "bool"
        batch = static(ops.shape(pixel_values)[0])
        check_drop_path_mask(self._called_as, self.config, shape, *batch, is_bool=is_bool, training=bool(training))
        return drop_path_mask


def dims(tensor: Tensor) -> tuple[int | None, ...]:
    """The sides of a tensor, None where they are not known; () for one of unknown rank."""
    return tuple(tensor.shape) if tensor.shape.rank is not None else ()


def plain(value: Any) -> Any:
    """An argument that is no tensor: NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value  # Keras makes tensors of NumPy's numbers
