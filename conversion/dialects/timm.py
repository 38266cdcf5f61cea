"""Dialect "timm": names of timm, and of the projects that grew out of it.

DeiT, DINO, DINOv2 and the encoders of MAE have timm's names; what they add is folded or left out. A file with a decoder
of MAE is a dialect of its own, `conversion.dialects.mae`.

Source: timm 1.0.31 and tags back to 0.4.5; facebookresearch's mae efb2a806, dino 7c446df5, deit 7e160fe4,
dinov2 b8931f7b, with their evaluation scripts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.dialect import Dialect, Fields, Images, Opened, Part, Row, Target, Tensors
from conversion.folds import dead_head, distillation, mapped, zero_biases
from conversion.images import BICUBIC, FILTERS, IMAGENET, in_colour
from vit_core.config import pair
from vit_core.config.foreign_fields import FOREIGN, Foreign
from vit_core.errors import CheckpointError
from vit_core.files.arrays import LazyArray
from vit_core.limits import Limits
from vit_core.plain_values import short
from vit_core.tensors import Array

if TYPE_CHECKING:
    from vit_core.images.processor import ViTImageProcessor

_MODULES = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_GATED = {
    "intermediate.dense": "mlp.w12",
    "output.dense": "mlp.w3",
}  # DINOv2's own names
_QKV = ("query", "key", "value")


def layers(canonical: str, blocks: tuple[str, ...]) -> dict[str, Row]:
    """The rows of all layers, for every name that the blocks have."""
    rows: dict[str, Row] = {
        f"{canonical}.{{i}}.{module}.{tensor}": tuple(
            f"{block}.{each}.{tensor}" for block in blocks for each in dict.fromkeys((name, _GATED.get(module, name)))
        )
        for module, name in _MODULES.items()
        for tensor in ("weight", "bias")
    }
    for k, projection in enumerate(_QKV):
        for tensor in ("weight", "bias"):
            rows[f"{canonical}.{{i}}.attention.attention.{projection}.{tensor}"] = tuple(
                Part(f"{block}.attn.qkv.{tensor}", k) for block in blocks
            )
    return rows


# DINOv2's training code has blocks.CHUNK.NUMBER.
_BLOCKS = ("blocks.{i}", "blocks.{c}.{i}")
ENCODER: dict[str, Row] = {
    "embeddings.cls_token": ("cls_token",),
    "embeddings.position_embeddings": ("pos_embed",),
    "embeddings.patch_embeddings.projection.weight": ("patch_embed.proj.weight",),
    "embeddings.patch_embeddings.projection.bias": ("patch_embed.proj.bias",),
    **layers("encoder.layer", _BLOCKS),
    "layernorm.weight": ("norm.weight",),
    "layernorm.bias": ("norm.bias",),
}
_ROWS: dict[str, Row] = {
    **ENCODER,
    **{
        f"encoder.layer.{{i}}.layer_scale{k}.lambda1": tuple(f"{block}.{name}" for block in _BLOCKS for name in names)
        for k, names in {1: ("ls1.gamma", "gamma_1"), 2: ("ls2.gamma", "gamma_2")}.items()
    },
    "embeddings.mask_token": ("mask_token",),
    "embeddings.register_tokens": ("reg_token", "register_tokens"),
    "pooler.layernorm.weight": ("fc_norm.weight",),
    "pooler.layernorm.bias": ("fc_norm.bias",),
    "pooler.dense.weight": ("pre_logits.fc.weight",),
    "pooler.dense.bias": ("pre_logits.fc.bias",),
    "classifier.weight": ("head.weight", "head.1.weight"),
    "classifier.bias": ("head.bias", "head.1.bias"),
}
# What is worked into canonical tensors, by the folds below.
_FOLDED: dict[str, Row] = {
    **{
        f"encoder.layer.{{i}}.attention.attention.{projection}.bias": (f"blocks.{{i}}.attn.{name}",)
        for projection, name in (("query", "q_bias"), ("value", "v_bias"))
    },
    "classifier.norm.mean": ("head.0.running_mean",),
    "classifier.norm.variance": ("head.0.running_var",),
    "distillation.token": ("dist_token",),
    "distillation.weight": ("head_dist.weight",),
    "distillation.bias": ("head_dist.bias",),
}

# Start of a name -> why the tensor means nothing to a ViT.
_DROPPED = {
    "head.0.num_batches_tracked": "a counter of training",
    **dict.fromkeys(("head.mlp.", "head.last_layer.", "dino_head.", "ibot_head."), "a projection head of training"),
}

# What other models in these names have.
_MARKS = {
    "attn_pool": "an attention pooling head",
    "norm_pre": "a norm in front of the blocks (CLIP)",
    **dict.fromkeys(("q_norm", "k_norm"), "norms of queries and keys"),
    **dict.fromkeys(("attn.norm", "mlp.norm", "sub_norm", "inner_attn_ln"), "norms inside a block"),
    **dict.fromkeys(("attn.gate", "lambda_q1", "lambda_k1"), "gated or differential attention"),
    **dict.fromkeys(("fc1_g", "fc1_x"), "a gated MLP in two matrices"),
    **dict.fromkeys(("attns", "ffns", "norm11", "attn1", "in_proj"), "parallel blocks"),
    **dict.fromkeys(("relative_position_bias_table", "rel_pos_h", "rope"), "relative positions"),
    "patch_embed.backbone": "a hybrid with a CNN",
    "patch_embed.proj.0": "a stem of several convolutions",
}

# --- what is folded --------------------------------------------------------------------------------------------------

_BATCH_NORM_EPS = 1e-6  # of MAE's linear probe


def _batch_norm(where: str, found: Tensors, allow: Collection[str]) -> list[str]:
    """MAE's linear probe normalises with stored statistics in front of its head, which is linear as a whole."""
    mean, variance = (found.pop(f"classifier.norm.{name}", None) for name in ("mean", "variance"))
    weight, bias = found.get("classifier.weight"), found.get("classifier.bias")
    if mean is None or variance is None:
        return []
    if weight is None or bias is None or not weight.shape[1:] == mean.shape == variance.shape:
        raise CheckpointError(f"{where}: a BatchNorm without a linear head that it fits.")

    def new_weight() -> Array:
        return np.asarray(
            weight.read().astype(np.float64) / np.sqrt(variance.read().astype(np.float64) + _BATCH_NORM_EPS)
        )

    def new_bias() -> Array:
        return np.asarray(bias.read() - new_weight() @ mean.read().astype(np.float64))

    dtype = np.promote_types(np.float32, weight.dtype)
    found["classifier.weight"] = LazyArray(dtype, weight.shape, lambda: new_weight().astype(dtype))
    found["classifier.bias"] = LazyArray(dtype, bias.shape, lambda: new_bias().astype(dtype))
    return ["folded: the BatchNorm in front of the classifier"]


# --- config.json -----------------------------------------------------------------------------------------------------

_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}
# Arguments of timm's models that change nothing here, or are seen in the tensors.
_HARMLESS = {
    *(
        "img_size",
        "patch_size",
        "in_chans",
        "embed_dim",
        "depth",
        "num_heads",
        "mlp_ratio",
        "num_classes",
        "global_pool",
    ),
    *(
        "qkv_bias",
        "init_values",
        "no_embed_class",
        "class_token",
        "reg_tokens",
        "fc_norm",
        "drop_rate",
        "drop_path_rate",
        "act_layer",
        "proj_bias",
    ),
    *(
        "dynamic_img_size",
        "pos_drop_rate",
        "patch_drop_rate",
        "proj_drop_rate",
        "attn_drop_rate",
        "weight_init",
        "fix_init",
    ),
}
# Architectures whose arguments a file may change. That of the MLP is none of those: a gated one is some models' own.
_PLAIN_MODEL = "vit_base_patch16_224"
_GATED_MODELS = ("vit_giant_patch14_dinov2", "vit_giant_patch14_reg4_dinov2", "vit_giant_patch14_reg1_tipsv2")
_OPTIONS = {"class_token": "use_class_token", "reg_tokens": "num_register_tokens"}
_AS_IF_ABSENT = {"pool_include_prefix": False, "dynamic_img_pad": False}
_LEGACY_SMALL = (768, 8, 2304)  # timm's first vit_small, which divides scores by sqrt(768)


def _refuse(where: str, fields: Fields) -> None:
    """Raises CheckpointError for the one model whose attention divides by something else."""
    sizes = (fields["hidden_size"], fields["num_hidden_layers"], fields["intermediate_size"])
    if sizes == _LEGACY_SMALL and not fields["qkv_bias"]:
        raise CheckpointError(
            f"{where}: timm's first vit_small_patch16_224, whose attention divides by sqrt(hidden size).\n"
            "Later timm models of that name are ordinary ones; take one of those."
        )


def _read_config(where: str, data: Mapping[str, Any]) -> Fields:
    """What timm's config.json says; raises CheckpointError for models that compute in a way that no ViT here does."""
    name, arguments = data["architecture"], data.get("model_args") or {}
    arguments = arguments if isinstance(arguments, dict) else {}
    pool = arguments.get("global_pool", data.get("global_pool"))
    if pool not in ("token", "avg", "", None):
        raise CheckpointError(
            f"{where}: config.json: global_pool {pool!r}: heads here read the class token or the mean of the patches."
        )
    if "rpn" in name.split("_"):
        raise CheckpointError(f"{where}: config.json: {name}: norms after each block (rpn), which no ViT here has.")
    for argument in sorted(arguments.keys() - _HARMLESS):
        if problem := _problem(argument, arguments[argument]):
            raise CheckpointError(f"{where}: config.json: {name}: {argument}: {problem}.")
    fields: Fields = {"use_mean_pooling": pool == "avg"} if pool else {}
    fields |= {ours: arguments[theirs] for theirs, ours in _OPTIONS.items() if arguments.get(theirs) is not None}
    if (norm := arguments.get("fc_norm")) is not None:
        if not isinstance(norm, bool):
            raise CheckpointError(f"{where}: config.json: {name}: fc_norm: expected true or false, got {short(norm)}.")
        fields["norm_before_pooling"] = pool == "avg" and not norm
    if "num_heads" in arguments:
        fields["num_attention_heads"] = arguments["num_heads"]
    if name in _GATED_MODELS and arguments.get("act_layer") not in (None, "silu"):
        raise CheckpointError(
            f"{where}: config.json: {name}: act_layer {short(arguments['act_layer'])}: gates here are of silu only."
        )
    if (activation := arguments.get("act_layer")) is not None:
        ours = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
        fields["hidden_act"] = ours.get(activation, activation) if isinstance(activation, str) else activation
    if (size := arguments.get("img_size")) is not None:
        fields["image_size"] = _sides(f"{where}: config.json: {name}: img_size", size)
    return fields


def _sides(where: str, size: Any) -> Any:
    """A size of images as fields have it."""
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) for side in sides)):
        raise CheckpointError(f"{where}: expected an int or a [height, width], got {short(size)}.")
    return sides if sides[0] != sides[1] else sides[0]


def _problem(argument: str, value: Any) -> str | None:
    """Why an argument of timm's models describes none that is here; None for a value that changes nothing."""
    row = FOREIGN.get(argument)
    if isinstance(row, Foreign):
        return row.problem(None, value)
    return None if value is None or value is _AS_IF_ABSENT.get(argument) else f"{short(value)} is not known here"


def _read_labels(data: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Labels in any of the places that timm had for them."""
    inner = data.get("pretrained_cfg")
    places = [data, *([inner] if isinstance(inner, Mapping) else [])]
    named = ((name, place.get(name)) for place in places for name in ("label_names", "labels"))
    return next(((name, labels) for name, labels in named if labels), None)


def _with_register_rows(config: Any, tensors: Tensors) -> None:
    """Where the class token has a position, all tokens in front of the patches have one there: zeros for registers."""
    if config.num_register_tokens and config.use_class_token:
        rows, name = [1] * config.num_register_tokens, "embeddings.position_embeddings"
        tensors[name] = mapped(tensors[name], lambda table: np.insert(table, rows, 0, axis=1))


def _write_config(config: Any, model: str, processor: ViTImageProcessor | None) -> Fields:
    """The config.json of a timm repository."""
    hidden, mlp = config.hidden_size, config.intermediate_size
    ratio = next(ratio for ratio in (mlp / hidden, (mlp + 0.5) / hidden) if int(hidden * ratio) == mlp)
    classes = config.num_labels if model == "ViTForImageClassification" else 0
    size = list(pair(config.image_size))
    labels = [config.id2label[i] for i in range(classes)]
    fields: Fields = {
        "architecture": _GATED_MODELS[0] if config.use_swiglu_ffn else _PLAIN_MODEL,
        "num_classes": classes,
        "num_features": hidden,
        "global_pool": "token",
        "model_args": {
            "img_size": size,
            "patch_size": config.patch_size,
            "in_chans": config.num_channels,
            "embed_dim": hidden,
            "depth": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "mlp_ratio": ratio,
            "qkv_bias": config.qkv_bias,
            "num_classes": classes,
            "global_pool": "token",
        },
        "pretrained_cfg": {
            "input_size": [config.num_channels, *size],
            "num_classes": classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            **_said_of_images(processor),
        },
    }
    if config.use_swiglu_ffn:  # where timm's own model has a LayerScale
        fields["model_args"] |= {"init_values": 0}
    elif config.hidden_act != "gelu":
        fields["model_args"] |= {"act_layer": _ACTIVATIONS[config.hidden_act]}
    if config.use_mean_pooling:
        fields["global_pool"] = "avg"
        fields["model_args"] |= {"global_pool": "avg", "fc_norm": not config.norm_before_pooling}
    if not config.use_class_token:
        fields["model_args"] |= {"class_token": False}
    if config.num_register_tokens:
        fields["model_args"] |= {
            "reg_tokens": config.num_register_tokens,
            "no_embed_class": not config.use_class_token,
        }
    if config.layerscale_value is not None:
        fields["model_args"] |= {"init_values": config.layerscale_value or 1.0}  # 0 is none at all there
    if labels != [f"LABEL_{i}" for i in range(classes)]:
        fields["label_names"] = labels
    return fields


# --- preparation of images -------------------------------------------------------------------------------------------

# Starts of the file names under which DeiT, DINO, DINOv2 and MAE were published.
_PUBLISHED = ("deit_", "dino_", "dinov2_", "mae_")


def _said_of_images(processor: ViTImageProcessor | None) -> Fields:
    """What timm's pretrained_cfg says of the preparation of images; nothing where it cannot be said there."""
    if processor is None or not (processor.do_normalize and processor.do_rescale and processor.do_resize):
        return {}
    if abs(255 * processor.rescale_factor - 1) > 1e-6 or not isinstance(processor.image_mean, list):
        return {}
    names = {number: name for name, number in FILTERS.items()}
    said = {"mean": processor.image_mean, "std": processor.image_std, "interpolation": names[processor.resample]}
    return {**said, "crop_pct": 1.0}  # the whole image, of which timm would leave out the margin


def _read_images(opened: Opened, config: Any, limits: Limits) -> Images:
    """What pretrained_cfg says; else what the models of a family are known to want."""
    said = (opened.config or {}).get("pretrained_cfg")
    if isinstance(said, dict) and said.get("mean") and said.get("std"):
        options = {"image_mean": said["mean"], "image_std": said["std"]}
        resample = FILTERS.get(str(said.get("interpolation")), BICUBIC)
        return in_colour({**options, "resample": resample}, "config.json of timm", config.num_channels)
    if family := _family(opened):
        options = {**IMAGENET, "resample": BICUBIC}
        return in_colour(options, f"mean and deviation of {family}", config.num_channels)
    return None, ""


def _family(opened: Opened) -> str | None:
    """Whose model in timm's names it is, by tensors that only this program's have, or by its published name."""
    file, names = opened.weights.files[0], [*opened.weights]
    ends = {name.rpartition(".")[2] for name in names}
    if "dist_token" in ends or "gamma_1" in ends:
        return "DeiT"
    if "mask_token" in ends and "gamma" in ends:
        return "DINOv2"
    if {"teacher", "student"} & {*file.metadata.get("weights", "").split(".")}:
        return "DINO"
    if any(name.endswith("head.0.running_mean") for name in names):
        return "MAE"
    start = next((start for start in _PUBLISHED if file.path.name.startswith(start)), None)
    return f"the {start.rstrip('_')} release" if start else None


TIMM = Dialect(
    name="timm",
    convention="torch",
    rows=_ROWS,
    folded=_FOLDED,
    folds=(_batch_norm, distillation, zero_biases, dead_head),
    dropped=_DROPPED,
    marks=_MARKS,
    numerics={"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    config_key="architecture",
    read_config=_read_config,
    read_labels=_read_labels,
    refuse=_refuse,
    read_images=_read_images,
    target=Target(
        classes=("ViTModel", "ViTForImageClassification"),
        container="safetensors",
        suffix=".safetensors",
        file="model.safetensors",
        lacks={"embeddings.mask_token": "mask token", "pooler.dense": "pooler", "pooler.activation": "pooler"},
        options=(
            *("use_mean_pooling", "norm_before_pooling", "use_class_token", "layerscale_value"),
            *("num_register_tokens", "use_swiglu_ffn"),
        ),
        activations=_ACTIVATIONS,
        unfold=_with_register_rows,
        config=_write_config,
    ),
)
