"""The five model classes: the documented calls around the modules of vit.py and vit_mae.py, with parameters.

Axis words as in vit.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vit_core.calls import documented
from vit_core.config import Size, ViTConfig, ViTMAEConfig
from vit_core.errors import InputError
from vit_core.masking import masking_of
from vit_core.outputs import (
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ViTMAEForPreTrainingOutput,
    ViTMAEModelOutput,
)
from vit_flax.pretrained import FlaxViTPreTrainedModel
from vit_flax.vit import FlaxViTForImageClassificationModule, FlaxViTForMaskedImageModelingModule, FlaxViTModule
from vit_flax.vit_mae import FlaxViTMAEForPreTrainingModule, FlaxViTMAEModule
from vit_flax.weights import Params


class FlaxViTModel(FlaxViTPreTrainedModel):
    """The encoder, with an optional pooler.

    Args:
        config: a ViTConfig; the model keeps a copy.
        input_shape, seed, dtype, _do_init: see FlaxViTPreTrainedModel.
        **kwargs: add_pooling_layer, and use_mask_token for the mask token that `bool_masked_pos` needs.
    """

    config_class = ViTConfig
    module_class = FlaxViTModule

    @documented
    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        head_mask: ArrayLike | None = None,
        interpolate_pos_encoding: bool | None = None,
        bool_masked_pos: ArrayLike | None = None,
        drop_path_mask: ArrayLike | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encodes images.

        Args:
            pixel_values: (batch, channels, height, width), floating; channels-last is accepted as well.
            params: parameters to use instead of the model's.
            dropout_rng: key of the dropouts and of stochastic depth; needed in training where there are any.
            train: whether dropouts and stochastic depth are on.
            output_attentions: return the attention probabilities; None takes the config's value, as below.
            output_hidden_states: return the hidden state after the embeddings and after each layer.
            return_dict: return an output with named fields rather than a tuple of those present.
            head_mask: (heads,) or (layers, heads), 1 = kept, 0 = silenced.
            interpolate_pos_encoding: resize the positions to images of another size than the config's.
            bool_masked_pos: (batch, patches), 1 = replaced by the mask token, 0 = kept.
            drop_path_mask: (layers, 2, batch), bool, in training only: True = the layer leaves out its attention (0) or
                its MLP (1) for the image. Without it, a `drop_path_rate` has it drawn by dropout_rng;
                `vit_core.masking.drop_path_mask` gives the same one in every framework.

        Returns:
            BaseModelOutputWithPooling: last_hidden_state (batch, tokens, hidden) and what was asked for.

        Raises:
            InputError: an argument does not fit the model.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        masks = {"head_mask": head_mask, "bool_masked_pos": bool_masked_pos, "drop_path_mask": drop_path_mask}
        inputs = {"pixel_values": pixel_values, **masks}
        interpolate = bool(interpolate_pos_encoding)
        return self._run(inputs, flags, params, dropout_rng, train, interpolate_pos_encoding=interpolate)


class FlaxViTForMaskedImageModeling(FlaxViTPreTrainedModel):
    """The encoder with a head that paints the masked patches (SimMIM).

    Source: Xie et al., SimMIM: a Simple Framework for Masked Image Modeling (2021), section 3.
    """

    config_class = ViTConfig
    module_class = FlaxViTForMaskedImageModelingModule
    _base_class = FlaxViTModel
    _base_options: ClassVar[Mapping[str, bool]] = {"add_pooling_layer": False, "use_mask_token": True}

    @documented
    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        bool_masked_pos: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        head_mask: ArrayLike | None = None,
        interpolate_pos_encoding: bool | None = None,
        drop_path_mask: ArrayLike | None = None,
    ) -> MaskedImageModelingOutput | tuple[Any, ...]:
        """Reconstructs images; with `bool_masked_pos` also the loss. Arguments as for FlaxViTModel.

        Returns:
            MaskedImageModelingOutput: reconstruction (batch, channels, height, width), loss () and what was asked for.

        Raises:
            InputError: an argument does not fit the model, or a mask is given and encoder_stride is not the patch size.

        Differs: non-square images work, and masks at other sizes than the config's.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        masks = {"head_mask": head_mask, "bool_masked_pos": bool_masked_pos, "drop_path_mask": drop_path_mask}
        inputs = {"pixel_values": pixel_values, **masks}
        interpolate = bool(interpolate_pos_encoding)
        return self._run(inputs, flags, params, dropout_rng, train, interpolate_pos_encoding=interpolate)


class FlaxViTForImageClassification(FlaxViTPreTrainedModel):
    """The encoder with a linear classifier on the class token."""

    config_class = ViTConfig
    module_class = FlaxViTForImageClassificationModule
    _base_class = FlaxViTModel
    _base_options: ClassVar[Mapping[str, bool]] = {"add_pooling_layer": False}

    @documented
    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        head_mask: ArrayLike | None = None,
        interpolate_pos_encoding: bool | None = None,
        labels: ArrayLike | None = None,
        drop_path_mask: ArrayLike | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classifies images; with `labels` also the loss. Other arguments as for FlaxViTModel.

        Args:
            labels: (batch,) class indices, -100 = ignored; or targets of multi-label classification or regression
                (see `vit_core.inputs.check_labels`).

        Returns:
            ImageClassifierOutput: logits (batch, classes), loss () and what was asked for. With num_labels=0 the
            logits are the features that it would read (batch, pooled_size).

        Raises:
            InputError: an argument does not fit the model.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        masks = {"head_mask": head_mask, "drop_path_mask": drop_path_mask}
        inputs = {"pixel_values": pixel_values, "labels": labels, **masks}
        interpolate = bool(interpolate_pos_encoding)
        return self._run(inputs, flags, params, dropout_rng, train, interpolate_pos_encoding=interpolate)


class FlaxViTMAEModel(FlaxViTPreTrainedModel):
    """The encoder of the Masked Autoencoder, which sees the kept patches only."""

    config_class = ViTMAEConfig
    module_class = FlaxViTMAEModule

    @documented
    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        mask_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        head_mask: ArrayLike | None = None,
        interpolate_pos_encoding: bool | None = None,
        mask_ratio: float | None = None,
        *,
        bool_masked_pos: ArrayLike | None = None,
        drop_path_mask: ArrayLike | None = None,
    ) -> ViTMAEModelOutput | tuple[Any, ...]:
        """Encodes the kept patches of images.

        Args:
            pixel_values: (batch, channels, height, width), floating; channels-last is accepted as well.
            noise: (batch, patches), floating; the patches with the least noise are kept. `vit_core.masking.noise` gives
                the same mask in every framework.
            params: parameters to use instead of the model's.
            dropout_rng: key of the dropouts and of stochastic depth; needed in training where there are any.
            mask_rng: key that noise is drawn from where none is given. Without both, the key is the model's seed and
                the number of the call, which no compiled code may depend on: inside jit one of them is needed.
            train: whether dropouts and stochastic depth are on.
            output_attentions: return the attention probabilities; None takes the config's value, as below.
            output_hidden_states: return the hidden state after the embeddings and after each layer.
            return_dict: return an output with named fields rather than a tuple of those present.
            head_mask: (heads,) or (layers, heads), 1 = kept, 0 = silenced.
            interpolate_pos_encoding: resize the positions to images of another size than the config's.
            mask_ratio: share of the patches to remove, instead of the config's; 0 encodes all, in image order.
            bool_masked_pos: (batch, patches), 1 = removed, in place of both; equally many in every image.
            drop_path_mask: (layers, 2, batch), bool, in training only: True = the layer leaves out its attention (0) or
                its MLP (1) for the image. Without it, a `drop_path_rate` has it drawn by dropout_rng;
                `vit_core.masking.drop_path_mask` gives the same one in every framework.

        Returns:
            ViTMAEModelOutput: last_hidden_state (batch, 1 + kept, hidden), mask and ids_restore (batch, patches), and
            what was asked for.

        Raises:
            InputError: an argument does not fit the model, or the ratio keeps no patch.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        noise, mask_ratio = masking_of(type(self).__name__, bool_masked_pos, noise, mask_ratio)
        masks = {"noise": noise, "head_mask": head_mask, "drop_path_mask": drop_path_mask}
        inputs = {"pixel_values": pixel_values, **masks}
        switches = {"interpolate_pos_encoding": bool(interpolate_pos_encoding), "mask_ratio": mask_ratio}
        return self._run(inputs, flags, params, dropout_rng, train, mask_rng, **switches)


class FlaxViTMAEForPreTraining(FlaxViTPreTrainedModel):
    """The Masked Autoencoder: encoder, decoder, and the loss over the removed patches."""

    config_class = ViTMAEConfig
    module_class = FlaxViTMAEForPreTrainingModule
    _base_class = FlaxViTMAEModel

    @documented
    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        mask_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        head_mask: ArrayLike | None = None,
        interpolate_pos_encoding: bool | None = None,
        mask_ratio: float | None = None,
        *,
        bool_masked_pos: ArrayLike | None = None,
        drop_path_mask: ArrayLike | None = None,
    ) -> ViTMAEForPreTrainingOutput | tuple[Any, ...]:
        """Reconstructs the removed patches of images. Arguments as for FlaxViTMAEModel; head_mask is the encoder's.

        Returns:
            ViTMAEForPreTrainingOutput: loss (), logits (batch, patches, pixels), mask and ids_restore (batch, patches),
            and what was asked for.

        Raises:
            InputError: an argument does not fit the model, or the ratio keeps or removes no patch.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        noise, mask_ratio = masking_of(type(self).__name__, bool_masked_pos, noise, mask_ratio)
        masks = {"noise": noise, "head_mask": head_mask, "drop_path_mask": drop_path_mask}
        inputs = {"pixel_values": pixel_values, **masks}
        switches = {"interpolate_pos_encoding": bool(interpolate_pos_encoding), "mask_ratio": mask_ratio}
        return self._run(inputs, flags, params, dropout_rng, train, mask_rng, **switches)

    def patchify(self, pixel_values: Array, interpolate_pos_encoding: bool = False) -> Array:
        """Cuts images into patches; see FlaxViTMAEForPreTrainingModule.patchify."""
        return self.module.patchify(pixel_values, interpolate_pos_encoding)

    def unpatchify(self, patchified_pixel_values: Array, original_image_size: Size | None = None) -> Array:
        """The inverse of `patchify`; see FlaxViTMAEForPreTrainingModule.unpatchify."""
        return self.module.unpatchify(patchified_pixel_values, original_image_size)

    def forward_loss(
        self, pixel_values: Array, pred: Array, mask: Array, interpolate_pos_encoding: bool = False
    ) -> Array:
        """Mean squared error over the removed patches; see FlaxViTMAEForPreTrainingModule.forward_loss.

        Raises:
            InputError: the images do not fit the model, or nothing is masked.
        """
        pred, mask = jnp.asarray(pred), jnp.asarray(mask)
        if (host := self._host_values(mask)) is not None and not host.any():
            raise InputError(f"{type(self).__name__}: forward_loss: mask removes no patch, so there is no loss.")
        return self.module.forward_loss(pixel_values, pred, mask, interpolate_pos_encoding)
