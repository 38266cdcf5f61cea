"""Dialects "hf_dinov2" and "hf_deit": names of transformers for ViTs of another model type.

MSN (`vit_msn`) has the very names of a ViT. How their config.json is read is in `conversion.relatives`.

Source: transformers 4.57.6 and 5.24.0, names of saved files; both write the same ones.
"""

from __future__ import annotations

from typing import Any

from conversion.dialect import Dialect, Fields, Images, Opened, Row
from conversion.dialects.hf import ROWS
from conversion.folds import distillation, scales
from conversion.images import BICUBIC, IMAGENET, in_colour
from vit_core.errors import ImageError
from vit_core.files.json import read_json
from vit_core.limits import Limits

_PROCESSOR = "preprocessor_config.json"
# Of a layer: canonical name -> Dinov2's.
_DINOV2 = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_LAYER = "encoder.layer.{i}."


def _dinov2(canonical: str) -> str:
    module, _, tensor = canonical.removeprefix(_LAYER).rpartition(".")
    return f"{_LAYER}{_DINOV2.get(module, module)}.{tensor}" if canonical.startswith(_LAYER) else canonical


def _plain(canonical: str) -> bool:
    """Whether a ViT of any type may have a parameter."""
    return not canonical.startswith("decoder.decoder_") and canonical not in ("decoder.mask_token",)


def _dinov2_images(opened: Opened, config: Any, limits: Limits) -> Images:
    """Mean, deviation and filter of its processor, which crops; here the whole image is resized."""
    if path := opened.beside(_PROCESSOR):
        said = read_json(path, limit="config_bytes", error=ImageError, limits=limits, within=True)
        options: Fields = {name: said[name] for name in ("image_mean", "image_std", "resample") if name in said}
        return in_colour(
            {**IMAGENET, "resample": BICUBIC, **options}, f"{_PROCESSOR}, without its crop", config.num_channels
        )
    return in_colour({**IMAGENET, "resample": BICUBIC}, "mean and deviation of DINOv2", config.num_channels)


_SCALES: dict[str, Row] = {
    f"{_LAYER}attention.output.scale": (f"{_LAYER}layer_scale1.lambda1",),
    f"{_LAYER}output.scale": (f"{_LAYER}layer_scale2.lambda1",),
}
HF_DINOV2 = Dialect(
    name="hf_dinov2",
    convention="torch",
    rows={name: (_dinov2(name),) for name in ROWS if _plain(name)},
    encoder_prefix="dinov2.",
    folded=_SCALES,
    folds=(scales,),
    framework="pt",
    processors=("BitImageProcessor", "BitImageProcessorFast"),
    read_images=_dinov2_images,
)
HF_DEIT = Dialect(
    name="hf_deit",
    convention="torch",
    rows={
        name: (*ROWS[name], name.replace("classifier.", "cls_classifier."))
        if name.startswith("classifier.")
        else ROWS[name]
        for name in ROWS
        if _plain(name)
    },
    encoder_prefix="deit.",
    folded={
        "distillation.token": ("embeddings.distillation_token",),
        "distillation.weight": ("distillation_classifier.weight",),
        "distillation.bias": ("distillation_classifier.bias",),
    },
    folds=(distillation,),
    framework="pt",
)
DIALECTS = (HF_DINOV2, HF_DEIT)
