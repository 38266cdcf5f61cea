"""Masked Autoencoder in Flax Linen, in data-flow order: masking, encoder, decoder, pixels and loss.

Axis words as in vit.py, and kept = patches that the encoder sees, pixels = patch height * patch width * channels.
Masks: 1 = removed, 0 = kept.

Source: He et al., Masked Autoencoders Are Scalable Vision Learners (2021); numerics of transformers 4.57.6 (PyTorch).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax.linen import nowrap
from jax import Array

from vit_core.calls import documented
from vit_core.config import Size, ViTMAEConfig, pair, patch_grid
from vit_core.inputs import Grid, check_patchified, check_removes
from vit_core.masking import masking_of
from vit_core.outputs import ViTMAEForPreTrainingOutput, ViTMAEModelOutput
from vit_core.parameters import Initialiser, weights_of
from vit_flax import layers as nn
from vit_flax.inputs import FlaxViTPreTrainedModule
from vit_flax.layers import at_least_float32
from vit_flax.vit import ViTEncoder, ViTLayer, ViTPatchEmbeddings

SINCOS = Initialiser("sincos")


def random_masking(noise: Array, kept: Any) -> tuple[Array, Array, Array]:
    """Which patches are kept: those with the least noise.

    Args:
        noise: (batch, patches).
        kept: number of patches to keep; all of them are kept in image order.

    Returns:
        ids_keep (batch, kept), by rising noise; mask (batch, patches), float32; ids_restore (batch, patches).
    """
    ids_shuffle, ids_restore = nn.stable_order(nn.masking_noise(noise, kept))
    mask = (ids_restore >= kept).astype(jnp.float32)
    return ids_shuffle[:, :kept], mask, ids_restore


def take(tokens: Array, ids: Array) -> Array:
    """Tokens (batch, tokens, hidden) at the places `ids` (batch, n), as (batch, n, hidden)."""
    return jnp.take_along_axis(tokens, ids[..., None], axis=1)


class ViTMAEEmbeddings(nn.Module):
    """Patches with fixed positions, the kept ones behind the class token."""

    config: ViTMAEConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the parts."""
        config, sincos = self.config, nn.initialiser(SINCOS, self.config)
        rows, columns = self.grid = patch_grid(config)
        shape = (1, 1 + rows * columns, config.hidden_size)
        self.cls_token = self.parameter("cls_token", (1, 1, config.hidden_size), weights_of(config))
        self.position_embeddings = self.parameter("position_embeddings", shape, sincos, trainable=False)
        self.patch_embeddings = ViTPatchEmbeddings(config, self.dtype)

    def __call__(self, pixel_values: Array, noise: Array, *, grid: Grid, kept: Any) -> tuple[Array, Array, Array]:
        """(batch, channels, height, width) -> (batch, 1 + kept, hidden), mask and ids_restore (batch, patches)."""
        positions = nn.resized_positions(self.position_embeddings, self.grid, grid)  # (1, tokens, hidden)
        embeddings = self.patch_embeddings(pixel_values) + positions[:, 1:]  # (batch, patches, hidden)
        ids_keep, mask, ids_restore = random_masking(noise, kept)
        embeddings = take(embeddings, ids_keep)  # (batch, kept, hidden)
        cls_token = jnp.broadcast_to(self.cls_token + positions[:, :1], (embeddings.shape[0], 1, embeddings.shape[2]))
        return jnp.concatenate((cls_token, embeddings), axis=1), mask, ids_restore


class FlaxViTMAEModule(FlaxViTPreTrainedModule):
    """The encoder of the Masked Autoencoder.

    Without `noise` it is drawn from the key named "mask".
    """

    model: ClassVar[str] = "FlaxViTMAEModel"

    def setup(self) -> None:
        """Makes the parts."""
        self.embeddings = ViTMAEEmbeddings(self.config, self.dtype)
        self.encoder = ViTEncoder(self.config, self.dtype, self.checkpointing)
        self.layernorm = nn.layer_norm(self.config, self.dtype)

    @documented
    def __call__(
        self,
        pixel_values: Array | None = None,
        noise: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        head_mask: Array | None = None,
        interpolate_pos_encoding: bool = False,
        mask_ratio: float | None = None,
        *,
        bool_masked_pos: Array | None = None,
        drop_path_mask: Array | None = None,
    ) -> ViTMAEModelOutput | tuple[Any, ...]:
        """Encodes the kept patches of images.

        Arguments as for FlaxViTMAEModel.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict, deterministic)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        noise, mask_ratio = masking_of(self._called_as, bool_masked_pos, noise, mask_ratio)
        noise = self._checked_noise(noise, pixel_values, grid)
        head_mask = self._checked_head_mask(head_mask)
        drop_path_mask = self._checked_drop_path_mask(drop_path_mask, pixel_values, deterministic)
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

    config: ViTMAEConfig
    dtype: Any
    checkpointing: bool = False

    def setup(self) -> None:
        """Makes the parts."""
        config, dtype, sincos = self.config, self.dtype, nn.initialiser(SINCOS, self.config)
        rows, columns = patch_grid(config)
        hidden, tokens = config.decoder_hidden_size, 1 + rows * columns
        sizes = hidden, config.decoder_num_attention_heads, config.decoder_intermediate_size
        made = nn.recomputed(ViTLayer) if self.checkpointing else ViTLayer
        self.decoder_embed = nn.linear(config, hidden, dtype)
        self.mask_token = self.parameter("mask_token", (1, 1, hidden), weights_of(config))
        self.decoder_pos_embed = self.parameter("decoder_pos_embed", (1, tokens, hidden), sincos, trainable=False)
        self.decoder_layers = nn.ModuleList([partial(made, config, *sizes, dtype)] * config.decoder_num_hidden_layers)
        self.decoder_norm = nn.layer_norm(config, dtype)
        pixels = math.prod(pair(config.patch_size)) * config.num_channels
        self.decoder_pred = nn.linear(config, pixels, dtype)

    def __call__(self, hidden_states: Array, ids_restore: Array, deterministic: bool = True) -> Array:
        """(batch, 1 + kept, hidden) and (batch, patches) -> (batch, patches, pixels)."""
        hidden_states = self.decoder_embed(hidden_states)  # (batch, 1 + kept, decoder hidden)
        batch, patches = ids_restore.shape
        removed = patches + 1 - hidden_states.shape[1]
        mask_tokens = jnp.broadcast_to(self.mask_token, (batch, removed, hidden_states.shape[2]))
        shuffled = jnp.concatenate((hidden_states[:, 1:], mask_tokens), axis=1)  # (batch, patches, decoder hidden)
        hidden_states = jnp.concatenate((hidden_states[:, :1], take(shuffled, ids_restore)), axis=1)
        hidden_states = hidden_states + self.positions(patches)  # (batch, tokens, decoder hidden)
        for layer in self.decoder_layers:
            hidden_states, _ = layer(hidden_states, None, False, deterministic)
        return self.decoder_pred(self.decoder_norm(hidden_states))[:, 1:]

    def positions(self, patches: Any) -> Array:
        """The decoder's positions for that many patches: (1, tokens, decoder hidden).

        Differs: another count is met by resizing the flattened table as one line, which is what the reference does at
        run time (and not what the encoder does).
        """
        table = self.decoder_pos_embed
        return nn.resized_positions(table, (1, table.shape[1] - 1), Grid(1, patches))


class FlaxViTMAEForPreTrainingModule(FlaxViTPreTrainedModule):
    """Encoder, decoder, and the loss over the removed patches."""

    model: ClassVar[str] = "FlaxViTMAEForPreTraining"

    def setup(self) -> None:
        """Makes the parts."""
        self.vit = self._inner(FlaxViTMAEModule)
        self.decoder = ViTMAEDecoder(self.config, self.dtype, self.checkpointing)

    def __call__(
        self,
        pixel_values: Array | None = None,
        noise: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        head_mask: Array | None = None,
        interpolate_pos_encoding: bool = False,
        mask_ratio: float | None = None,
        *,
        bool_masked_pos: Array | None = None,
        drop_path_mask: Array | None = None,
    ) -> ViTMAEForPreTrainingOutput | tuple[Any, ...]:
        """Reconstructs the removed patches of images. Arguments as for FlaxViTMAEForPreTraining."""
        flags = self._flags(output_attentions, output_hidden_states, return_dict, deterministic)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        noise, mask_ratio = masking_of(self._called_as, bool_masked_pos, noise, mask_ratio)
        mask_ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        check_removes(self._called_as, mask_ratio, *nn.static(grid.patches))
        masks: dict[str, Any] = {"head_mask": head_mask, "drop_path_mask": drop_path_mask}
        encoded = self.vit(pixel_values, noise=noise, mask_ratio=mask_ratio, **masks, **flags.nested(grid))
        logits = self.decoder(encoded.last_hidden_state, encoded.ids_restore, deterministic)  # (batch, patches, pixels)
        output = ViTMAEForPreTrainingOutput(
            loss=self.forward_loss(pixel_values, logits, encoded.mask, grid),
            logits=logits,
            mask=encoded.mask,
            ids_restore=encoded.ids_restore,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if flags.return_dict else output.to_tuple()

    @nowrap
    def patchify(self, pixel_values: Array, interpolate_pos_encoding: bool | Grid = False) -> Array:
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
        batch, channels = pixel_values.shape[0], self.config.num_channels
        pixel_values = pixel_values[:, :, : grid.rows * height, : grid.columns * width]
        patches = pixel_values.reshape(batch, channels, grid.rows, height, grid.columns, width)
        patches = patches.transpose(0, 2, 4, 3, 5, 1)
        return patches.reshape(batch, grid.patches, height * width * channels)

    @nowrap
    def unpatchify(self, patchified_pixel_values: Array, original_image_size: Size | None = None) -> Array:
        """The inverse of `patchify`.

        Args:
            patchified_pixel_values: (batch, patches, pixels).
            original_image_size: int or (height, width); None means the config's.

        Returns:
            (batch, channels, rows * patch height, columns * patch width).

        Raises:
            InputError: another number of patches or pixels.
        """
        rows, columns = patch_grid(self.config, original_image_size)
        height, width = pair(self.config.patch_size)
        channels = self.config.num_channels
        patchified_pixel_values = jnp.asarray(patchified_pixel_values)
        check_patchified(self._called_as, self.config, patchified_pixel_values.shape, rows * columns)
        batch = patchified_pixel_values.shape[0]
        patches = patchified_pixel_values.reshape(batch, rows, columns, height, width, channels)
        patches = patches.transpose(0, 5, 1, 3, 2, 4)
        return patches.reshape(batch, channels, rows * height, columns * width)

    @nowrap
    def forward_loss(
        self, pixel_values: Array, pred: Array, mask: Array, interpolate_pos_encoding: bool | Grid = False
    ) -> Array:
        """Mean squared error over the removed patches, in float32 or wider: ().

        Args:
            pixel_values: (batch, channels, height, width), or channels-last.
            pred: (batch, patches, pixels).
            mask: (batch, patches), 1 = removed.
            interpolate_pos_encoding: accept images of another size than the config's.

        Raises:
            InputError: the images do not fit the model.

        Differs: with norm_pix_loss the variance is the unbiased one, as in the reference.
        """
        target = self.patchify(pixel_values, interpolate_pos_encoding)
        target = target.astype(at_least_float32(pred.dtype))
        if self.config.norm_pix_loss:
            variance = target.var(axis=-1, ddof=1, keepdims=True)
            target = (target - target.mean(axis=-1, keepdims=True)) / jnp.sqrt(variance + 1e-6)
        error = jnp.square(pred.astype(target.dtype) - target).mean(axis=-1)  # (batch, patches)
        mask = mask.astype(target.dtype)
        return (error * mask).sum() / mask.sum()
