"""Every dialect that is read: names, layout, and what its tensors cannot say but all its programs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from conversion.dialect import Row
from conversion.dialects import google, hf, timm, torchvision
from conversion.dialects import keras_hub as keras
from vit_core.parameters import BASE_PREFIX

_NOTHING: Mapping[str, Any] = {}


class Dialect(NamedTuple):
    """How one family of programs names and lays out the parameters.

    Attributes:
        name: what it is called here.
        rows: template of a canonical name -> every template the dialect has for it, the one it writes first.
        convention: its layout, see `conversion.layouts`.
        prefix: what stands in front of every name in a file at hand; of a dialect as such, nothing.
        inner: what may stand in front of the encoder's names, but not of a head's.
        folded: as `rows`, for tensors that `conversion.folds` works into canonical ones.
        dropped: start of a name -> why the tensor means nothing to a model.
        numerics: fields of the configuration that its programs share; None where a config.json says all.
        input_range: (mean, standard deviation) that its images are normalised with; None where that varies.
    """

    name: str
    rows: Mapping[str, Row]
    convention: str
    inner: str = ""
    folded: Mapping[str, Row] = _NOTHING
    dropped: Mapping[str, str] = _NOTHING
    numerics: Mapping[str, Any] | None = None
    prefix: str = ""


_EXACT: Mapping[str, Any] = {"layer_norm_eps": 1e-6, "hidden_act": "gelu"}
_TANH: Mapping[str, Any] = {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"}
_HUB_BACKBONE = "layers/vi_t_backbone/"

# The one that explains most names of a file is the file's; of equals the first.
DIALECTS = (
    Dialect("hf", hf.ROWS, "torch", BASE_PREFIX),
    Dialect("hf_tf", hf.TF_ROWS, "keras", "vit/"),
    Dialect("hf_flax", hf.FLAX_ROWS, "flax", BASE_PREFIX),
    Dialect("hf_flax", hf.OUR_FLAX_ROWS, "flax", BASE_PREFIX),
    Dialect("timm", timm.ROWS, "torch", "", timm.FOLDED, timm.DROPPED, _EXACT),
    Dialect("mae", timm.MAE_ROWS, "torch", "", {}, {}, _EXACT),
    Dialect("google", google.ROWS, "heads", "", {}, {}, _TANH),
    Dialect("torchvision", torchvision.ROWS, "torch", "", {}, {}, _EXACT),
    Dialect("keras_hub", keras.HUB_ROWS, "heads", _HUB_BACKBONE, {}, keras.HUB_DROPPED, _EXACT),
    Dialect("keras_hub", keras.HUB_ROWS_WITH_POOLER, "heads", _HUB_BACKBONE, {}, keras.HUB_DROPPED, _EXACT),
    Dialect("vitriad_tf", keras.TF_ROWS, "keras", "vit/", {}, keras.TF_DROPPED),
    Dialect("vitriad_tf", keras.TF_ROWS_WITH_MASK_TOKEN, "keras", "vit/", {}, keras.TF_DROPPED),
)
