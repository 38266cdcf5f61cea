"""Dialect "mae": files of MAE with a decoder, in names of timm.

The mask token, which is the encoder's in DINOv2, is the decoder's here. Encoders alone are files of the dialect "timm".

Source: facebookresearch's mae efb2a806, with its evaluation scripts and the files it links to.
"""

from __future__ import annotations

from typing import Any

from conversion.dialect import Dialect, Images, Opened, Row, Target
from conversion.dialects.timm import ENCODER, layers
from conversion.folds import dead_head, zero_biases
from conversion.images import BICUBIC, IMAGENET, in_colour
from vit_core.limits import Limits

_ROWS: dict[str, Row] = {
    **ENCODER,
    "decoder.mask_token": ("mask_token",),
    "decoder.decoder_pos_embed": ("decoder_pos_embed",),
    **{
        f"decoder.{module}.{tensor}": (f"{module}.{tensor}",)
        for module in ("decoder_embed", "decoder_norm", "decoder_pred")
        for tensor in ("weight", "bias")
    },
    **layers("decoder.decoder_layers", ("decoder_blocks.{i}",)),
}


def _images(opened: Opened, config: Any, limits: Limits) -> Images:
    return in_colour({**IMAGENET, "resample": BICUBIC}, "mean and deviation of MAE", config.num_channels)


MAE = Dialect(
    name="mae",
    convention="torch",
    rows=_ROWS,
    folds=(zero_biases, dead_head),
    numerics={"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    has_class_row=True,
    published={  # whether pixels are normalised, which no tensor tells
        ("mae_visualize_vit_", ".pth"): {"norm_pix_loss": False},
        ("mae_pretrain_vit_", "_full.pth"): {"norm_pix_loss": True},
    },
    read_images=_images,
    target=Target(
        classes=("ViTMAEModel", "ViTMAEForPreTraining"),
        container="safetensors",
        suffix=".safetensors",
        needs_qkv_bias=True,
    ),
)
