"""Dialects "hf", "hf_tf" and "hf_flax": the names of transformers. Those of 4.x in PyTorch are the canonical ones.

Source: transformers 4.57.6 and 5.23.0, names of saved files. What 5.x saves by default has the 4.x names again, but for
the decoder of ViTMAE, whose `layers` its renaming takes for the encoder's, and for activations with parameters.
TensorFlow and Flax name modules alike, and the tensors in them otherwise.
"""

from __future__ import annotations

# Canonical spelling first, then the others. A template stands for whole names: {i} is the number of a layer.
_LAYERS = (
    ("encoder.layer.{i}", "layers.{i}"),
    ("decoder.decoder_layers.{i}", "decoder.decoder_encoder.layer.{i}"),
)
_MODULES = (
    ("layernorm_before",),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("layernorm_after",),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
_ACTIVATION = ("intermediate.intermediate_act_fn", "mlp.activation_fn")
_ACTIVATION_TENSORS = ("weight", "alpha_p", "alpha_n", "beta", "eps")
_INNER = (
    *((module, tensor) for module in _MODULES for tensor in ("weight", "bias")),
    *((_ACTIVATION, tensor) for tensor in _ACTIVATION_TENSORS),
)
_OUTER = (
    "embeddings.cls_token",
    "embeddings.mask_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.bias",
    "layernorm.weight",
    "layernorm.bias",
    "pooler.dense.weight",
    "pooler.dense.bias",
    *(f"pooler.activation.{tensor}" for tensor in _ACTIVATION_TENSORS),
    "classifier.weight",
    "classifier.bias",
    "decoder.0.weight",
    "decoder.0.bias",
    "decoder.mask_token",
    "decoder.decoder_pos_embed",
    "decoder.decoder_embed.weight",
    "decoder.decoder_embed.bias",
    "decoder.decoder_norm.weight",
    "decoder.decoder_norm.bias",
    "decoder.decoder_pred.weight",
    "decoder.decoder_pred.bias",
)

# Template of a canonical name -> every template this dialect has for it, without the prefix of models with a head.
ROWS: dict[str, tuple[str, ...]] = {name: (name,) for name in _OUTER} | {
    f"{layer[0]}.{module[0]}.{tensor}": tuple(f"{outer}.{inner}.{tensor}" for outer in layer for inner in module)
    for layer in _LAYERS
    for module, tensor in _INNER
}

# weight and bias of other modules and of norms, which are told by their names
_TF_TENSORS = ({"weight": "kernel"}, {"weight": "gamma", "bias": "beta"})
_FLAX_TENSORS = ({"weight": "kernel"}, {"weight": "scale"})


def _renamed(name: str, tensors: tuple[dict[str, str], dict[str, str]]) -> tuple[str, str]:
    """Module and tensor of a name, the tensor as a framework calls it."""
    module, _, tensor = name.rpartition(".")
    if module.endswith(("act_fn", "activation")):
        return module, tensor
    is_norm = module.rpartition(".")[2].startswith(("layernorm", "decoder_norm"))
    return module, tensors[is_norm].get(tensor, tensor)


def _tf(name: str) -> tuple[str, str]:
    """The name in tf_model.h5, and the one in safetensors of a model that was built but never called."""
    module, tensor = _renamed(name, _TF_TENSORS)
    path = module.replace(".{i}", "@").replace(".", "/").replace("encoder/layer@", "encoder/layer_._{i}")
    path = path.replace("@", ".{i}")  # only the encoder's list of layers is marked
    full = f"{path}/{tensor}:0" if name.startswith(("classifier", "decoder")) else f"vit/{path}/{tensor}:0"
    return full, full.partition("/")[2]


# What transformers had in these frameworks: no masked image modelling, and no decoder in Flax.
_PLAIN = [
    name
    for name in ROWS
    if not any(part in name for part in ("decoder.0.", "embeddings.mask_token", "act_fn", "pooler.activation"))
]
TF_ROWS = {name: _tf(name) for name in _PLAIN}
OUR_FLAX_ROWS = {name: (".".join(_renamed(name, _FLAX_TENSORS)),) for name in ROWS}  # the same names, for all classes
FLAX_ROWS = {name: OUR_FLAX_ROWS[name] for name in _PLAIN if not name.startswith("decoder.")}
