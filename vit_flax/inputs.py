"""What a call brings, as arrays that fit the model: checked once, where a public call begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from vit_core.config import pair
from vit_core.errors import InputError
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
from vit_core.model import Flags, NeutralModel
from vit_core.plain_values import short
from vit_core.tensors import to_numpy
from vit_flax.layers import grid_of, is_known, static


class FlaxViTPreTrainedModule(nn.Module):
    """Base of the five modules.

    Args:
        config: of the model; what changes in it counts from the next trace on.
        dtype: of the computation; parameters are float32 or wider.
        checkpointing: whether the backward pass computes each layer anew.
    """

    config: Any
    dtype: Any = jnp.float32
    checkpointing: bool = False
    model: ClassVar[str]  # name of the model class, for messages

    @property
    def _called_as(self) -> str:
        """What messages call the model: a module inside another one has the outer one's name."""
        outer = self.parent
        return outer.model if isinstance(outer, FlaxViTPreTrainedModule) else self.model

    @nn.nowrap
    def _inner(self, cls: Any, **options: bool) -> Any:
        """The module of the encoder in a module with a head; the two share one configuration."""
        return cls(self.config, self.dtype, self.checkpointing, **options)

    @nn.nowrap
    def _flags(
        self, output_attentions: bool, output_hidden_states: bool, return_dict: bool, deterministic: bool
    ) -> Flags:
        """The switches of a call."""
        return Flags(output_attentions, output_hidden_states, return_dict, {"deterministic": deterministic})

    # --- checks of static facts only, so that they hold under every transformation -----------------------------------

    @nn.nowrap
    def _checked_images(self, pixel_values: Array | None, interpolate: bool | Grid | None) -> tuple[Array, Grid]:
        """The images as (batch, channels, height, width) in the module's dtype, and their patch grid.

        Raises:
            InputError: no images, or they do not fit the model.
        """
        if isinstance(interpolate, Grid) and pixel_values is not None:  # checked by the module around this one
            return pixel_values, interpolate
        if pixel_values is None:
            raise no_images(self._called_as)
        pixel_values = jnp.asarray(pixel_values)
        is_float = jnp.issubdtype(pixel_values.dtype, jnp.floating)
        channels_last = check_pixel_values(
            self._called_as, self.config, static(*pixel_values.shape), is_float=is_float, interpolate=bool(interpolate)
        )
        if channels_last:
            pixel_values = pixel_values.transpose(0, 3, 1, 2)
        size, patch = pixel_values.shape[2:], pair(self.config.patch_size)
        if all(map(is_known, size)):
            warn_unseen(size, patch)
        elif not interpolate:
            raise InputError(
                f"{self._called_as}: pixel_values: height and width are not known while tracing.\n"
                "Pass interpolate_pos_encoding=True, or trace with images of the configuration's size."
            )
        return pixel_values.astype(self.dtype), grid_of(pixel_values, patch)

    @nn.nowrap
    def _checked_mask(self, bool_masked_pos: Array | None, pixel_values: Array, grid: Grid) -> Array | None:
        """bool_masked_pos, checked: (batch, patches).

        Raises:
            InputError: another shape, or the model has no mask token.
        """
        if bool_masked_pos is None:
            return None
        shape = pixel_values.shape[0], grid.patches
        check_mask_token(self._called_as, getattr(self, "use_mask_token", False))
        check_per_patch(self._called_as, "bool_masked_pos", static(*bool_masked_pos.shape), *static(*shape))
        return bool_masked_pos.reshape(shape)  # what is not known while tracing has to be the same symbol

    @nn.nowrap
    def _checked_noise(self, noise: Array | None, pixel_values: Array, grid: Grid) -> Array:
        """The noise of a call, or fresh noise: (batch, patches).

        Raises:
            InputError: another shape, or neither noise nor a key to draw it from.
        """
        shape = pixel_values.shape[0], grid.patches
        if noise is None:
            if not self.has_rng("mask"):
                raise InputError(
                    f"{self._called_as}: noise: pass noise=, or a key of the masks (mask_rng=, rngs={{'mask': …}})."
                )
            return jax.random.uniform(self.make_rng("mask"), shape, jnp.float32)
        check_per_patch(self._called_as, "noise or bool_masked_pos", static(*noise.shape), *static(*shape))
        return noise.reshape(shape)  # what is not known while tracing has to be the same symbol

    @nn.nowrap
    def _checked_labels(self, labels: Array, logits: Array) -> tuple[Array, str]:
        """labels, and the problem type of a call with them.

        Raises:
            InputError: no classifier, or labels of another shape or dtype.
        """
        batch, is_float = logits.shape[0], jnp.issubdtype(labels.dtype, jnp.floating)
        return labels, check_labels(self._called_as, self.config, labels.shape, batch, is_float=is_float)

    @nn.nowrap
    def _checked_head_mask(self, head_mask: Array | None) -> Array | None:
        """head_mask as (layers, batch or 1, heads, tokens or 1, tokens or 1) in the module's dtype.

        Raises:
            InputError: another shape.
        """
        if head_mask is None:
            return None
        check_head_mask(self._called_as, self.config, head_mask.shape)
        heads, layers = self.config.num_attention_heads, self.config.num_hidden_layers
        if head_mask.ndim < 5:
            head_mask = jnp.broadcast_to(head_mask.reshape(-1, heads), (layers, heads))[:, None, :, None, None]
        layers, batch, _, rows, columns = head_mask.shape
        return jnp.broadcast_to(head_mask.astype(self.dtype), (layers, batch, heads, rows, columns))

    @nn.nowrap
    def _checked_drop_path_mask(
        self, drop_path_mask: Array | None, pixel_values: Array, deterministic: bool
    ) -> Array | None:
        """drop_path_mask, checked: (layers, 2, batch).

        Raises:
            InputError: another shape or dtype, or a call outside training.
        """
        if drop_path_mask is None:
            return None
        dims, batch = static(*drop_path_mask.shape), static(pixel_values.shape[0])
        is_bool = drop_path_mask.dtype == bool
        check_drop_path_mask(self._called_as, self.config, dims, *batch, is_bool=is_bool, training=not deterministic)
        return drop_path_mask


class CheckedInputs(NeutralModel):
    """Checks the values of what a call brings, before anything is compiled."""

    def _check_values(self, arrays: Mapping[str, Any]) -> None:
        """Checks the values of the arguments of a call, where they can be looked at.

        Raises:
            InputError: NaN or infinity, a mask outside [0, 1], or labels that are no classes.
        """
        hosts = {name: self._host_values(array) for name, array in arrays.items()}
        batch = next(iter(np.shape(arrays["pixel_values"])), None) if "pixel_values" in arrays else None
        check_call(type(self).__name__, self.config, hosts, batch)

    def _host_values(self, array: Any) -> np.ndarray | None:
        """The values of an array where they can be looked at: NumPy's; JAX's on the CPU or in `vit_core.checked()`."""
        if isinstance(array, jax.core.Tracer):
            return None
        is_near = not isinstance(array, Array) or (
            array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())
        )
        return np.asarray(array) if is_near or is_checked() else None


def as_array(model: str, name: str, value: Any) -> Any:
    """What can be passed to compiled code: arrays as they are, other frameworks' tensors and lists as NumPy's."""
    check_numbers(model, name, value)
    try:
        return value if isinstance(value, Array | np.ndarray) else to_numpy(value)
    except (TypeError, ValueError):
        raise no_numbers(model, name, value) from None


def checked_key(model: str, name: str, key: Any) -> Array:
    """A key of random numbers, typed or not.

    Raises:
        InputError: something else.
    """
    dtype = getattr(key, "dtype", np.dtype(object))
    dims = 0 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else 1 if dtype == np.uint32 else None
    if dims is None or key.ndim != dims:
        raise InputError(f"{model}: {name}: expected a key such as jax.random.key(0), got {short(key)}.")
    return key
