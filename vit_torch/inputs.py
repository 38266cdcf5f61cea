"""What a call brings, as tensors that fit the model: checked once, where a public call begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vit_core.config import pair
from vit_core.inputs import (
    Grid,
    check_class_indices,
    check_drop_path_mask,
    check_head_mask,
    check_labels,
    check_mask_token,
    check_numbers,
    check_per_patch,
    check_pixel_values,
    check_values,
    images_given,
    is_checked,
    no_images,
    no_numbers,
    warn_unseen,
)
from vit_core.model import NeutralModel
from vit_core.tensors import Array, to_numpy
from vit_torch.layers import grid_of, is_known, is_settled, is_tracing, static


class CheckedInputs(NeutralModel):
    """Checks what a call brings, and hands it on in the model's form, dtype and device."""

    training: bool  # of nn.Module

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.base_model.embeddings.position_embeddings.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.base_model.embeddings.position_embeddings.device

    def _as_tensor(self, name: str, value: Any) -> Tensor:
        """An argument of a call as a tensor.

        Raises:
            InputError: it holds no real numbers.
        """
        if isinstance(value, Tensor) and not value.is_complex():
            return value
        check_numbers(self._called_as, name, value)
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise no_numbers(self._called_as, name, value) from None

    def _checked_images(self, pixel_values: Tensor | None, interpolate: bool | Grid | None) -> tuple[Tensor, Grid]:
        """The images as (batch, channels, height, width) in the model's dtype, and their patch grid.

        Raises:
            InputError: no images, or they do not fit the model.
        """
        if isinstance(interpolate, Grid) and pixel_values is not None:  # checked by the model around this one
            return pixel_values.to(self.dtype), interpolate  # which sharding may have left in another dtype
        model = self._called_as
        if pixel_values is None:
            raise no_images(model)
        pixel_values = images_given(model, pixel_values)
        device = pixel_values.device if isinstance(pixel_values, Tensor) else self.device
        pixel_values = self._as_tensor("pixel_values", pixel_values)
        is_fixed = not interpolate and not all(map(is_settled, pixel_values.shape[1:]))
        channels_last = check_pixel_values(
            model,
            self.config,
            static(*pixel_values.shape) if interpolate or is_tracing() else pixel_values.shape,
            is_float=pixel_values.is_floating_point(),
            interpolate=bool(interpolate),
        )
        if channels_last:
            pixel_values = pixel_values.permute(0, 3, 1, 2)
        if is_fixed:  # what is traced refuses images of another size, though a converter drops all guards
            pixel_values = pixel_values.expand(-1, -1, *pair(self.config.image_size))
        size, patch = pixel_values.shape[2:], pair(self.config.patch_size)
        if not torch.compiler.is_compiling():
            if all(map(is_known, size)):
                warn_unseen(tuple(size), patch)
            check_values(model, pixel_values=self._host_values(pixel_values))
        return pixel_values.to(device, self.dtype), grid_of(pixel_values, patch)

    def _checked_mask(self, bool_masked_pos: Tensor | None, pixel_values: Tensor, grid: Grid) -> Tensor | None:
        """bool_masked_pos as a tensor (batch, patches).

        Raises:
            InputError: another shape or other values, or the model has no mask token.
        """
        if bool_masked_pos is None:
            return None
        model = self._called_as
        bool_masked_pos = self._as_tensor("bool_masked_pos", bool_masked_pos).to(self.device)
        check_mask_token(model, self.base_model.embeddings.mask_token is not None)
        shape = pixel_values.shape[0], grid.patches
        check_per_patch(model, "bool_masked_pos", static(*bool_masked_pos.shape), *static(*shape))
        check_values(model, bool_masked_pos=self._host_values(bool_masked_pos))
        return bool_masked_pos.reshape(shape)  # what is not known while tracing is checked as it runs

    def _checked_noise(self, noise: Tensor | None, pixel_values: Tensor, grid: Grid) -> Tensor:
        """The noise of a call, or fresh noise: (batch, patches).

        Raises:
            InputError: another shape, or not finite.
        """
        shape = pixel_values.shape[0], grid.patches
        if noise is None:
            return torch.rand(shape, device=self.device)
        noise = self._as_tensor("noise", noise).to(self.device)
        check_per_patch(self._called_as, "noise or bool_masked_pos", static(*noise.shape), *static(*shape))
        check_values(self._called_as, noise=self._host_values(noise))
        return noise.reshape(shape)  # what is not known while tracing is checked as it runs

    def _checked_labels(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, str]:
        """labels as a tensor beside the logits, and the problem type of a call with them.

        Raises:
            InputError: no classifier, labels of another shape or dtype, or indices that are no classes.
        """
        labels = self._as_tensor("labels", labels).to(logits.device)
        batch, is_float = logits.shape[0], labels.is_floating_point()
        problem = check_labels(self._called_as, self.config, labels.shape, batch, is_float=is_float)
        if problem == "single_label_classification" and (host := self._host_values(labels)) is not None:
            check_class_indices(self._called_as, host, self.config.num_labels)
        return labels, problem

    def _checked_head_mask(self, head_mask: Tensor | None) -> Tensor | None:
        """head_mask as (layers, batch or 1, heads, tokens or 1, tokens or 1) in the model's dtype.

        Raises:
            InputError: another shape or other values.
        """
        if head_mask is None:
            return None
        head_mask = self._as_tensor("head_mask", head_mask).to(self.device)
        check_head_mask(self._called_as, self.config, static(*head_mask.shape))
        check_values(self._called_as, head_mask=self._host_values(head_mask))
        heads, layers = self.config.num_attention_heads, self.config.num_hidden_layers
        if head_mask.ndim < 5:
            head_mask = head_mask.expand(layers, heads)[:, None, :, None, None]
        return head_mask.to(self.dtype).expand(-1, -1, heads, -1, -1)

    def _checked_drop_path_mask(self, drop_path_mask: Tensor | None, pixel_values: Tensor) -> Tensor | None:
        """drop_path_mask as a tensor (layers, 2, batch).

        Raises:
            InputError: another shape or dtype, or the model is not in training.
        """
        if drop_path_mask is None:
            return None
        drop_path_mask = self._as_tensor("drop_path_mask", drop_path_mask).to(self.device)
        dims, batch = static(*drop_path_mask.shape), static(pixel_values.shape[0])
        is_bool = drop_path_mask.dtype == torch.bool
        check_drop_path_mask(self._called_as, self.config, dims, *batch, is_bool=is_bool, training=self.training)
        return drop_path_mask

    def _host_values(self, tensor: Tensor) -> Array | None:
        """The values of a tensor where they can be looked at: eager, and on the CPU or inside `vit_core.checked()`."""
        if torch.compiler.is_compiling() or is_tracing() or type(tensor) not in (Tensor, nn.Parameter):
            return None
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # inside torch.func.vmap, grad …
            return None
        return to_numpy(tensor) if tensor.device.type == "cpu" or is_checked() else None
