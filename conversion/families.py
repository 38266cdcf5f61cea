"""How a ViT with options is stored: as the model type of transformers that has them, else under one that is ours.

Nothing is written that another program would load and compute differently. Transformers' Auto classes refuse a model
type that they do not know; its ViT classes, called by name, load what they find and tell of the rest: so every such
file has tensors that they have no place for, or lacks some.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from conversion.dialect import Fields
from conversion.dialects.hf_relatives import HF_DINOV2
from conversion.naming import template
from vit_core.config import OWN_TYPE, PretrainedConfig, pair
from vit_core.config.relatives import KEPT_SCALES, OF_DINOV2_HEADS, OF_IJEPA, gated_width
from vit_core.parameters import BASE_PREFIX

_WIDEST = 16  # of the ratios of an MLP that are tried
# Class here -> what those of transformers are called.
_OF_DINOV2 = {"ViTModel": "Model", "ViTForImageClassification": "ForImageClassification"}
_OF_IJEPA = {"ViTModel": "IJepaModel", "ViTForImageClassification": "IJepaForImageClassification"}
MARK = "mean_pooling"  # a tensor that tells transformers' classes of a model whose others are all theirs


class Form(NamedTuple):
    """How a model is stored.

    Attributes:
        fields: of config.json, in place of the configuration's own.
        left_out: keys of the configuration that another of `fields` says.
        names: canonical name -> name in the file, where that is another.
        added: name in the file -> shape and value of a tensor that the model does without.
        shapes: name in the file -> shape there, where that is another.
    """

    fields: Fields
    left_out: tuple[str, ...] = ()
    names: Mapping[str, str] = MappingProxyType({})
    added: Mapping[str, tuple[tuple[int, ...], float]] = MappingProxyType({})
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def form_of(config: PretrainedConfig, model: str, names: Collection[str]) -> Form | None:
    """How a model is stored; None for one without options, whose file is that of any ViT.

    Args:
        config: of the model.
        model: canonical name of its class.
        names: canonical names of its tensors.
    """
    if not config.family_options:
        return None
    form = _dinov2(config, model, names) or _ijepa(config, model, names)
    return own_form(config) if form is None else form


def own_form(config: PretrainedConfig) -> Form:
    """How a model with options is stored under its canonical names: as our type, and marked where they are a ViT's."""
    is_like_a_vit = {*config.family_options} <= {*OF_DINOV2_HEADS} and config.norm_before_pooling
    return Form({"model_type": OWN_TYPE}, added={MARK: ((1,), 1.0)} if is_like_a_vit else {})


def _dinov2(config: PretrainedConfig, model: str, names: Collection[str]) -> Form | None:
    """As a model or a classifier of Dinov2 or Dinov2WithRegisters, where those compute the same."""
    options = {*config.family_options} - {"num_register_tokens", "layerscale_value", "use_swiglu_ffn"}
    heads = {**OF_DINOV2_HEADS} if model == "ViTForImageClassification" else {}
    has_others = options != {*heads} or any(name.startswith("pooler.") for name in names)
    ratio = _ratio(config)
    if has_others or model not in _OF_DINOV2 or ratio is None or not _is_plain(config):
        return None
    scale, registers = config.layerscale_value, bool(config.num_register_tokens)
    kind, prefix = ("Dinov2WithRegisters", "dinov2_with_registers.") if registers else ("Dinov2", "dinov2.")
    fields: Fields = {
        "model_type": prefix[:-1],
        "architectures": [f"{kind}{_OF_DINOV2[model]}"],
        "mlp_ratio": ratio,
        "use_swiglu_ffn": config.use_swiglu_ffn,
        "layerscale_value": 1.0 if scale is None else scale,
        KEPT_SCALES: scale is not None,
    }
    spelt = {name: _in_dinov2(name, prefix, gated=config.use_swiglu_ffn) for name in names}
    prefix = prefix if heads else ""
    mask_token = f"{prefix}embeddings.mask_token"  # which Dinov2 always has, in this shape
    added: dict[str, Any] = {} if mask_token in spelt.values() else {mask_token: ((1, config.hidden_size), 0.0)}
    if scale is None:  # which Dinov2 always has
        added |= {
            f"{prefix}encoder.layer.{i}.layer_scale{k}.lambda1": ((config.hidden_size,), 1.0)
            for i in range(config.num_hidden_layers)
            for k in (1, 2)
        }
    return Form(fields, ("intermediate_size", *heads), spelt, added, {mask_token: (1, config.hidden_size)})


def _in_dinov2(name: str, prefix: str, *, gated: bool) -> str:
    """The name of a tensor in Dinov2's files, from the canonical one."""
    bare = name.removeprefix(BASE_PREFIX)
    row = HF_DINOV2.rows[template(bare)]
    spelt = str(row[-1] if gated else row[0]).replace("{i}", _number(name))
    return prefix + spelt if bare != name else spelt


def _ijepa(config: PretrainedConfig, model: str, names: Collection[str]) -> Form | None:
    """As IJepaModel or IJepaForImageClassification."""
    has_mask_token = any(name.endswith("embeddings.mask_token") for name in names)
    is_same = config.family_options == OF_IJEPA
    if not is_same or model not in _OF_IJEPA or has_mask_token or not _is_plain(config):
        return None
    spelt = {name: name.replace(BASE_PREFIX, "ijepa.", 1) for name in names if name.startswith(BASE_PREFIX)}
    return Form({"model_type": "ijepa", "architectures": [_OF_IJEPA[model]]}, tuple(OF_IJEPA), spelt)


def _is_plain(config: PretrainedConfig) -> bool:
    """Whether it asks for nothing that these types of transformers have not: all of its sides are squares."""
    sides = pair(config.image_size), pair(config.patch_size)
    return all(height == width for height, width in sides) and not any(config.pruned_heads.values())


def _ratio(config: PretrainedConfig) -> int | None:
    """The whole number by which the MLP is wider, as Dinov2 counts; None where there is none."""
    width, mlp = config.hidden_size, config.intermediate_size
    return next(
        (
            ratio
            for ratio in range(1, _WIDEST + 1)
            if (gated_width(width, ratio) if config.use_swiglu_ffn else width * ratio) == mlp
        ),
        None,
    )


def _number(name: str) -> str:
    return next((word for word in name.split(".") if word.isdecimal()), "")
