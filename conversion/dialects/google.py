"""Dialect "google": the .npz files of google-research, vision_transformer (with AugReg and SAM) and big_vision.

Older files count the modules of a block in one row, newer ones kind by kind; no name means two things.

Source: vision_transformer c6de1e53, big_vision 0127fb6b, and their evaluation scripts.
"""

from __future__ import annotations

from typing import Any

from conversion.dialect import Dialect, Images, Opened, Row, Target
from conversion.folds import dead_head, zero_biases
from conversion.images import BILINEAR, HALVES, in_colour
from vit_core.limits import Limits

_BLOCK = "Transformer/encoderblock_{i}"
_MODULES = {  # canonical -> as in older files, in newer ones
    "layernorm_before": ("LayerNorm_0", "LayerNorm_0"),
    **{
        f"attention.{at}": (f"MultiHeadDotProductAttention_1/{name}", f"MultiHeadDotProductAttention_0/{name}")
        for at, name in {
            "attention.query": "query",
            "attention.key": "key",
            "attention.value": "value",
            "output.dense": "out",
        }.items()
    },
    "layernorm_after": ("LayerNorm_2", "LayerNorm_1"),
    "intermediate.dense": ("MlpBlock_3/Dense_0", "MlpBlock_0/Dense_0"),
    "output.dense": ("MlpBlock_3/Dense_1", "MlpBlock_0/Dense_1"),
}


def _tensors(canonical: str, names: tuple[str, ...]) -> dict[str, Row]:
    weight = "scale" if "norm" in canonical.rpartition(".")[2] else "kernel"
    return {
        f"{canonical}.weight": tuple(dict.fromkeys(f"{name}/{weight}" for name in names)),
        f"{canonical}.bias": tuple(dict.fromkeys(f"{name}/bias" for name in names)),
    }


_ROWS: dict[str, Row] = {
    "embeddings.cls_token": ("cls",),
    "embeddings.position_embeddings": (
        "Transformer/posembed_input/pos_embedding",
        "pos_embedding",
        "Transformer/pos_embedding",
    ),
    **_tensors("embeddings.patch_embeddings.projection", ("embedding",)),
    **{
        row: cell
        for module, names in _MODULES.items()
        for row, cell in _tensors(f"encoder.layer.{{i}}.{module}", tuple(f"{_BLOCK}/{name}" for name in names)).items()
    },
    **_tensors("layernorm", ("Transformer/encoder_norm",)),
    **_tensors("pooler.dense", ("pre_logits",)),
    **_tensors("classifier", ("head",)),
}


def _images(opened: Opened, config: Any, limits: Limits) -> Images:
    return in_colour({**HALVES, "resample": BILINEAR}, "mean and deviation of Google's models", config.num_channels)


GOOGLE = Dialect(
    name="google",
    convention="heads",
    rows=_ROWS,
    stacked={"Transformer/encoderblock/": "Transformer/encoderblock_{i}/"},  # big_vision's scanned blocks
    folds=(zero_biases, dead_head),
    marks={
        **dict.fromkeys(("MAPHead_0", "probe"), "an attention pooling head"),
        **dict.fromkeys(("conv_root", "gn_root"), "a hybrid with a CNN"),
    },
    numerics={"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"},
    read_images=_images,
    target=Target(
        classes=("ViTModel", "ViTForImageClassification"),
        container="npz",
        suffix=".npz",
        lacks={"embeddings.mask_token": "mask token"},
        needs_qkv_bias=True,
    ),
)
