"""Dialects "hf_dinov2", "hf_deit" and "hf_ijepa": names of transformers for ViTs of another model type.

MSN (`vit_msn`) has the very names of a ViT. How their config.json is read is in `vit_core.config.relatives`.

Source: transformers 4.57.6 and 5.24.0, names of saved files; both write the same ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conversion.dialect import Dialect, Fields, Images, Opened, Row
from conversion.dialects.hf import ROWS
from conversion.folds import distillation
from conversion.images import BICUBIC, IMAGENET, in_colour
from vit_core.errors import ImageError
from vit_core.files.json import read_json
from vit_core.limits import Limits

_PROCESSOR = "preprocessor_config.json"
# Of a layer: canonical name -> Dinov2's, with an MLP and with a gated one.
_DINOV2 = {
    "layernorm_before": ("norm1",),
    "layernorm_after": ("norm2",),
    "intermediate.dense": ("mlp.fc1", "mlp.weights_in"),
    "output.dense": ("mlp.fc2", "mlp.weights_out"),
}
_LAYER = "encoder.layer.{i}."


def _dinov2(canonical: str) -> Row:
    module, _, tensor = canonical.removeprefix(_LAYER).rpartition(".")
    if not canonical.startswith(_LAYER):
        return (canonical,)
    return tuple(f"{_LAYER}{name}.{tensor}" for name in _DINOV2.get(module, (module,)))


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


HF_DINOV2 = Dialect(
    name="hf_dinov2",
    convention="torch",
    rows={name: _dinov2(name) for name in ROWS if _plain(name)},
    encoder_prefix="dinov2.",
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
HF_DINOV2_WITH_REGISTERS = replace(HF_DINOV2, encoder_prefix="dinov2_with_registers.")
HF_IJEPA = Dialect(
    name="hf_ijepa",
    convention="torch",
    rows={name: ROWS[name] for name in ROWS if _plain(name)},
    encoder_prefix="ijepa.",
    framework="pt",
)
DIALECTS = (HF_DINOV2, HF_DINOV2_WITH_REGISTERS, HF_DEIT, HF_IJEPA)
