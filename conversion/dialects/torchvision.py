"""Dialect "torchvision": torchvision.models.vit_*.

Source: torchvision 0.28.0; its older files name the two layers of an MLP linear_1 and linear_2.
"""

from __future__ import annotations

from conversion.dialect import Part, Row

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

ROWS: dict[str, Row] = {
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
