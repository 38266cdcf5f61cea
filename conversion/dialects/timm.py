"""Dialects "timm" and "mae": names of timm, and of the projects that grew out of it.

DeiT, DINO, DINOv2 and the encoders of MAE have timm's names; what they add is folded or left out. A file with a decoder
of MAE is a dialect of its own: the mask token, which is the encoder's in DINOv2, is the decoder's there.

Source: timm 1.0.31 and tags back to 0.4.5; facebookresearch's mae efb2a806, dino 7c446df5, deit 7e160fe4,
dinov2 b8931f7b.
"""

from __future__ import annotations

from conversion.dialect import Part, Row

_MODULES = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_QKV = ("query", "key", "value")


def _layers(canonical: str, blocks: tuple[str, ...]) -> dict[str, Row]:
    rows: dict[str, Row] = {
        f"{canonical}.{{i}}.{module}.{tensor}": tuple(f"{block}.{name}.{tensor}" for block in blocks)
        for module, name in _MODULES.items()
        for tensor in ("weight", "bias")
    }
    for k, projection in enumerate(_QKV):
        for tensor in ("weight", "bias"):
            rows[f"{canonical}.{{i}}.attention.attention.{projection}.{tensor}"] = tuple(
                Part(f"{block}.attn.qkv.{tensor}", k) for block in blocks
            )
    return rows


# DINOv2's training code has blocks.CHUNK.NUMBER.
_BLOCKS = ("blocks.{i}", "blocks.{c}.{i}")
_ENCODER: dict[str, Row] = {
    "embeddings.cls_token": ("cls_token",),
    "embeddings.position_embeddings": ("pos_embed",),
    "embeddings.patch_embeddings.projection.weight": ("patch_embed.proj.weight",),
    "embeddings.patch_embeddings.projection.bias": ("patch_embed.proj.bias",),
    **_layers("encoder.layer", _BLOCKS),
    "layernorm.weight": ("norm.weight",),
    "layernorm.bias": ("norm.bias",),
}
ROWS: dict[str, Row] = {
    **_ENCODER,
    "embeddings.mask_token": ("mask_token",),
    "pooler.dense.weight": ("pre_logits.fc.weight",),
    "pooler.dense.bias": ("pre_logits.fc.bias",),
    "classifier.weight": ("head.weight", "head.1.weight"),
    "classifier.bias": ("head.bias", "head.1.bias"),
}
MAE_ROWS: dict[str, Row] = {
    **_ENCODER,
    "decoder.mask_token": ("mask_token",),
    "decoder.decoder_pos_embed": ("decoder_pos_embed",),
    **{
        f"decoder.{module}.{tensor}": (f"{module}.{tensor}",)
        for module in ("decoder_embed", "decoder_norm", "decoder_pred")
        for tensor in ("weight", "bias")
    },
    **_layers("decoder.decoder_layers", ("decoder_blocks.{i}",)),
}

# What is folded into canonical tensors; `conversion.folds` says how.
FOLDED: dict[str, Row] = {
    **{
        f"encoder.layer.{{i}}.{branch}.scale": tuple(f"{block}.{name}" for block in _BLOCKS for name in names)
        for branch, names in {
            "attention.output": ("ls1.gamma", "gamma_1"),
            "output": ("ls2.gamma", "gamma_2"),
        }.items()
    },
    **{
        f"encoder.layer.{{i}}.attention.attention.{projection}.bias": (f"blocks.{{i}}.attn.{name}",)
        for projection, name in (("query", "q_bias"), ("value", "v_bias"))
    },
    "classifier.norm.mean": ("head.0.running_mean",),
    "classifier.norm.variance": ("head.0.running_var",),
    "distillation.token": ("dist_token",),
    "distillation.weight": ("head_dist.weight",),
    "distillation.bias": ("head_dist.bias",),
}

# Start of a name -> why the tensor means nothing to a ViT.
DROPPED = {
    "head.0.num_batches_tracked": "a counter of training",
    **dict.fromkeys(("head.mlp.", "head.last_layer.", "dino_head.", "ibot_head."), "a projection head of training"),
}
