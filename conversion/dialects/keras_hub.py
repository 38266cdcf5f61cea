"""Dialect "keras_hub": files of keras-hub.

Keras 3 numbers the variables of a layer, and names layers by their classes; the first of several layers of a class has
no number. Where the meaning of a number depends on what else is there, there is a table for each case; the one that
explains more of a file is the right one.

Source: keras-hub 0.32.0 (presets, tasks) and 0.26.0 (image converters), keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversion.dialect import Dialect, Fields, Images, Opened, Row
from conversion.folds import dead_head, zero_biases
from conversion.images import BICUBIC, BILINEAR
from vit_core.errors import CheckpointError, ImageError
from vit_core.files.json import read_json
from vit_core.limits import Limits
from vit_core.plain_values import short


def variables(canonical: str, *names: str) -> dict[str, Row]:
    """The rows of a layer's weight and bias, which Keras calls vars/0 and vars/1."""
    return {
        f"{canonical}.{tensor}": tuple(f"{name}/vars/{k}" for name in names)
        for k, tensor in enumerate(("weight", "bias"))
    }


_PATCHES = "layers/vi_t_patching_and_embedding"
_BLOCKS = tuple(f"layers/vi_t_encoder/encoder_layers/vi_t_encoder_block{number}" for number in ("", "_{i}"))
_MODULES = {
    "layernorm_before": "layer_norm_1",
    "attention.attention.query": "mha/query_dense",
    "attention.attention.key": "mha/key_dense",
    "attention.attention.value": "mha/value_dense",
    "attention.output.dense": "mha/output_dense",
    "layernorm_after": "layer_norm_2",
    "intermediate.dense": "mlp/dense_1",
    "output.dense": "mlp/dense_2",
}
_ENCODER: dict[str, Row] = {
    "embeddings.cls_token": (f"{_PATCHES}/vars/0",),
    "embeddings.position_embeddings": (f"{_PATCHES}/position_embedding/vars/0",),
    **variables("embeddings.patch_embeddings.projection", f"{_PATCHES}/patch_embedding"),
    **{
        row: cell
        for module, name in _MODULES.items()
        for row, cell in variables(f"encoder.layer.{{i}}.{module}", *(f"{block}/{name}" for block in _BLOCKS)).items()
    },
    **variables("layernorm", "layers/vi_t_encoder/layer_norm"),
}
_ROWS: dict[str, Row] = {**_ENCODER, **variables("classifier", "layers/dense")}
_ROWS_WITH_POOLER: dict[str, Row] = {
    **_ENCODER,
    **variables("pooler.dense", "layers/dense"),
    **variables("classifier", "layers/dense_1"),
}
DROPPED = {
    "optimizer/": "the state of an optimiser",
    "optimizer_variables/": "the state of an optimiser",
    "preprocessor/": "settings of the preprocessor",
    "seed_generator": "the state of random numbers",
}
_CONVERTERS = ("image_converter.json", "preprocessor.json")  # the second holds the first
_FILTERS = {"nearest": 0, "bilinear": BILINEAR, "bicubic": BICUBIC, "lanczos3": 1}


def _config(where: str, data: Mapping[str, Any]) -> Fields:
    """What the config.json of a backbone says, or the task.json of a classifier."""
    inner = data.get("config") or {}
    if inner.get("pooling", "token") != "token" or inner.get("activation") not in (None, "linear"):
        what = "pooling" if inner.get("pooling", "token") != "token" else "activation"
        raise CheckpointError(
            f"{where}: {what} {inner[what]!r} of its head is not known here; expected the class token."
        )
    settings = inner.get("backbone", data).get("config") or {}
    fields = {"layer_norm_eps": settings.get("layer_norm_epsilon", 1e-6)}
    if "num_heads" in settings:
        fields["num_attention_heads"] = settings["num_heads"]
    if (shape := settings.get("image_shape")) and shape[0] != shape[1]:
        fields["image_size"] = list(shape[:2])
    return fields


def _images(opened: Opened, config: Any, limits: Limits) -> Images:
    for name in _CONVERTERS:
        if path := opened.beside(name):
            return _converted(path, config, limits)
    return None, ""


def _converted(path: Path, config: Any, limits: Limits) -> Images:
    """The arithmetic of a converter of keras-hub, pixel * scale + offset, as mean and deviation."""
    data = read_json(path, limit="config_bytes", error=ImageError, limits=limits, within=True).get("config")
    if isinstance(data, dict) and isinstance(inner := data.get("image_converter"), Mapping):
        data = inner.get("config")
    if not isinstance(data, dict):
        raise ImageError(f"{path}: expected the configuration of an image converter.")
    resample = _FILTERS.get(str(data.get("interpolation", "bilinear")))
    if resample is None:
        return None, f"{path.name}: no processor here resizes by {short(data['interpolation'])}"
    scales = _numbers(path, "scale", data.get("scale"), 1.0, config.num_channels)
    offsets = _numbers(path, "offset", data.get("offset"), 0.0, config.num_channels)
    if not all(scale > 0 for scale in scales):
        raise ImageError(f"{path}: scale: expected numbers above 0, got {str(data.get('scale'))[:80]}.")
    deviations = [1 / (255 * scale) for scale in scales]
    means = [-offset * deviation for offset, deviation in zip(offsets, deviations, strict=True)]
    options: Fields = {"image_mean": _short(means), "image_std": _short(deviations), "resample": resample}
    crops = data.get("crop_to_aspect_ratio", True) or data.get("pad_to_aspect_ratio", False)
    return options, path.name + (", which keeps the aspect ratio; here images are stretched" if crops else "")


def _numbers(path: Path, name: str, value: object, default: float, channels: int) -> list[float]:
    """One number for each channel."""
    values: list[Any] = value if isinstance(value, list) else [default if value is None else value] * channels
    if len(values) != channels or not all(isinstance(each, int | float) and abs(each) < 1e6 for each in values):
        raise ImageError(f"{path}: {name}: expected a number, or {channels} of them, got {str(value)[:80]}.")
    return [float(each) for each in values]


def _short(values: list[float]) -> list[float]:
    """Without the noise of a division: 0.5, not 0.5000000000000001."""
    return [round(value, 12) + 0.0 for value in values]


def _dialect(rows: Mapping[str, Row]) -> Dialect:
    return Dialect(
        name="keras_hub",
        convention="heads",
        rows=rows,
        encoder_prefix="layers/vi_t_backbone/",
        folds=(zero_biases, dead_head),
        dropped=DROPPED,
        marks={
            "dei_t_embeddings": "a distillation token",
            "_layer_checkpoint_dependencies": "a model of Keras 2",
        },
        numerics={"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
        has_class_row=True,
        config_key="class_name",
        read_config=_config,
        read_images=_images,
    )


DIALECTS = (_dialect(_ROWS), _dialect(_ROWS_WITH_POOLER))
