"""Masked Autoencoder in Keras 3, in data-flow order: masking, encoder, decoder, pixels and loss.

Axis words as in vit.py, and kept = patches that the encoder sees, pixels = patch height * patch width * channels.
Masks: 1 = removed, 0 = kept.

Source: He et al., Masked Autoencoders Are Scalable Vision Learners (2021); numerics of transformers 4.57.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from vit_core.config import Size, ViTMAEConfig, pair, patch_grid
from vit_core.errors import InputError
from vit_core.inputs import Grid, check_patchified, check_removes
from vit_core.masking import masking_of
from vit_core.outputs import ViTMAEForPreTrainingOutput, ViTMAEModelOutput
from vit_tf import layers as nn
from vit_tf.inputs import dims
from vit_tf.layers import at_least_float32
from vit_tf.pretrained import SERIALISABLE, TFViTMAEPreTrainedModel
from vit_tf.vit import ViTEncoder, ViTLayer, ViTPatchEmbeddings


def random_masking(noise: Tensor, kept: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Which patches are kept: those with the least noise.

    Args:
        noise: (batch, patches).
        kept: number of patches to keep; all of them are kept in image order.

    Returns:
        ids_keep (batch, kept), by rising noise; mask (batch, patches), float32; ids_restore (batch, patches).
    """
    ids_shuffle, ids_restore = nn.stable_order(nn.masking_noise(noise, kept))
    mask = ops.cast(ids_restore >= kept, tf.float32)
    return ids_shuffle[:, :kept], mask, ids_restore


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (batch, tokens, hidden) at the places `ids` (batch, n), as (batch, n, hidden)."""
    return tf.gather(tokens, ids, axis=1, batch_dims=1)


class ViTMAEEmbeddings(nn.Module):
    """Patches with fixed positions, the kept ones behind the class token."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__(autocast=False)  # noise is compared in float32, whatever the policy
        rows, columns = self.grid = patch_grid(config)
        self.cls_token = nn.parameter((1, 1, config.hidden_size))
        self.position_embeddings = nn.parameter((1, 1 + rows * columns, config.hidden_size), trainable=False)
        self.patch_embeddings = ViTPatchEmbeddings(config)

    def call(self, pixel_values: Tensor, noise: Tensor, *, grid: Grid, kept: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, channels, height, width) -> (batch, 1 + kept, hidden), mask and ids_restore (batch, patches)."""
        table = ops.cast(self.position_embeddings, self.compute_dtype)
        positions = nn.resized_positions(table, self.grid, grid)  # (1, tokens, hidden)
        embeddings = self.patch_embeddings(pixel_values) + positions[:, 1:]  # (batch, patches, hidden)
        ids_keep, mask, ids_restore = random_masking(noise, kept)
        embeddings = take(embeddings, ids_keep)  # (batch, kept, hidden)
        cls_token = ops.cast(self.cls_token, self.compute_dtype) + positions[:, :1]
        cls_token = ops.repeat(cls_token, ops.shape(embeddings)[0], axis=0)  # (batch, 1, hidden)
        return ops.concatenate((cls_token, embeddings), axis=1), mask, ids_restore


@SERIALISABLE
class TFViTMAEModel(TFViTMAEPreTrainedModel):
    """The encoder of the Masked Autoencoder, which sees the kept patches only.

    Args:
        config: a ViTMAEConfig; the model keeps a copy.
        **kwargs: name, dtype (a dtype or a Keras policy) and trainable, as for every Keras model.
    """

    __call__: Callable[..., ViTMAEModelOutput]

    def __init__(self, config: ViTMAEConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.seed_generator = keras.random.SeedGenerator()
        with self._building():
            self.embeddings = ViTMAEEmbeddings(self.config)
            self.encoder = ViTEncoder(self.config)
            self.layernorm = nn.layer_norm(self.config.hidden_size, eps=self.config.layer_norm_eps)
        self._initialise()

    def call(
        self,
        pixel_values: Tensor | None = None,
        noise: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        interpolate_pos_encoding: bool = False,
        mask_ratio: float | None = None,
        *,
        bool_masked_pos: Tensor | None = None,
        drop_path_mask: Tensor | None = None,
    ) -> ViTMAEModelOutput | tuple[Any, ...]:
        """Encodes the kept patches of images.

        Args:
            pixel_values: (batch, channels, height, width), floating; channels-last is accepted as well.
            noise: (batch, patches), floating; the patches with the least noise are kept. Without it noise is drawn
                from Keras' global seed; `vit_core.masking.noise` gives the same mask in every framework.
            head_mask: (heads,) or (layers, heads), 1 = kept, 0 = silenced.
            output_attentions: return the attention probabilities; None takes the config's value, as below.
            output_hidden_states: return the hidden state after the embeddings and after each layer.
            return_dict: return an output with named fields rather than a tuple of those present.
            training: whether dropouts and stochastic depth are on.
            interpolate_pos_encoding: resize the positions to images of another size than the config's.
            mask_ratio: share of the patches to remove, instead of the config's; 0 encodes all, in image order.
            bool_masked_pos: (batch, patches), 1 = removed, in place of both; equally many in every image.
            drop_path_mask: (layers, 2, batch), bool, in training only: True = the layer leaves out its attention (0) or
                its MLP (1) for the image. Without it, a `drop_path_rate` has it drawn from Keras' seed;
                `vit_core.masking.drop_path_mask` gives the same one in every framework.

        Returns:
            ViTMAEModelOutput: last_hidden_state (batch, 1 + kept, hidden), mask and ids_restore (batch, patches), and
            what was asked for.

        Raises:
            InputError: an argument does not fit the model, or the ratio keeps no patch.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        noise, mask_ratio = masking_of(self._called_as, bool_masked_pos, noise, mask_ratio)
        noise = self._checked_noise(noise, pixel_values, grid)
        head_mask = self._checked_head_mask(head_mask)
        drop_path_mask = self._checked_drop_path_mask(drop_path_mask, pixel_values, training)
        kept = nn.kept_of(grid.patches, self.config.mask_ratio if mask_ratio is None else mask_ratio)
        hidden_states, mask, ids_restore = self.embeddings(pixel_values, noise, grid=grid, kept=kept)
        encoded = self.encoder(hidden_states, head_mask, drop_path_mask=drop_path_mask, **flags.named())
        hidden_states, all_hidden_states, attentions = encoded
        output = ViTMAEModelOutput(
            last_hidden_state=self.layernorm(hidden_states),
            mask=mask,
            ids_restore=ids_restore,
            hidden_states=all_hidden_states,
            attentions=attentions,
        )
        return output if flags.return_dict else output.to_tuple()


class ViTMAEDecoder(nn.Module):
    """Puts mask tokens where patches were removed, and predicts the pixels of every patch."""

    def __init__(self, config: ViTMAEConfig) -> None:
        super().__init__()
        rows, columns = patch_grid(config)
        hidden, tokens = config.decoder_hidden_size, 1 + rows * columns
        sizes = hidden, config.decoder_num_attention_heads, config.decoder_intermediate_size
        self.decoder_embed = nn.linear(config.hidden_size, hidden)
        self.mask_token = nn.parameter((1, 1, hidden))
        self.decoder_pos_embed = nn.parameter((1, tokens, hidden), trainable=False)
        self.decoder_layers = nn.ModuleList(ViTLayer(config, *sizes) for _ in range(config.decoder_num_hidden_layers))
        self.decoder_norm = nn.layer_norm(hidden, eps=config.layer_norm_eps)
        pixels = math.prod(pair(config.patch_size)) * config.num_channels
        self.decoder_pred = nn.linear(hidden, pixels, dtype=nn.head_dtype())
        self.checkpointing = False

    def call(self, hidden_states: Tensor, ids_restore: Tensor, training: bool = False) -> Tensor:
        """(batch, 1 + kept, hidden) and (batch, patches) -> (batch, patches, pixels)."""
        hidden_states = self.decoder_embed(hidden_states)  # (batch, 1 + kept, decoder hidden)
        batch, patches = ops.shape(ids_restore)
        removed = patches + 1 - ops.shape(hidden_states)[1]
        mask_tokens = ops.tile(self.mask_token, (batch, removed, 1))  # (batch, removed, decoder hidden)
        shuffled = ops.concatenate((hidden_states[:, 1:], mask_tokens), axis=1)  # (batch, patches, decoder hidden)
        hidden_states = ops.concatenate((hidden_states[:, :1], take(shuffled, ids_restore)), axis=1)
        hidden_states = hidden_states + self.positions(patches)  # (batch, tokens, decoder hidden)
        for layer in self.decoder_layers:
            run = partial(nn.recomputed, layer) if self.checkpointing and training else layer
            hidden_states, _ = run(hidden_states)
        return self.decoder_pred(self.decoder_norm(hidden_states))[:, 1:]

    def positions(self, patches: Any) -> Tensor:
        """The decoder's positions for that many patches: (1, tokens, decoder hidden).

        Differs: another count is met by resizing the flattened table as one line, which is what the reference does at
        run time (and not what the encoder does).
        """
        table = self.decoder_pos_embed
        return nn.resized_positions(table, (1, table.shape[1] - 1), Grid(1, patches))


@SERIALISABLE
class TFViTMAEForPreTraining(TFViTMAEPreTrainedModel):
    """The Masked Autoencoder: encoder, decoder, and the loss over the removed patches."""

    __call__: Callable[..., ViTMAEForPreTrainingOutput]

    def __init__(self, config: ViTMAEConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        with self._building():
            self.vit = self._inner(TFViTMAEModel)
            self.decoder = ViTMAEDecoder(self.config)
        self._initialise()

    def call(
        self,
        pixel_values: Tensor | None = None,
        noise: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        interpolate_pos_encoding: bool = False,
        mask_ratio: float | None = None,
        *,
        bool_masked_pos: Tensor | None = None,
        drop_path_mask: Tensor | None = None,
    ) -> ViTMAEForPreTrainingOutput | tuple[Any, ...]:
        """Reconstructs the removed patches of images. Arguments as for TFViTMAEModel; head_mask is the encoder's.

        Returns:
            ViTMAEForPreTrainingOutput: loss (), logits (batch, patches, pixels), mask and ids_restore (batch, patches),
            and what was asked for.

        Raises:
            InputError: an argument does not fit the model, or the ratio keeps or removes no patch.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        noise, mask_ratio = masking_of(self._called_as, bool_masked_pos, noise, mask_ratio)
        mask_ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        check_removes(self._called_as, mask_ratio, *nn.static(grid.patches))
        masks: dict[str, Any] = {"head_mask": head_mask, "drop_path_mask": drop_path_mask}
        encoded = self.vit(pixel_values, noise=noise, mask_ratio=mask_ratio, **masks, **flags.nested(grid))
        logits = self.decoder(encoded.last_hidden_state, encoded.ids_restore)  # (batch, patches, pixels)
        output = ViTMAEForPreTrainingOutput(
            loss=self.forward_loss(pixel_values, logits, encoded.mask, grid),
            logits=logits,
            mask=encoded.mask,
            ids_restore=encoded.ids_restore,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if flags.return_dict else output.to_tuple()

    def patchify(self, pixel_values: Tensor, interpolate_pos_encoding: bool | Grid = False) -> Tensor:
        """Cuts images into patches, pixels in (row, column, channel) order.

        Args:
            pixel_values: (batch, channels, height, width), or channels-last.
            interpolate_pos_encoding: accept images of another size than the config's.

        Returns:
            (batch, patches, pixels); pixels beyond the last whole patch are left out.

        Raises:
            InputError: the images do not fit the model.
        """
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        height, width = pair(self.config.patch_size)
        batch, channels = ops.shape(pixel_values)[0], self.config.num_channels
        pixel_values = pixel_values[:, :, : grid.rows * height, : grid.columns * width]
        patches = ops.reshape(pixel_values, (batch, channels, grid.rows, height, grid.columns, width))
        patches = ops.transpose(patches, (0, 2, 4, 3, 5, 1))
        return ops.reshape(patches, (batch, grid.patches, height * width * channels))

    def unpatchify(self, patchified_pixel_values: Tensor, original_image_size: Size | None = None) -> Tensor:
        """The inverse of `patchify`.

        Args:
            patchified_pixel_values: (batch, patches, pixels).
            original_image_size: int or (height, width); None means the config's.

        Returns:
            (batch, channels, rows * patch height, columns * patch width).

        Raises:
            InputError: another number of patches or pixels.

        Differs: channels come first; transformers' TensorFlow class gives channels-last images.
        """
        rows, columns = patch_grid(self.config, original_image_size)
        height, width = pair(self.config.patch_size)
        channels = self.config.num_channels
        patchified_pixel_values = ops.convert_to_tensor(patchified_pixel_values)
        check_patchified(self._called_as, self.config, dims(patchified_pixel_values), rows * columns)
        batch = ops.shape(patchified_pixel_values)[0]
        patches = ops.reshape(patchified_pixel_values, (batch, rows, columns, height, width, channels))
        patches = ops.transpose(patches, (0, 5, 1, 3, 2, 4))
        return ops.reshape(patches, (batch, channels, rows * height, columns * width))

    def forward_loss(
        self, pixel_values: Tensor, pred: Tensor, mask: Tensor, interpolate_pos_encoding: bool | Grid = False
    ) -> Tensor:
        """Mean squared error over the removed patches, in float32 or wider: ().

        Args:
            pixel_values: (batch, channels, height, width), or channels-last.
            pred: (batch, patches, pixels).
            mask: (batch, patches), 1 = removed.
            interpolate_pos_encoding: accept images of another size than the config's.

        Raises:
            InputError: the images do not fit the model, or nothing is masked.

        Differs: with norm_pix_loss the variance is the unbiased one, as in the reference.
        """
        pred, mask = ops.convert_to_tensor(pred), ops.convert_to_tensor(mask)
        target = self.patchify(pixel_values, interpolate_pos_encoding)
        target = ops.cast(target, at_least_float32(pred.dtype))
        if (host := self._host_values(mask)) is not None and not host.any():
            raise InputError(f"{type(self).__name__}: forward_loss: mask removes no patch, so there is no loss.")
        if self.config.norm_pix_loss:
            target = target - ops.mean(target, axis=-1, keepdims=True)
            variance = ops.sum(ops.square(target), axis=-1, keepdims=True) / (target.shape[-1] - 1)
            target = target / ops.sqrt(variance + 1e-6)
        error = ops.mean(ops.square(ops.cast(pred, target.dtype) - target), axis=-1)  # (batch, patches)
        mask = ops.cast(mask, target.dtype)
        return ops.sum(error * mask) / ops.sum(mask)
