"""Every dialect that is read: names, layout, and what its tensors cannot say but all its programs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from conversion.tables import google, hf, keras, timm, torchvision
from conversion.tables.rows import Row

_NOTHING: Mapping[str, Any] = {}


class Dialect(NamedTuple):
    """How one family of programs names and lays out the parameters.

    Attributes:
        name: what it is called here.
        rows: template of a canonical name -> every template the dialect has for it, the one it writes first.
        convention: its layout, see `conversion.layouts`.
        wrappers: what training tools put in front of every name; taken off only where a name means nothing with it.
        folded: as `rows`, for tensors that `conversion.folds` works into canonical ones.
        dropped: start of a name -> why the tensor means nothing to a model.
        numerics: fields of the configuration that its programs share; None where a config.json says all.
        input_range: (mean, standard deviation) that its images are normalised with; None where that varies.
    """

    name: str
    rows: Mapping[str, Row]
    convention: str
    wrappers: tuple[str, ...] = ()
    folded: Mapping[str, Row] = _NOTHING
    dropped: Mapping[str, str] = _NOTHING
    numerics: Mapping[str, Any] | None = None


_TORCH_WRAPPERS = ("module.", "_orig_mod.", "model.")
_BACKBONE_WRAPPERS = (*_TORCH_WRAPPERS, "backbone.", "net.")
_EXACT: Mapping[str, Any] = {"layer_norm_eps": 1e-6, "hidden_act": "gelu"}
_TANH: Mapping[str, Any] = {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"}
_JAX_WRAPPERS = ("opt/target/", "params/", "img/")
_HUB_WRAPPERS = ("layers/vi_t_backbone/",)

# The one that explains most names of a file is the file's; of equals the first.
DIALECTS = (
    Dialect("hf", hf.ROWS, "torch", _TORCH_WRAPPERS),
    Dialect("hf_tf", hf.TF_ROWS, "keras"),
    Dialect("hf_flax", hf.FLAX_ROWS, "flax", ("params.", "vit.")),
    Dialect("timm", timm.ROWS, "torch", _BACKBONE_WRAPPERS, timm.FOLDED, timm.DROPPED, _EXACT),
    Dialect("mae", timm.MAE_ROWS, "torch", _BACKBONE_WRAPPERS, {}, {}, _EXACT),
    Dialect("google", google.ROWS, "heads", _JAX_WRAPPERS, {}, {}, _TANH),
    Dialect("torchvision", torchvision.ROWS, "torch", _TORCH_WRAPPERS, {}, {}, _EXACT),
    Dialect("keras_hub", keras.HUB_ROWS, "heads", _HUB_WRAPPERS, {}, keras.HUB_DROPPED, _EXACT),
    Dialect("keras_hub", keras.HUB_ROWS_WITH_POOLER, "heads", _HUB_WRAPPERS, {}, keras.HUB_DROPPED, _EXACT),
    Dialect("vitriad_tf", keras.TF_ROWS, "keras", ("vit/",), {}, keras.TF_DROPPED),
    Dialect("vitriad_tf", keras.TF_ROWS_WITH_MASK_TOKEN, "keras", ("vit/",), {}, keras.TF_DROPPED),
)
