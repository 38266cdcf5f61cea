"""Vision Transformer in PyTorch, in data-flow order: patches, embeddings, layers, encoder, model, heads.

Shapes at line ends use: batch, channels, height, width, patches, tokens (= 1 + patches), hidden, heads, head_dim, mlp,
classes. Modules carry the canonical parameter names, so transformers' state dicts load as they are.

Source: Dosovitskiy et al., An Image is Worth 16x16 Words (2020); numerics of transformers 4.57.6 (PyTorch, eager).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_core.config import GATED_ACTIVATIONS, PretrainedConfig, ViTConfig, pair, patch_grid
from vit_core.inputs import Grid, check_stride
from vit_core.outputs import BaseModelOutputWithPooling, ImageClassifierOutput, MaskedImageModelingOutput
from vit_torch.activations import activation
from vit_torch.layers import (
    DropPath,
    LayerScale,
    MeanPooler,
    PatchConv2d,
    at_least_float32,
    binary_cross_entropy,
    cross_entropy,
    final_norm,
    grid_of,
    masked_error,
    resized_positions,
    squared_error,
    with_registers,
)
from vit_torch.pretrained import ViTPreTrainedModel
from vit_torch.recomputing import Recomputing


class ViTPatchEmbeddings(nn.Module):
    """Cuts images into patches and projects each to the hidden width, row by row."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        patch = pair(config.patch_size)
        self.image_size, self.patch_size, self.num_channels = pair(config.image_size), patch, config.num_channels
        self.num_patches = math.prod(patch_grid(config))
        self.projection = PatchConv2d(config.num_channels, config.hidden_size, patch)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, patches, hidden); a rest that fills no patch is unseen."""
        return self.projection(pixel_values).flatten(2).transpose(1, 2)  # (batch, patches, hidden)


class ViTEmbeddings(nn.Module):
    """Patches, mask token, class token, positions and registers."""

    def __init__(self, config: PretrainedConfig, use_mask_token: bool = False) -> None:
        super().__init__()
        rows, columns = self.grid = patch_grid(config)
        self.patch_size = pair(config.patch_size)
        registers, table = config.num_register_tokens, config.use_class_token + rows * columns
        self.cls_token: Any = nn.Parameter(torch.empty(1, 1, config.hidden_size)) if config.use_class_token else None
        self.mask_token: Any = nn.Parameter(torch.empty(1, 1, config.hidden_size)) if use_mask_token else None
        self.register_tokens: Any = nn.Parameter(torch.empty(1, registers, config.hidden_size)) if registers else None
        self.position_embeddings = nn.Parameter(torch.empty(1, table, config.hidden_size))
        self.patch_embeddings = ViTPatchEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None, *, grid: Grid | None = None
    ) -> Tensor:
        """(batch, channels, height, width) -> (batch, tokens, hidden)."""
        embeddings = self.patch_embeddings(pixel_values)  # (batch, patches, hidden)
        if bool_masked_pos is not None:
            masked = bool_masked_pos[..., None].to(embeddings.dtype)  # (batch, patches, 1)
            embeddings = embeddings * (1 - masked) + self.mask_token * masked
        if self.cls_token is not None:
            cls_token = self.cls_token.expand(embeddings.shape[0], -1, -1)  # (batch, 1, hidden)
            embeddings = torch.cat((cls_token, embeddings), dim=1)  # (batch, tokens, hidden)
        if grid is None:
            grid = grid_of(pixel_values, self.patch_size)
        positions = resized_positions(self.position_embeddings, self.grid, grid)  # (1, tokens, hidden)
        embeddings = with_registers(embeddings + positions, self.register_tokens, self.cls_token)
        return self.dropout(embeddings)


class ViTAttention(nn.Module):
    """Multi-head self-attention over the heads that are left after pruning."""

    def __init__(self, config: PretrainedConfig, hidden_size: int, num_heads: int, pruned: Sequence[int] = ()) -> None:
        super().__init__()
        self.head_dim = hidden_size // num_heads
        self.heads = tuple(head for head in range(num_heads) if head not in pruned)
        width = len(self.heads) * self.head_dim
        self.attention = nn.ModuleDict(
            {name: nn.Linear(hidden_size, width, bias=config.qkv_bias) for name in ("query", "key", "value")}
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(width, hidden_size)})
        self.dropout_prob = config.attention_probs_dropout_prob
        self.implementation = config.attn_implementation

    def forward(
        self, hidden_states: Tensor, head_mask: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(batch, tokens, hidden) -> the same, and the probabilities (batch, heads, tokens, tokens) where asked for."""
        query, key, value = (
            self.attention[name](hidden_states).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for name in ("query", "key", "value")
        )  # (batch, heads, tokens, head_dim) each
        dropout_prob = self.dropout_prob if self.training else 0.0
        probabilities = None
        if self.implementation == "sdpa" and head_mask is None and not output_attentions:
            context = F.scaled_dot_product_attention(
                query, key, value, attn_mask=None, dropout_p=dropout_prob, is_causal=False, scale=self.head_dim**-0.5
            )
        else:
            scores = (query @ key.transpose(2, 3)) * self.head_dim**-0.5  # (batch, heads, tokens, tokens)
            probabilities = F.softmax(scores, dim=-1, dtype=at_least_float32(scores.dtype)).to(query.dtype)
            probabilities = F.dropout(probabilities, p=dropout_prob)
            if head_mask is not None:
                probabilities = probabilities * head_mask[:, self.heads]
            context = probabilities @ value
        del query, key, value  # memory for what follows: asked for anew, it costs time
        context = context.transpose(1, 2).flatten(2)  # (batch, tokens, heads * head_dim)
        return self.output["dense"](context), probabilities if output_attentions else None


class ViTLayer(nn.Module):
    """Norm, attention, residual; norm, MLP, residual."""

    def __init__(
        self,
        config: PretrainedConfig,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        pruned: Sequence[int] = (),
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        mlp_output = intermediate_size // 2 if config.mlp_act in GATED_ACTIVATIONS else intermediate_size
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = ViTAttention(config, hidden_size, num_heads, pruned)
        self.layer_scale1 = LayerScale(config, hidden_size)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.ModuleDict(
            {
                "dense": nn.Linear(hidden_size, intermediate_size),
                "intermediate_act_fn": activation(config.mlp_act),
            }
        )
        self.output = nn.ModuleDict({"dense": nn.Linear(mlp_output, hidden_size)})
        self.layer_scale2 = LayerScale(config, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        left_out: Any = (None, None),
    ) -> tuple[Tensor, Tensor | None]:
        """(batch, tokens, hidden) -> the same, and the attention probabilities where asked for.

        left_out: of both branches, (batch,) each, True where it is left out for an image.
        """
        branch, probabilities = self.attention(self.layernorm_before(hidden_states), head_mask, output_attentions)
        branch = self.layer_scale1(self.dropout(branch))
        hidden_states = hidden_states + self.drop_path(branch, left_out[0])
        del branch  # before the widest step asks for memory
        branch = self.intermediate["dense"](self.layernorm_after(hidden_states))  # (batch, tokens, mlp)
        branch = self.intermediate["intermediate_act_fn"](branch)
        branch = self.layer_scale2(self.dropout(self.output["dense"](branch)))
        return hidden_states + self.drop_path(branch, left_out[1]), probabilities


class ViTEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        sizes = config.hidden_size, config.num_attention_heads, config.intermediate_size
        self.layer = nn.ModuleList(
            ViTLayer(config, *sizes, config.pruned_heads.get(i, ()), rate)
            for i, rate in enumerate(config.drop_path_rates)
        )
        self.recomputing: Recomputing | None = None

    def forward(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        drop_path_mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """(batch, tokens, hidden) -> the same, every hidden state, every attention; the last two None unless asked for.

        head_mask: (layers, batch or 1, heads, tokens or 1, tokens or 1); drop_path_mask: (layers, 2, batch).
        """
        all_hidden_states, attentions = [], []
        for i, layer in enumerate(self.layer):
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            mask = None if head_mask is None else head_mask[i]
            run = partial(self.recomputing, i, layer) if self.recomputing and self.training else layer
            left_out = (None, None) if drop_path_mask is None else drop_path_mask[i]  # (2, batch)
            hidden_states, probabilities = run(hidden_states, mask, output_attentions, left_out)
            attentions.append(probabilities)
        every_state = (*all_hidden_states, hidden_states) if output_hidden_states else None
        return hidden_states, every_state, tuple(attentions) if output_attentions else None


class ViTPooler(nn.Module):
    """A dense layer and an activation over the class token."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.pooler_output_size)
        self.activation = activation(config.pooler_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, pooler_output_size)."""
        return self.activation(self.dense(hidden_states[:, 0]))


class ViTModel(ViTPreTrainedModel):
    """The encoder, with an optional pooler.

    Args:
        config: a ViTConfig; the model keeps a copy.
        add_pooling_layer: whether to add the pooler.
        use_mask_token: whether to add the mask token that `bool_masked_pos` needs.
    """

    def __init__(self, config: ViTConfig, add_pooling_layer: bool = True, use_mask_token: bool = False) -> None:
        super().__init__(config, add_pooling_layer=add_pooling_layer, use_mask_token=use_mask_token)
        with self._building():
            self.embeddings = ViTEmbeddings(self.config, use_mask_token)
            self.encoder = ViTEncoder(self.config)
            self.layernorm = final_norm(self.config)
            pooler = MeanPooler if self.config.use_mean_pooling else ViTPooler
            self.pooler = pooler(self.config) if add_pooling_layer else None
        self._initialise()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
        drop_path_mask: Tensor | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encodes images.

        Args:
            pixel_values: (batch, channels, height, width), floating; channels-last is accepted as well.
            bool_masked_pos: (batch, patches), 1 = replaced by the mask token, 0 = kept.
            head_mask: (heads,) or (layers, heads), 1 = kept, 0 = silenced.
            output_attentions: return the attention probabilities; None takes the config's value, as below.
            output_hidden_states: return the hidden state after the embeddings and after each layer.
            interpolate_pos_encoding: resize the positions to images of another size than the config's.
            return_dict: return an output with named fields rather than a tuple of those present.
            drop_path_mask: (layers, 2, batch), bool, in training only: True = the layer leaves out its attention (0) or
                its MLP (1) for the image. Without it, a `drop_path_rate` has it drawn from torch's generator;
                `vit_core.masking.drop_path_mask` gives the same one in every framework.

        Returns:
            BaseModelOutputWithPooling: last_hidden_state (batch, tokens, hidden) and what was asked for.

        Raises:
            InputError: an argument does not fit the model.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        bool_masked_pos = self._checked_mask(bool_masked_pos, pixel_values, grid)
        head_mask = self._checked_head_mask(head_mask)
        drop_path_mask = self._checked_drop_path_mask(drop_path_mask, pixel_values)
        hidden_states = self.embeddings(pixel_values, bool_masked_pos, grid=grid)
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


class ViTForMaskedImageModeling(ViTPreTrainedModel):
    """The encoder with a head that paints the masked patches (SimMIM).

    Source: Xie et al., SimMIM: a Simple Framework for Masked Image Modeling (2021), section 3.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        with self._building():
            self.vit = self._inner(ViTModel, add_pooling_layer=False, use_mask_token=True)
            pixels = self.config.encoder_stride**2 * self.config.num_channels
            self.decoder = nn.Sequential(
                PatchConv2d(self.config.hidden_size, pixels, 1), nn.PixelShuffle(self.config.encoder_stride)
            )
        self._initialise()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        bool_masked_pos: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
        drop_path_mask: Tensor | None = None,
    ) -> MaskedImageModelingOutput | tuple[Any, ...]:
        """Reconstructs images; with `bool_masked_pos` also the loss. Arguments as for ViTModel.

        Returns:
            MaskedImageModelingOutput: reconstruction (batch, channels, height, width), loss () and what was asked for.

        Raises:
            InputError: an argument does not fit the model, or a mask is given and encoder_stride is not the patch size.

        Differs: non-square images work, and masks at other sizes than the config's.
        """
        flags = self._flags(output_attentions, output_hidden_states, return_dict)
        if bool_masked_pos is not None:
            check_stride(self._called_as, self.config)
        pixel_values, grid = self._checked_images(pixel_values, interpolate_pos_encoding)
        masks: dict[str, Any] = {"head_mask": head_mask, "drop_path_mask": drop_path_mask}
        encoded = self.vit(pixel_values, bool_masked_pos=bool_masked_pos, **masks, **flags.nested(grid))
        patches = encoded.last_hidden_state[:, self.config.num_prefix_tokens :]  # (batch, patches, hidden)
        patches = patches.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))  # (batch, hidden, rows, columns)
        reconstruction = self.decoder(patches)  # (batch, channels, height, width)
        output = MaskedImageModelingOutput(
            loss=None if bool_masked_pos is None else self.loss(pixel_values, reconstruction, bool_masked_pos),
            reconstruction=reconstruction,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if flags.return_dict else output.to_tuple()

    def loss(self, pixel_values: Tensor, reconstruction: Tensor, bool_masked_pos: Tensor) -> Tensor:
        """Mean absolute error over the masked pixels, in float32 or wider: ()."""
        return masked_error(pixel_values, reconstruction, bool_masked_pos, self.config.encoder_stride)


class ViTForImageClassification(ViTPreTrainedModel):
    """The encoder with a linear classifier on the class token, the mean of the patches, or both."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        width, classes = self.config.pooled_size, self.config.num_labels
        with self._building():
            self.vit = self._inner(ViTModel, add_pooling_layer=self.config.use_mean_pooling)
            self.classifier = nn.Linear(width, classes) if classes > 0 else nn.Identity()
        self._initialise()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        head_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        return_dict: bool | None = None,
        drop_path_mask: Tensor | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classifies images; with `labels` also the loss. Other arguments as for ViTModel.

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

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of the problem type that the config or the labels say, in float32 or wider: ()."""
        labels, problem = self._checked_labels(labels, logits)
        logits = logits.to(at_least_float32(logits.dtype))
        if problem == "single_label_classification":
            return cross_entropy(logits, labels.reshape(-1))
        targets = labels.to(logits.dtype).reshape(logits.shape)
        if problem == "regression":
            return squared_error(logits, targets)
        return binary_cross_entropy(logits, targets)
