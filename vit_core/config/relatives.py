"""Model types of transformers that are ViTs by another name: their configurations, read as those of a ViT.

Source: transformers 4.57.6 and 5.24.0, configurations and models of these types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Fields = dict[str, Any]

OWN_TYPE = "vitriad_vit"  # of a ViT with options that transformers' ViT lacks: one that its Auto classes refuse

KEPT_SCALES = "keeps_layerscale"  # key of a Dinov2 that was saved here with LayerScale as parameters

_EPS = 1e-6  # of Dinov2 and MSN, where transformers' ViT has 1e-12
_MULTIPLE = 8  # the width of a gated MLP of Dinov2 is one
# What their classifiers read: of Dinov2 the class token and the mean of the normed patches, in a row.
OF_DINOV2_HEADS: Mapping[str, bool] = MappingProxyType(
    {"use_mean_pooling": True, "norm_before_pooling": True, "pool_class_token": True}
)
OF_IJEPA: Mapping[str, bool] = MappingProxyType(
    {"use_class_token": False, "use_mean_pooling": True, "norm_before_pooling": True}
)
# What means nothing to a model: the names of its stages as a backbone, and the class, which is another one here.
_UNREAD = ("architectures", "out_features", "out_indices", "stage_names", "reshape_hidden_states")


def gated_width(hidden_size: int, mlp_ratio: float) -> int:
    """`intermediate_size` of Dinov2's gated MLP, gates and values together: two thirds of the plain one, rounded up."""
    return 2 * ((int(int(hidden_size * mlp_ratio) * 2 / 3) + _MULTIPLE - 1) // _MULTIPLE * _MULTIPLE)


def _of_dinov2(data: Fields) -> Fields:
    """Its MLP is as many times wider as it says; LayerScale is folded into the weights, but where it is to be kept."""
    if _is_classifier(data):
        data = {**OF_DINOV2_HEADS, **data}
    ratio, width = data.pop("mlp_ratio", 4), data.get("hidden_size", 768)
    if not data.pop(KEPT_SCALES, False):
        data.pop("layerscale_value", None)
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (ratio, width)):
        return {"layer_norm_eps": _EPS, "mlp_ratio": ratio, **data}
    mlp = gated_width(width, ratio) if data.get("use_swiglu_ffn") else int(width * ratio)
    return {"layer_norm_eps": _EPS, "intermediate_size": mlp, **data}


def _is_classifier(data: Fields) -> bool:
    """Whether a config.json is of a model that classifies images, by the class of transformers that it names."""
    named = data.get("architectures")
    return isinstance(named, list) and any(str(name).endswith("ForImageClassification") for name in named)


READ: dict[str, Callable[[Fields], Fields]] = {
    "dinov2": _of_dinov2,
    "dinov2_with_registers": lambda data: {"num_register_tokens": 4, **_of_dinov2(data)},
    "deit": lambda data: data,
    "vit_msn": lambda data: {"layer_norm_eps": _EPS, **data},
    "ijepa": lambda data: {**OF_IJEPA, **data},
}


def is_relative(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is of another type of transformers that is read as a ViT."""
    found = data.get("model_type")
    return isinstance(found, str) and found in READ


def as_vit(data: Mapping[str, Any]) -> Fields:
    """The keys of a config.json, as those of model_type "vit" where it is of one of the types that are read so."""
    if data.get("model_type") == OWN_TYPE:
        return {**data, "model_type": "vit"}
    if not is_relative(data):
        return dict(data)
    read = READ[data["model_type"]]({**data})
    return {**{name: value for name, value in read.items() if name not in _UNREAD}, "model_type": "vit"}
