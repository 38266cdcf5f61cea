"""Published model sizes, as data.

Sources: ViT-B/L/H: Dosovitskiy et al., An Image is Worth 16x16 Words (2020), table 1. ViT-Ti: Touvron et al., DeiT
(2020), table 1. ViT-S: Steiner et al., How to train your ViT? (2021), table 2. MAE: He et al., Masked Autoencoders Are
Scalable Vision Learners (2021), section 4 and appendix A.1 (decoder: 8 blocks of width 512, 16 heads).
"""

from __future__ import annotations

from typing import Any

# size -> hidden_size, num_hidden_layers, num_attention_heads, intermediate_size
_SIZES = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
}

# size -> the (patch_size, image_size) pairs that were published
_VIT = {
    "tiny": [(16, 224), (16, 384)],
    "small": [(16, 224), (16, 384), (32, 224), (32, 384)],
    "base": [(16, 224), (16, 384), (32, 224), (32, 384), (8, 224)],
    "large": [(16, 224), (16, 384), (32, 384)],
    "huge": [(14, 224)],
}
_MAE_PATCH = {"base": 16, "large": 16, "huge": 14}


def _encoder(size: str, patch_size: int, image_size: int) -> dict[str, Any]:
    hidden_size, layers, heads, intermediate_size = _SIZES[size]
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate_size,
        "patch_size": patch_size,
        "image_size": image_size,
    }


# model_type -> preset name -> config fields that differ from the class's defaults
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "vit": {
        f"vit-{size}-patch{patch}-{image}": {**_encoder(size, patch, image), "encoder_stride": patch}
        for size, grids in _VIT.items()
        for patch, image in grids
    },
    "vit_mae": {f"vit-mae-{size}": _encoder(size, patch, 224) for size, patch in _MAE_PATCH.items()},
}
