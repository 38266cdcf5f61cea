"""Other model types of transformers: which of them are ViTs by another name, and why the others are not.

Those that are have the same steps: their configuration becomes one of model_type "vit" here, and what their names have
that a ViT's have not is in `conversion.dialects.hf_relatives`.

Source: transformers 4.57.6 and 5.24.0, configurations and models of these types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vit_core.errors import CheckpointError

Fields = dict[str, Any]

_EPS = 1e-6  # of Dinov2 and MSN, where transformers' ViT has 1e-12
# What means nothing to a model: the names of its stages as a backbone, and the class, which is another one here.
_BACKBONE = ("out_features", "out_indices", "stage_names", "reshape_hidden_states")


def _of_dinov2(data: Fields) -> Fields:
    """Its MLP is as many times wider as it says; LayerScale is folded into the weights, whatever it began with."""
    ratio, width = data.pop("mlp_ratio", 4), data.get("hidden_size", 768)
    data.pop("layerscale_value", None)
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (ratio, width))
    said = {"intermediate_size": int(width * ratio)} if is_number else {"mlp_ratio": ratio}
    return {"layer_norm_eps": _EPS, **said, **data}


READ: dict[str, Callable[[Fields], Fields]] = {
    "dinov2": _of_dinov2,
    "deit": lambda data: data,
    "vit_msn": lambda data: {"layer_norm_eps": _EPS, **data},
}

_CNN = "a CNN"
_STAGES = "stages of different widths"
_WINDOWS = "attention within windows, in stages of different widths"
_RELATIVE = "relative positions, LayerScale and the mean of patches"
_TWO = "a model of images beside one of text"
_NO_CLASS_TOKEN = "no class token: the mean of patches is read"
_VIDEO = "it takes videos"
_REGISTERS = "register tokens beside the class token"
REFUSED: dict[str, str] = {
    "audio-spectrogram-transformer": "it takes spectrograms, and has a distillation token",
    **dict.fromkeys(("beit", "data2vec-vision"), _RELATIVE),
    **dict.fromkeys(("clip", "chinese_clip", "metaclip_2", "siglip", "siglip2"), _TWO),
    "clip_vision_model": "a norm before the first layer, and another GELU",
    **dict.fromkeys(("siglip_vision_model", "siglip2_vision_model"), "no class token: attention pools the patches"),
    **dict.fromkeys(("bit", "convnext", "convnextv2", "dinov3_convnext", "efficientnet", "regnet", "resnet"), _CNN),
    "dinov2_with_registers": _REGISTERS,
    "dinov3_vit": f"rotary positions and {_REGISTERS}",
    "dpt": "a model of depth and segmentation around a ViT",
    "ijepa": _NO_CLASS_TOKEN,
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


def as_vit(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config.json, as those of model_type "vit" where it is of one of the types that are read so."""
    found = data.get("model_type")
    if not isinstance(found, str) or found not in READ:
        return dict(data)
    plain = {name: value for name, value in data.items() if name not in ("architectures", *_BACKBONE)}
    return {**READ[found](plain), "model_type": "vit"}


def refuse_type(where: str, data: Mapping[str, Any] | None) -> None:
    """Raises CheckpointError if a config.json is of a type that no ViT or ViTMAE computes, with the reason."""
    found = (data or {}).get("model_type")
    if isinstance(found, str) and (reason := REFUSED.get(found)):
        raise CheckpointError(
            f"{where}: config.json: model_type {found!r}: {reason}; no ViT or ViTMAE can hold it exactly.\n"
            f"Of transformers, these types are read: vit, vit_mae, {', '.join(READ)}."
        )
