"""Vision Transformer in Flax Linen, in data-flow order: patches, embeddings, layers, encoder, model, heads.

Shapes at line ends use: batch, channels, height, width, patches, tokens (= 1 + patches), hidden, heads, head_dim, mlp,
classes. Modules are pure functions of parameters, which lie in transformers' Flax tree; the model classes hold both.

Source: Dosovitskiy et al., An Image is Worth 16x16 Words (2020); numerics of transformers 4.57.6 (PyTorch, eager).
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.linen import nowrap
from jax import Array

from vit_core.calls import documented
from vit_core.config import PretrainedConfig, ViTConfig, pair, patch_grid
from vit_core.inputs import Grid, check_stride
from vit_core.outputs import BaseModelOutputWithPooling, ImageClassifierOutput, MaskedImageModelingOutput
from vit_core.parameters import Initialiser, patch_weights_of, weights_of
from vit_flax import layers as nn
from vit_flax.activations import activation
from vit_flax.inputs import FlaxViTPreTrainedModule
from vit_flax.layers import at_least_float32


class ViTPatchEmbeddings(nn.Module):
    """Cuts images into patches and projects each to the hidden width, row by row."""

    config: PretrainedConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the parts."""
        config, init = self.config, patch_weights_of(self.config)
        self.projection = nn.convolution(config, config.hidden_size, pair(config.patch_size), self.dtype, init)

    def __call__(self, pixel_values: Array) -> Array:
        """(batch, channels, height, width) -> (batch, patches, hidden); a rest that fills no patch is unseen."""
        patches = self.projection(pixel_values.transpose(0, 2, 3, 1))  # (batch, rows, columns, hidden)
        batch, rows, columns, hidden = patches.shape
        return patches.reshape(batch, rows * columns, hidden)


class ViTEmbeddings(nn.Module):
    """Patches, mask token, class token, positions and registers."""

    config: PretrainedConfig
    dtype: Any
    use_mask_token: bool = False

    def setup(self) -> None:
        """Makes the parts."""
        config, init = self.config, weights_of(self.config)
        rows, columns = self.grid = patch_grid(config)
        self.patch_size = pair(config.patch_size)
        registers, table = config.num_register_tokens, (1, config.use_class_token + rows * columns, config.hidden_size)
        token, many = (1, 1, config.hidden_size), (1, registers, config.hidden_size)
        self.cls_token: Any = self.parameter("cls_token", token, init) if config.use_class_token else None
        zeros = Initialiser("constant", 0.0)
        self.mask_token: Any = self.parameter("mask_token", token, zeros) if self.use_mask_token else None
        self.register_tokens: Any = self.parameter("register_tokens", many, init) if registers else None
        self.position_embeddings = self.parameter("position_embeddings", table, init)
        self.patch_embeddings = ViTPatchEmbeddings(config, self.dtype)
        self.dropout = nn.dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        pixel_values: Array,
        bool_masked_pos: Array | None = None,
        deterministic: bool = True,
        *,
        grid: Grid | None = None,
    ) -> Array:
        """(batch, channels, height, width) -> (batch, tokens, hidden)."""
        embeddings = self.patch_embeddings(pixel_values)  # (batch, patches, hidden)
        if bool_masked_pos is not None:
            masked = bool_masked_pos[..., None].astype(embeddings.dtype)  # (batch, patches, 1)
            embeddings = embeddings * (1 - masked) + self.mask_token * masked
        if self.cls_token is not None:
            cls_token = jnp.broadcast_to(self.cls_token, (embeddings.shape[0], 1, embeddings.shape[2]))
            embeddings = jnp.concatenate((cls_token, embeddings), axis=1)  # (batch, tokens, hidden)
        if grid is None:
            grid = nn.grid_of(pixel_values, self.patch_size)
        positions = nn.resized_positions(self.position_embeddings, self.grid, grid)  # (1, tokens, hidden)
        embeddings = nn.with_registers(embeddings + positions, self.register_tokens, self.cls_token)
        return self.dropout(embeddings, deterministic=deterministic)


class ViTAttention(nn.Module):
    """Multi-head self-attention over the heads that are left after pruning."""

    config: PretrainedConfig
    hidden_size: int
    num_heads: int
    dtype: Any
    pruned: tuple[int, ...] = ()

    def setup(self) -> None:
        """Makes the parts."""
        config = self.config
        self.head_dim = self.hidden_size // self.num_heads
        self.heads = tuple(head for head in range(self.num_heads) if head not in self.pruned)
        width = len(self.heads) * self.head_dim
        projection = partial(nn.linear, config, width, self.dtype, config.qkv_bias)
        self.attention = nn.ModuleDict(dict.fromkeys(("query", "key", "value"), projection))
        self.output = nn.ModuleDict({"dense": partial(nn.linear, config, self.hidden_size, self.dtype)})
        self.dropout = nn.dropout(config.attention_probs_dropout_prob)
        self.implementation = config.attn_implementation or "sdpa"

    def __call__(
        self,
        hidden_states: Array,
        head_mask: Array | None = None,
        output_attentions: bool = False,
        deterministic: bool = True,
    ) -> tuple[Array, Array | None]:
        """(batch, tokens, hidden) -> the same, and the probabilities (batch, heads, tokens, tokens) where asked for."""
        batch, tokens, _ = hidden_states.shape
        query, key, value = (
            self.attention[name](hidden_states).reshape(batch, tokens, len(self.heads), self.head_dim).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )  # (batch, heads, tokens, head_dim) each
        drops = not deterministic and self.dropout.rate > 0
        probabilities = None
        if self.implementation == "sdpa" and head_mask is None and not output_attentions and not drops:
            context = nn.attended(query * self.head_dim**-0.5, key, value)
        else:
            scores = (query @ key.swapaxes(2, 3)) * self.head_dim**-0.5  # (batch, heads, tokens, tokens)
            probabilities = jax.nn.softmax(scores.astype(at_least_float32(scores.dtype)), axis=-1).astype(query.dtype)
            probabilities = self.dropout(probabilities, deterministic=deterministic)
            if head_mask is not None:
                probabilities = probabilities * head_mask[:, jnp.asarray(self.heads)]
            context = probabilities @ value
        context = context.swapaxes(1, 2)  # (batch, tokens, heads, head_dim)
        context = context.reshape(batch, tokens, len(self.heads) * self.head_dim)
        return self.output["dense"](context), probabilities if output_attentions else None


class ViTLayer(nn.Module):
    """Norm, attention, residual; norm, MLP, residual."""

    config: PretrainedConfig
    hidden_size: int
    num_heads: int
    intermediate_size: int
    dtype: Any
    pruned: tuple[int, ...] = ()
    drop_path_rate: float = 0.0

    def setup(self) -> None:
        """Makes the parts."""
        config, dtype = self.config, self.dtype
        self.layernorm_before = nn.layer_norm(config, dtype)
        self.attention = ViTAttention(config, self.hidden_size, self.num_heads, dtype, self.pruned)
        self.layer_scale1 = nn.LayerScale(config, self.hidden_size, dtype)
        self.layernorm_after = nn.layer_norm(config, dtype)
        self.intermediate = nn.ModuleDict(
            {
                "dense": partial(nn.linear, config, self.intermediate_size, dtype),
                "intermediate_act_fn": partial(activation, config.mlp_act, dtype),
            }
        )
        self.output = nn.ModuleDict({"dense": partial(nn.linear, config, self.hidden_size, dtype)})
        self.layer_scale2 = nn.LayerScale(config, self.hidden_size, dtype)
        self.dropout = nn.dropout(config.hidden_dropout_prob)
        self.drop_path = nn.DropPath(self.drop_path_rate)

    def __call__(
        self,
        hidden_states: Array,
        head_mask: Array | None = None,
        output_attentions: bool = False,
        deterministic: bool = True,
        left_out: Any = (None, None),
    ) -> tuple[Array, Array | None]:
        """(batch, tokens, hidden) -> the same, and the attention probabilities where asked for.

        left_out: of both branches, (batch,) each, True where it is left out for an image.
        """
        branch, probabilities = self.attention(
            self.layernorm_before(hidden_states), head_mask, output_attentions, deterministic
        )
        branch = self.layer_scale1(self.dropout(branch, deterministic=deterministic))
        hidden_states = hidden_states + self.drop_path(branch, left_out[0], deterministic)
        branch = self.intermediate["dense"](self.layernorm_after(hidden_states))  # (batch, tokens, mlp)
        branch = self.intermediate["intermediate_act_fn"](branch)
        branch = self.layer_scale2(self.dropout(self.output["dense"](branch), deterministic=deterministic))
        return hidden_states + self.drop_path(branch, left_out[1], deterministic), probabilities


class ViTEncoder(nn.Module):
    """The stack of layers."""

    config: PretrainedConfig
    dtype: Any
    checkpointing: bool = False

    def setup(self) -> None:
        """Makes the parts."""
        config = self.config
        sizes = config.hidden_size, config.num_attention_heads, config.intermediate_size
        made = partial(nn.recomputed(ViTLayer) if self.checkpointing else ViTLayer, config, *sizes, self.dtype)
        rates, pruned = config.drop_path_rates, config.pruned_heads
        self.layer = nn.ModuleList([partial(made, tuple(pruned.get(i, ())), rate) for i, rate in enumerate(rates)])

    def __call__(
        self,
        hidden_states: Array,
        head_mask: Array | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        deterministic: bool = True,
        drop_path_mask: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None, tuple[Array, ...] | None]:
        """(batch, tokens, hidden) -> the same, every hidden state, every attention; the last two None unless asked for.

        head_mask: (layers, batch or 1, heads, tokens or 1, tokens or 1); drop_path_mask: (layers, 2, batch).
        """
        all_hidden_states, attentions = [], []
        for i, layer in enumerate(self.layer):
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            mask = None if head_mask is None else head_mask[i]
            left_out = (None, None) if drop_path_mask is None else drop_path_mask[i]  # (2, batch)
            hidden_states, probabilities = layer(hidden_states, mask, output_attentions, deterministic, left_out)
            attentions.append(probabilities)
        every_state = (*all_hidden_states, hidden_states) if output_hidden_states else None
        return hidden_states, every_state, tuple(attentions) if output_attentions else None


class ViTPooler(nn.Module):
    """A dense layer and an activation over the class token."""

    config: ViTConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the parts."""
        config = self.config
        self.dense = nn.linear(config, config.pooler_output_size, self.dtype)
        self.activation = activation(config.pooler_act, self.dtype)

    def __call__(self, hidden_states: Array) -> Array:
        """(batch, tokens, hidden) -> (batch, pooler_output_size)."""
        return self.activation(self.dense(hidden_states[:, 0]))


class FlaxViTModule(FlaxViTPreTrainedModule):
    """The encoder, with an optional pooler.

    Args:
        config: a ViTConfig.
        dtype: of the computation; parameters are float32 or wider.
        checkpointing: whether the backward pass computes each layer anew.
        add_pooling_layer: whether to add the pooler.
        use_mask_token: whether to add the mask token that `bool_masked_pos` needs.
    """

    model: ClassVar[str] = "FlaxViTModel"
    add_pooling_layer: bool = True
    use_mask_token: bool = False

    def setup(self) -> None:
        """Makes the parts."""
        self.embeddings = ViTEmbeddings(self.config, self.dtype, self.use_mask_token)
        self.encoder = ViTEncoder(self.config, self.dtype, self.checkpointing)
        self.layernorm = nn.final_norm(self.config, self.dtype)
        pooler = nn.MeanPooler if self.config.use_mean_pooling else ViTPooler
        self.pooler = pooler(self.config, self.dtype) if self.add_pooling_layer else None

    @documented
    def __call__(
        self,
        pixel_values: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        head_mask: Array | None = None,
        interpolate_pos_encoding: bool = False,
        bool_masked_pos: Array | None = None,
        drop_path_mask: Array | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encodes images.

        Arguments as for FlaxViTModel.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict, deterministic)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        bool_masked_pos = self._checked_mask(bool_masked_pos, pixel_values, grid)
        head_mask = self._checked_head_mask(head_mask)
        drop_path_mask = self._checked_drop_path_mask(drop_path_mask, pixel_values, deterministic)
        hidden_states = self.embeddings(pixel_values, bool_masked_pos, grid=grid, deterministic=deterministic)
        encoded = self.encoder(hidden_states, head_mask, drop_path_mask=drop_path_mask, **flags.named())
        hidden_states, all_hidden_states, attentions = encoded
        last_hidden_state = self.layernorm(hidden_states)
        output = BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=None if self.pooler is None else self.pooler(last_hidden_state),
            hidden_states=all_hidden_states,
            attentions=attentions,
        )
        return output if flags.return_dict else output.to_tuple()


class FlaxViTForMaskedImageModelingModule(FlaxViTPreTrainedModule):
    """The encoder with a head that paints the masked patches (SimMIM)."""

    model: ClassVar[str] = "FlaxViTForMaskedImageModeling"

    def setup(self) -> None:
        """Makes the parts."""
        self.vit = self._inner(FlaxViTModule, add_pooling_layer=False, use_mask_token=True)
        pixels = self.config.encoder_stride**2 * self.config.num_channels
        self.decoder = nn.Sequential(
            [
                partial(nn.convolution, self.config, pixels, (1, 1), self.dtype),
                partial(nn.PixelShuffle, self.config.encoder_stride),
            ]
        )

    def __call__(
        self,
        pixel_values: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        head_mask: Array | None = None,
        interpolate_pos_encoding: bool = False,
        bool_masked_pos: Array | None = None,
        drop_path_mask: Array | None = None,
    ) -> MaskedImageModelingOutput | tuple[Any, ...]:
        """Reconstructs images; with `bool_masked_pos` also the loss. Arguments as for FlaxViTModel."""
        flags = self._flags(output_attentions, output_hidden_states, return_dict, deterministic)
        if bool_masked_pos is not None:
            check_stride(self._called_as, self.config)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        masks: dict[str, Any] = {"head_mask": head_mask, "drop_path_mask": drop_path_mask}
        encoded = self.vit(pixel_values, bool_masked_pos=bool_masked_pos, **masks, **flags.nested(grid))
        patches = encoded.last_hidden_state[:, self.config.num_prefix_tokens :]  # (batch, patches, hidden)
        patches = patches.reshape(patches.shape[0], grid.rows, grid.columns, self.config.hidden_size)
        reconstruction = self.decoder(patches)  # (batch, channels, height, width)
        output = MaskedImageModelingOutput(
            loss=None if bool_masked_pos is None else self.loss(pixel_values, reconstruction, bool_masked_pos),
            reconstruction=reconstruction,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if flags.return_dict else output.to_tuple()

    @nowrap
    def loss(self, pixel_values: Array, reconstruction: Array, bool_masked_pos: Array) -> Array:
        """Mean absolute error over the masked pixels, in float32 or wider: ()."""
        return nn.masked_error(pixel_values, reconstruction, bool_masked_pos, self.config.encoder_stride)


class FlaxViTForImageClassificationModule(FlaxViTPreTrainedModule):
    """The encoder with a linear classifier on the class token, the mean of the patches, or both."""

    model: ClassVar[str] = "FlaxViTForImageClassification"

    def setup(self) -> None:
        """Makes the parts."""
        classes = self.config.num_labels
        self.vit = self._inner(FlaxViTModule, add_pooling_layer=self.config.use_mean_pooling)
        self.classifier = nn.linear(self.config, classes, self.dtype) if classes > 0 else nn.Identity()

    def __call__(
        self,
        pixel_values: Array | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        head_mask: Array | None = None,
        interpolate_pos_encoding: bool = False,
        labels: Array | None = None,
        drop_path_mask: Array | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classifies images; with `labels` also the loss. Other arguments as for FlaxViTModel."""
        flags = self._flags(output_attentions, output_hidden_states, return_dict, deterministic)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        encoded = self.vit(pixel_values, head_mask=head_mask, drop_path_mask=drop_path_mask, **flags.nested(grid))
        pooled = encoded.pooler_output
        logits = self.classifier(encoded.last_hidden_state[:, 0] if pooled is None else pooled)  # (batch, classes)
        output = ImageClassifierOutput(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if flags.return_dict else output.to_tuple()

    @nowrap
    def loss(self, logits: Array, labels: Array) -> Array:
        """The loss of the problem type that the config or the labels say, in float32 or wider: ()."""
        labels, problem = self._checked_labels(labels, logits)
        logits = logits.astype(at_least_float32(logits.dtype))
        if problem == "single_label_classification":
            return nn.cross_entropy(logits, labels.reshape(-1))
        targets = labels.astype(logits.dtype).reshape(logits.shape)
        if problem == "regression":
            return nn.squared_error(logits, targets)
        return nn.binary_cross_entropy(logits, targets)
