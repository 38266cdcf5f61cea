"""Dialects "hf", "hf_tf" and "hf_flax": the names of transformers. Those of 4.x in PyTorch are the canonical ones.

Source: transformers 4.57.6 and 5.23.0, names of saved files. What 5.x saves by default has the 4.x names again, but for
the decoder of ViTMAE, whose `layers` its renaming takes for the encoder's, and for activations with parameters.
TensorFlow and Flax name modules alike, and the tensors in them otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from conversion.dialect import Dialect, Target
from vit_core.parameters import BASE_PREFIX, MODEL_CLASSES

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
    "embeddings.register_tokens",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.bias",
    "layernorm.weight",
    "layernorm.bias",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "pooler.layernorm.weight",
    "pooler.layernorm.bias",
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
ROWS |= {name: (name,) for name in (f"encoder.layer.{{i}}.layer_scale{k}.lambda1" for k in (1, 2))}

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


# What transformers had in these frameworks: no masked image modelling, no options, and no decoder in Flax.
_NOT_THERE = (
    *("decoder.0.", "embeddings.mask_token", "act_fn", "pooler.activation"),
    *("register_tokens", "layer_scale", "pooler.layernorm"),
)
_PLAIN = [name for name in ROWS if not any(part in name for part in _NOT_THERE)]
_TF_ROWS = {name: _tf(name) for name in _PLAIN}
_OUR_FLAX_ROWS = {name: (".".join(_renamed(name, _FLAX_TENSORS)),) for name in ROWS}  # the same names, for all classes
_FLAX_ROWS = {name: _OUR_FLAX_ROWS[name] for name in _PLAIN if not name.startswith("decoder.")}

_VIT = ("ViTModel", "ViTForImageClassification")
_NO_MASK_TOKEN = {"embeddings.mask_token": "mask token"}
# Those that transformers' TensorFlow classes knew.
_TF_ACTIVATIONS = {
    **{
        name: name for name in ("gelu", "gelu_10", "gelu_fast", "gelu_new", "glu", "mish", "quick_gelu", "relu", "tanh")
    },
    **{name: name for name in ("sigmoid", "silu", "swish")},
    "gelu_pytorch_tanh": "gelu_new",  # the same formula
}
_TF_SCOPES = {
    "ViTModel": "tf_vi_t_model",
    "ViTForImageClassification": "tf_vi_t_for_image_classification",
    "ViTMAEModel": "tf_vi_tmae_model",
    "ViTMAEForPreTraining": "tf_vi_tmae_for_pre_training",
}

HF = Dialect(
    name="hf",
    convention="torch",
    rows=ROWS,
    is_canonical=True,
    encoder_prefix=BASE_PREFIX,
    marks={
        "gate_proj": "a gated MLP",
        "relative_position_bias": "relative positions",
        "patch_embeddings.backbone": "a hybrid with a CNN",
        **dict.fromkeys(("embeddings.distillation_token", "distillation_token"), "a distillation token"),
        **dict.fromkeys(("detection_tokens", "mid_position_embeddings"), "YOLOS, a detector"),
        **dict.fromkeys(("lambda_1", "lambda_2"), "BEiT or Data2Vec"),
        "backbone.encoder.layer": "a backbone of another model",
        "dpt": "DPT, for depth and segmentation",
    },
    framework="pt",
    dropped={"mean_pooling": "a mark of the model type"},  # see conversion.families
    target=Target(
        classes=tuple(MODEL_CLASSES),
        container="safetensors",
        suffix=".safetensors",
        file="model.safetensors",
        prefix=BASE_PREFIX,
    ),
)
HF_TF = Dialect(
    name="hf_tf",
    convention="keras",
    rows=_TF_ROWS,
    encoder_prefix="vit/",
    framework="tf",
    layout_name="tf",
    target=Target(
        classes=(*_VIT, "ViTMAEModel", "ViTMAEForPreTraining"),
        container="h5",
        suffix=".h5",
        file="tf_model.h5",
        lacks=_NO_MASK_TOKEN,
        needs_qkv_bias=True,
        activations=_TF_ACTIVATIONS,
        scopes=_TF_SCOPES,
    ),
)
HF_FLAX = Dialect(
    name="hf_flax",
    convention="flax",
    rows=_FLAX_ROWS,
    encoder_prefix=BASE_PREFIX,
    framework="flax",
    layout_name="flax",
    target=Target(
        classes=_VIT,
        container="msgpack",
        suffix=".msgpack",
        file="flax_model.msgpack",
        prefix=BASE_PREFIX,
        lacks=_NO_MASK_TOKEN,
    ),
)
OUR_FLAX = replace(HF_FLAX, rows=_OUR_FLAX_ROWS, target=None)  # params that training saved; only read
DIALECTS = (HF, HF_TF, HF_FLAX, OUR_FLAX)
