"""Keys of other programs and later libraries that ask for something no model here does.

A configuration with `qk_norm=True` or `pool="map"` describes another model than the one that would be built from it.
Each such key has a row here. Values that change nothing (`qk_norm=False`) are accepted and kept; any other is an error
that says what to do. When a model learns what a key asks for, delete its row here and its case in the tests. Options
that only a ViT has are fields of its configuration; for a ViTMAE they are such keys.

Keys that change nothing in any program (those of transformers' base configuration, of decoders and of backbones) have
no row, nor has `use_mask_token`, an option of a model class. They are kept as they are.

Source: transformers 4.57.6 (configurations of its ViTs), timm 1.0.31 (VisionTransformer, Eva), torchvision 0.28,
big_vision, vision_transformer, mmpretrain 1.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vit_core.plain_values import plain, short


@dataclass(frozen=True)
class Foreign:
    """A key that asks for something no model here does.

    Attributes:
        neutral: values that change nothing; None is always one.
        advice: why other values are refused, or what to do instead.
    """

    neutral: tuple[Any, ...]
    advice: str

    def problem(self, config: Any, value: Any) -> str | None:
        """What is wrong with a value; None where it changes nothing."""
        del config
        if value is None or _is_one_of(value, self.neutral):
            return None
        known = " or ".join(map(repr, self.neutral or (None,)))
        return f"expected {known}, or none at all, got {short(value)}: {self.advice}"


@dataclass(frozen=True)
class Spelling:
    """Another program's name for one of our fields: its value has to agree with that field.

    Attributes:
        advice: which field to write.
        ours: the value that agrees.
    """

    advice: str
    ours: Callable[[Any], Any]

    def problem(self, config: Any, value: Any) -> str | None:
        """What is wrong with a value; None where it agrees."""
        ours = self.ours(config)
        if value is None or _agree(value, ours):
            return None
        return f"expected {short(ours)} as the fields say, got {short(value)}: {self.advice}"


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    value = plain(value)
    if isinstance(value, list | tuple | dict):
        return not value and () in neutral
    return isinstance(value, bool | int | float | str) and value in neutral


def _agree(value: Any, ours: Any) -> bool:
    value = plain(value)
    if isinstance(value, list | tuple):
        sides = ours if isinstance(ours, tuple) else (ours, ours)
        return len(value) == len(sides) and all(map(_agree, value, sides))
    if isinstance(value, bool | int | float) and isinstance(ours, bool | int | float):
        return isinstance(value, bool) == isinstance(ours, bool) and math.isclose(value, ours, rel_tol=1e-4)
    return isinstance(value, str) and bool(value == ours)


def _field(name: str) -> Spelling:
    return Spelling(f"write {name}=", lambda config: getattr(config, name))


_CLASS_TOKEN = ("token", "cls", "cls_token", "tok", "first")
_POOLING = "write use_mean_pooling= for the mean of the patches, no model here pools in another way"
_EXTRA_TOKENS = "no model here has tokens beside the class token, registers and the patches"
_LAYER_SCALE = "write layerscale_value="
_GATED = "write use_swiglu_ffn= for the gated MLP that is here"
_BIASES = "only query, key and value can be without biases (qkv_bias=)"
_STAGES = "the layers of models here are all alike"
_QK_NORM = "no model here normalises queries and keys"
_NORMS = "models here normalise before each part and once after the last layer (norm_before_pooling= says where)"
_POSITIONS = "models here add learned absolute positions to the patches"
_DEPTH = "no model here drops whole layers at random in training (drop_path_rate= is for branches of them)"
_DROPOUT = "write hidden_dropout_prob= or attention_probs_dropout_prob= for the dropouts that are here"
_STEM = "models here cut patches with one convolution"
_WINDOWS = "attention here is over the whole image"
_VIDEO = "models here take images"

# Fields of a ViTConfig whose other values make it another model than transformers' ViT -> the value that does not.
NEUTRAL: dict[str, Any] = {
    "use_class_token": True,
    "num_register_tokens": 0,
    "use_mean_pooling": False,
    "norm_before_pooling": False,
    "pool_class_token": False,
    "layerscale_value": None,
    "use_swiglu_ffn": False,
}

FOREIGN: dict[str, Foreign | Spelling] = {
    # pooling, and the tokens beside the patches
    "pool": Foreign(_CLASS_TOKEN, _POOLING),
    "pooling": Foreign(_CLASS_TOKEN, _POOLING),
    "pool_type": Foreign(_CLASS_TOKEN, _POOLING),
    "pooling_type": Foreign(_CLASS_TOKEN, _POOLING),
    "global_pool": Foreign((*_CLASS_TOKEN, ""), _POOLING),
    "classifier": Foreign(_CLASS_TOKEN, _POOLING),
    "class_token": _field("use_class_token"),
    "with_cls_token": _field("use_class_token"),
    "use_cls_token": _field("use_class_token"),
    "reg_tokens": _field("num_register_tokens"),
    "num_reg_tokens": _field("num_register_tokens"),
    "num_detection_tokens": Foreign((0,), _EXTRA_TOKENS),
    "distilled": Foreign((False,), "no model here has a distillation token"),
    "representation_size": Foreign((), "no layer stands before the classifier here"),
    # LayerScale
    "layer_scale_init_value": Foreign((0,), _LAYER_SCALE),
    "init_values": Foreign((0,), _LAYER_SCALE),
    "use_layer_scale": Foreign((False,), _LAYER_SCALE),
    "use_layerscale": Foreign((False,), _LAYER_SCALE),
    # the MLP
    "use_gated_mlp": Foreign((False,), _GATED),
    "swiglu_mlp": Foreign((False,), _GATED),
    "ffn_layer": Foreign(("mlp",), _GATED),
    "mlp_layer": Foreign(("mlp", "Mlp"), _GATED),
    "scale_mlp": Foreign((False,), _NORMS),
    "scale_mlp_norm": Foreign((False,), _NORMS),
    "num_experts": Foreign((1,), "no model here has experts"),
    # stages
    "depths": Foreign((), _STAGES),
    "hidden_sizes": Foreign((), f"{_STAGES}, write hidden_size="),
    "patch_sizes": Foreign((), f"{_STAGES}, write patch_size="),
    "mlp_ratios": Foreign((), f"{_STAGES}, write intermediate_size="),
    # attention
    "qk_norm": Foreign((False,), _QK_NORM),
    "use_qk_norm": Foreign((False,), _QK_NORM),
    "qk_scale": Foreign((), "scores here are divided by the root of the size of a head"),
    "scale_attn_norm": Foreign((False,), _NORMS),
    "scale_attn_inner": Foreign((False,), _NORMS),
    "window_size": Foreign((0,), _WINDOWS),
    "window_block_indices": Foreign(((),), _WINDOWS),
    "query_bias": _field("qkv_bias"),
    "key_bias": _field("qkv_bias"),
    "value_bias": _field("qkv_bias"),
    "proj_bias": Foreign((True,), _BIASES),
    "mlp_bias": Foreign((True,), _BIASES),
    "ffn_bias": Foreign((True,), _BIASES),
    "num_key_value_heads": _field("num_attention_heads"),
    "head_dim": Spelling(
        "it is hidden_size / num_attention_heads here", lambda config: config.hidden_size / config.num_attention_heads
    ),
    # norms
    "fc_norm": Foreign((False,), _NORMS),
    "use_fc_norm": Foreign((False,), _NORMS),
    "pre_norm": Foreign((False,), f"{_NORMS}, not before the first"),
    "final_norm": Foreign((True,), _NORMS),
    "post_norm": Foreign((False,), _NORMS),
    "use_post_norm": Foreign((False,), _NORMS),
    "norm_layer": Foreign(("layernorm", "LayerNorm"), "norms here are LayerNorms of layer_norm_eps="),
    "embed_norm_layer": Foreign((), _NORMS),
    "apply_layernorm": Foreign((True,), _NORMS),
    # positions
    "pos_embed": Foreign(("learn", "learned", "learnable"), _POSITIONS),
    "posemb": Foreign(("learn", "learned", "learnable"), _POSITIONS),
    "position_embedding_type": Foreign(("absolute",), _POSITIONS),
    "no_embed_class": Foreign((False,), "the class token has a position here too"),
    "use_absolute_position_embeddings": Foreign((True,), _POSITIONS),
    "use_absolute_embeddings": Foreign((True,), _POSITIONS),
    "use_abs_pos": Foreign((True,), _POSITIONS),
    "use_abs_pos_emb": Foreign((True,), _POSITIONS),
    "use_relative_position_bias": Foreign((False,), _POSITIONS),
    "use_shared_relative_position_bias": Foreign((False,), _POSITIONS),
    "use_relative_position_embeddings": Foreign((False,), _POSITIONS),
    "use_rel_pos": Foreign((False,), _POSITIONS),
    "use_rel_pos_bias": Foreign((False,), _POSITIONS),
    "use_shared_rel_pos_bias": Foreign((False,), _POSITIONS),
    "use_mid_position_embeddings": Foreign((False,), _POSITIONS),
    "use_rope": Foreign((False,), _POSITIONS),
    "use_rot_pos_emb": Foreign((False,), _POSITIONS),
    "rope_theta": Foreign((), _POSITIONS),
    "rope_scaling": Foreign(((),), _POSITIONS),
    "rope_parameters": Foreign(((),), _POSITIONS),
    # training
    "drop_path": _field("drop_path_rate"),
    "stochastic_depth_prob": _field("drop_path_rate"),
    "layerdrop": Foreign((0,), _DEPTH),
    "drop_rate": Foreign((0,), _DROPOUT),
    "pos_drop_rate": Foreign((0,), _DROPOUT),
    "patch_drop_rate": Foreign((0,), "no model here drops patches at random in training"),
    "proj_drop_rate": Foreign((0,), _DROPOUT),
    "attn_drop_rate": Foreign((0,), _DROPOUT),
    "classifier_dropout": Foreign((0,), _DROPOUT),
    "classifier_dropout_prob": Foreign((0,), _DROPOUT),
    # what cuts the image into patches
    "backbone": Foreign((), _STEM),
    "backbone_config": Foreign((), _STEM),
    "use_timm_backbone": Foreign((False,), _STEM),
    "use_pretrained_backbone": Foreign((False,), _STEM),
    "is_hybrid": Foreign((False,), _STEM),
    "use_conv_stem": Foreign((False,), _STEM),
    "conv_stem_configs": Foreign(((),), _STEM),
    "embed_layer": Foreign((), _STEM),
    "num_frames": Foreign((1,), _VIDEO),
    "tubelet_size": Foreign((1,), _VIDEO),
    # what a field here says under another name
    "embed_dim": _field("hidden_size"),
    "embed_dims": _field("hidden_size"),
    "hidden_dim": _field("hidden_size"),
    "depth": _field("num_hidden_layers"),
    "num_layers": _field("num_hidden_layers"),
    "num_heads": _field("num_attention_heads"),
    "mlp_dim": _field("intermediate_size"),
    "mlp_ratio": Spelling(
        "write intermediate_size=, which is hidden_size times it",
        lambda config: config.intermediate_size / config.hidden_size,
    ),
    "act_layer": _field("hidden_act"),
    "layer_norm_epsilon": _field("layer_norm_eps"),
    "img_size": _field("image_size"),
    "in_chans": _field("num_channels"),
    "num_classes": _field("num_labels"),
}

# The rows for a configuration that does not have those fields.
ROWS: dict[str, Foreign | Spelling] = {
    **FOREIGN,
    **{name: Foreign((off,), "only a ViT has this option, a ViTMAE has not") for name, off in NEUTRAL.items()},
}
