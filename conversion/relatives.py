"""Model types of transformers that no ViT here computes, and why.

Those that are ViTs by another name are in `vit_core.config.relatives`; what their names have that a ViT's have not, in
`conversion.dialects.hf_relatives`.

Source: transformers 4.57.6 and 5.24.0, configurations and models of these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_core.config.relatives import READ
from vit_core.errors import CheckpointError

_CNN = "a CNN"
_STAGES = "stages of different widths"
_WINDOWS = "attention within windows, in stages of different widths"
_RELATIVE = "relative positions, LayerScale and the mean of patches"
_TWO = "a model of images beside one of text"
_VIDEO = "it takes videos"
_REGISTERS = "register tokens beside the class token"
REFUSED: dict[str, str] = {
    "audio-spectrogram-transformer": "it takes spectrograms, and has a distillation token",
    **dict.fromkeys(("beit", "data2vec-vision"), _RELATIVE),
    **dict.fromkeys(("clip", "chinese_clip", "metaclip_2", "siglip", "siglip2"), _TWO),
    "clip_vision_model": "a norm before the first layer, and another GELU",
    **dict.fromkeys(("siglip_vision_model", "siglip2_vision_model"), "no class token: attention pools the patches"),
    **dict.fromkeys(("bit", "convnext", "convnextv2", "dinov3_convnext", "efficientnet", "regnet", "resnet"), _CNN),
    "dinov3_vit": f"rotary positions and {_REGISTERS}",
    "dpt": "a model of depth and segmentation around a ViT",
    **dict.fromkeys(("cvt", "focalnet", "levit", "mobilevit", "mobilevitv2", "poolformer", "pvt", "pvt_v2"), _STAGES),
    **dict.fromkeys(("segformer", "hiera"), _STAGES),
    **dict.fromkeys(("swin", "swinv2", "donut-swin", "swin2sr"), _WINDOWS),
    **dict.fromkeys(("sam", "sam_vision_model", "vitdet"), "attention within windows, and relative positions"),
    "timm_wrapper": "a model of timm inside: save that with timm (save_for_hf), whose files are read here",
    **dict.fromkeys(("timesformer", "videomae", "vivit", "vjepa2"), _VIDEO),
    **dict.fromkeys(("vit_hybrid", "vit-hybrid"), "a CNN cuts the image into patches"),
    "vitpose": "a model of poses around a ViT",
    "yolos": "detection tokens beside the patches",
}


def refuse_type(where: str, data: Mapping[str, Any] | None) -> None:
    """Raises CheckpointError if a config.json is of a type that no ViT or ViTMAE computes, with the reason."""
    found = (data or {}).get("model_type")
    if isinstance(found, str) and (reason := REFUSED.get(found)):
        raise CheckpointError(
            f"{where}: config.json: model_type {found!r}: {reason}; no ViT or ViTMAE can hold it exactly.\n"
            f"Of transformers, these types are read: vit, vit_mae, {', '.join(READ)}."
        )
