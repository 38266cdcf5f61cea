"""Dialect "torchvision": torchvision.models.vit_*.

Source: torchvision 0.28.0, with the transforms of its weights. Its older files name the two layers of an MLP linear_1
and linear_2.
"""

from __future__ import annotations

from typing import Any

from conversion.dialect import Dialect, Images, Opened, Part, Row, Target
from conversion.folds import dead_head, zero_biases
from conversion.images import BICUBIC, BILINEAR, IMAGENET, in_colour
from vit_core.config import pair
from vit_core.limits import Limits

_LAYER = "encoder.layers.encoder_layer_{i}"
_MODULES = {
    "layernorm_before": ("ln_1",),
    "attention.output.dense": ("self_attention.out_proj",),
    "layernorm_after": ("ln_2",),
    "intermediate.dense": ("mlp.0", "mlp.linear_1"),
    "output.dense": ("mlp.3", "mlp.linear_2"),
}
_OUTER = {
    "embeddings.patch_embeddings.projection": "conv_proj",
    "layernorm": "encoder.ln",
    "pooler.dense": "heads.pre_logits",
    "classifier": "heads.head",
}

_LARGE = 384  # pixels; models from this size on were trained with bicubic images

_ROWS: dict[str, Row] = {
    "embeddings.cls_token": ("class_token",),
    "embeddings.position_embeddings": ("encoder.pos_embedding",),
    **{f"{module}.{tensor}": (f"{name}.{tensor}",) for module, name in _OUTER.items() for tensor in ("weight", "bias")},
    **{
        f"encoder.layer.{{i}}.{module}.{tensor}": tuple(f"{_LAYER}.{name}.{tensor}" for name in names)
        for module, names in _MODULES.items()
        for tensor in ("weight", "bias")
    },
    **{
        f"encoder.layer.{{i}}.attention.attention.{projection}.{tensor}": (
            Part(f"{_LAYER}.self_attention.in_proj_{tensor}", k),
        )
        for k, projection in enumerate(("query", "key", "value"))
        for tensor in ("weight", "bias")
    },
}


def _images(opened: Opened, config: Any, limits: Limits) -> Images:
    filter_ = BICUBIC if min(pair(config.image_size)) >= _LARGE else BILINEAR
    options = {**IMAGENET, "resample": filter_}
    return in_colour(options, "mean and deviation of torchvision's models", config.num_channels)


TORCHVISION = Dialect(
    name="torchvision",
    convention="torch",
    rows=_ROWS,
    folds=(zero_biases, dead_head),
    marks={"conv_proj.conv_bn_relu_0": "a stem of several convolutions"},
    numerics={"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    has_class_row=True,
    read_images=_images,
    target=Target(
        classes=("ViTModel", "ViTForImageClassification"),
        container="safetensors",
        suffix=".safetensors",
        lacks={"embeddings.mask_token": "mask token", "pooler.": "pooler"},
        needs_qkv_bias=True,
    ),
)
