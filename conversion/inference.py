"""Configurations that other programs' files imply: by shapes, by what a dialect's programs share, by known sizes.

What none of these says is asked for, never guessed.

Source: the papers' and the programs' own tables of sizes; timm 1.0.31; keras-hub 0.32.0; vision_transformer c6de1e53.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversion.dialect_list import Dialect
from conversion.folds import side_of
from vit_core.config import pair
from vit_core.config.labels import label_table
from vit_core.errors import CheckpointError, ConfigError
from vit_core.files.arrays import LazyArray

Fields = dict[str, Any]

# (hidden_size, num_hidden_layers, intermediate_size) -> heads. A width alone does not tell.
HEADS: dict[tuple[int, int, int], int] = {
    (192, 12, 768): 3,  # Ti
    (384, 12, 1536): 6,  # S
    (384, 36, 1536): 6,
    (512, 12, 2048): 8,  # M, DeiT-III medium
    (768, 12, 3072): 12,  # B
    (896, 12, 3584): 14,  # B plus
    (1024, 24, 4096): 16,  # L
    (1152, 27, 4304): 16,  # So400m
    (1280, 32, 5120): 16,  # H
    (1408, 40, 6144): 16,  # g
    (1664, 48, 8192): 16,  # G
    (1792, 56, 15360): 16,  # e
}
_DECODER_HEADS = {(512, 8, 2048): 16}  # of MAE, for encoders of every size
_LEGACY_SMALL = (768, 8, 2304)  # timm's first vit_small, which divides scores by sqrt(768)

# Start and end of the published file names of MAE -> whether its pixels are normalised, which no tensor tells.
_NORM_PIX = {("mae_visualize_vit_", ".pth"): False, ("mae_pretrain_vit_", "_full.pth"): True}

TIMM_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}
# Arguments of timm's models that change nothing here, or are seen in the tensors.
_TIMM_HARMLESS = {
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
        "drop_rate",
        "drop_path_rate",
        "act_layer",
        "proj_bias",
    ),
    *("dynamic_img_size", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "weight_init"),
}


def is_of_transformers(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of transformers (and ours), not of timm or keras-hub."""
    return "model_type" in data or not ("architecture" in data or "class_name" in data)


def program_of(data: Mapping[str, Any]) -> str | None:
    """The dialect of the program that wrote a config.json, "hf" for transformers; None where it is of none known."""
    if not is_of_transformers(data):
        return "timm" if "architecture" in data else "keras_hub"
    return "hf" if {"model_type", "architectures", "hidden_size"} & data.keys() else None


_CLASS_ROWS = ("mae", "torchvision", "keras_hub")  # dialects whose positions always have a row for the class token


def infer(
    where: str,
    dialect: Dialect,
    tensors: Mapping[str, LazyArray],
    shown: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    model: str | None,
) -> Fields:
    """The keys of a configuration for a checkpoint without one.

    Args:
        where: the file, for messages.
        dialect: of the file.
        tensors: canonical name without prefix -> tensor.
        shown: fields that the stored shapes show.
        data: what the program's own config.json says.
        given: fields that the caller gives; of use where nothing else tells.
        model: the class to load; None for the one that the file holds.

    Raises:
        CheckpointError: not a whole encoder, or a field that nothing tells.
    """
    fields = _encoder(where, tensors)
    fields |= dict(dialect.numerics or {}) | dict(shown) | _said(where, data or {})
    sizes = (fields["hidden_size"], fields["num_hidden_layers"], fields["intermediate_size"])
    if sizes == _LEGACY_SMALL and not fields["qkv_bias"]:
        raise CheckpointError(
            f"{where}: timm's first vit_small_patch16_224, whose attention divides by sqrt(hidden size).\n"
            "Later timm models of that name are ordinary ones; take one of those."
        )
    if sizes in HEADS:
        fields.setdefault("num_attention_heads", HEADS[sizes])
    _ask(where, fields, given, "num_attention_heads", f"a model of {sizes[1]} layers of {sizes[0]} is not known")
    grid = stored_grid(where, dialect.name, tensors, fields.get("image_size") or given.get("image_size"))
    if "image_size" not in fields:
        height, width = (side * patch for side, patch in zip(grid, pair(fields["patch_size"]), strict=True))
        fields["image_size"] = height if height == width else [height, width]
    classes = tensors["classifier.weight"].shape[0] if "classifier.weight" in tensors else None
    if given.get("id2label") is None:
        fields |= _labels(where, data or {}, classes)
    if "decoder.0.weight" in tensors:
        fields["encoder_stride"] = side_of(tensors["decoder.0.weight"].shape[0] // fields["num_channels"]) or 0
    if "pooler.dense.weight" in tensors:
        fields["pooler_output_size"] = tensors["pooler.dense.weight"].shape[0]
    return fields | _decoder(where, tensors, given, model)


def said_size(where: str, data: Mapping[str, Any]) -> Any:
    """The image size that a config.json says the positions are for, whoever wrote it; None where it says none."""
    return _said(where, data).get("image_size") or data.get("image_size")


def stored_grid(where: str, dialect: str, tensors: Mapping[str, LazyArray], image_size: Any = None) -> tuple[int, int]:
    """(rows, columns) of the patches that the position table is for.

    Args:
        dialect: of the file; of some, no table is without a row for the class token.
        image_size: what to go by where the patches make no square.

    Raises:
        CheckpointError: they make no square, and the image size does not fit.
    """
    tokens = _shape(where, tensors, "embeddings.position_embeddings", 3)[1]
    patch = _shape(where, tensors, "embeddings.patch_embeddings.projection.weight", 4)[2:]
    if image_size is not None:
        rows, columns = (side // size for side, size in zip(pair(image_size), patch, strict=True))
        if rows * columns in (tokens - 1, tokens):
            return rows, columns
    for patches in (tokens - 1, *(() if dialect in _CLASS_ROWS else (tokens,))):
        if side := side_of(patches):
            return side, side
    raise CheckpointError(
        f"{where}: {tokens} positions make no square.\n"
        "Pass image_size=(height, width) (--set image_size=... on the command line)."
    )


def _encoder(where: str, tensors: Mapping[str, LazyArray]) -> Fields:
    """What the shapes of the encoder say."""
    if "embeddings.cls_token" not in tensors:
        raise CheckpointError(f"{where}: no class token: a model with mean or attention pooling, which no ViT here is.")
    hidden, channels, height, width = _shape(where, tensors, "embeddings.patch_embeddings.projection.weight", 4)
    mlp, _ = _shape(where, tensors, "encoder.layer.0.intermediate.dense.weight", 2)
    _, inner = _shape(where, tensors, "encoder.layer.0.output.dense.weight", 2)
    if mlp == 2 * inner:
        raise CheckpointError(
            f"{where}: a gated MLP (SwiGLU), {mlp} wide before and {inner} after; no ViT here has one."
        )
    return {
        "model_type": "vit",
        "hidden_size": hidden,
        "num_channels": channels,
        "patch_size": height if height == width else [height, width],
        "intermediate_size": mlp,
        "num_hidden_layers": _layers(where, tensors, "encoder.layer."),
        "qkv_bias": "encoder.layer.0.attention.attention.query.bias" in tensors,
    }


def _decoder(where: str, tensors: Mapping[str, LazyArray], given: Mapping[str, Any], model: str | None) -> Fields:
    """What the decoder of a masked autoencoder says."""
    if "decoder.decoder_embed.weight" not in tensors:
        return {}
    hidden, _ = _shape(where, tensors, "decoder.decoder_embed.weight", 2)
    mlp, _ = _shape(where, tensors, "decoder.decoder_layers.0.intermediate.dense.weight", 2)
    fields: Fields = {
        "model_type": "vit_mae",
        "decoder_hidden_size": hidden,
        "decoder_num_hidden_layers": _layers(where, tensors, "decoder.decoder_layers."),
        "decoder_intermediate_size": mlp,
    }
    sizes = (hidden, fields["decoder_num_hidden_layers"], mlp)
    if model not in (None, "ViTMAEForPreTraining"):  # nobody will use it
        return fields
    if sizes in _DECODER_HEADS:
        fields["decoder_num_attention_heads"] = _DECODER_HEADS[sizes]
    _ask(
        where, fields, given, "decoder_num_attention_heads", f"a decoder of {sizes[1]} layers of {hidden} is not known"
    )
    for (start, end), is_normalised in _NORM_PIX.items():
        name = Path(where).name
        if name.startswith(start) and name.endswith(end):
            fields["norm_pix_loss"] = is_normalised
    _ask(where, fields, given, "norm_pix_loss", "no tensor tells whether it reconstructs normalised pixels")
    return fields


def _ask(where: str, fields: Fields, given: Mapping[str, Any], name: str, why: str) -> None:
    if name not in fields and given.get(name) is None:
        option = "--heads" if name == "num_attention_heads" else f"--set {name}=..."
        raise CheckpointError(
            f"{where}: {name} is not in the file, and {why}.\nPass {name}= ({option} on the command line)."
        )


def _shape(where: str, tensors: Mapping[str, LazyArray], name: str, axes: int) -> tuple[int, ...]:
    shape = tensors[name].shape if name in tensors else None
    if shape is None or len(shape) != axes:
        what = "it is not there" if shape is None else f"its shape is {shape}"
        raise CheckpointError(f"{where}: {name}: expected {axes} axes, {what}.")
    return shape


def _layers(where: str, tensors: Mapping[str, LazyArray], prefix: str) -> int:
    numbers = {int(name.removeprefix(prefix).partition(".")[0]) for name in tensors if name.startswith(prefix)}
    if numbers != {*range(len(numbers))}:
        missing = min({*range(len(numbers))} - numbers)
        raise CheckpointError(
            f"{where}: {prefix}{missing} is missing, and later layers are there: the file is not whole."
        )
    return len(numbers)


def _said(where: str, data: Mapping[str, Any]) -> Fields:
    """What the program's own configuration says."""
    if isinstance(data.get("architecture"), str):
        return _timm(where, data)
    if isinstance(data.get("class_name"), str):
        return _keras_hub(where, data)
    return {}


def _timm(where: str, data: Mapping[str, Any]) -> Fields:
    name, arguments = data["architecture"], data.get("model_args") or {}
    arguments = arguments if isinstance(arguments, dict) else {}
    pool = arguments.get("global_pool", data.get("global_pool", "token"))
    if pool not in ("token", ""):
        raise CheckpointError(
            f"{where}: config.json: global_pool {pool!r}: the head reads the mean, not the class token."
        )
    if "rpn" in name.split("_"):
        raise CheckpointError(f"{where}: config.json: {name}: norms after each block (rpn), which no ViT here has.")
    if strange := sorted(arguments.keys() - _TIMM_HARMLESS):
        raise CheckpointError(
            f"{where}: config.json: {name}: {strange[0]} = {arguments[strange[0]]!r} is not known here."
        )
    fields: Fields = {}
    if "num_heads" in arguments:
        fields["num_attention_heads"] = arguments["num_heads"]
    if "act_layer" in arguments:
        ours = {theirs: ours for ours, theirs in TIMM_ACTIVATIONS.items()}
        fields["hidden_act"] = ours.get(arguments["act_layer"], arguments["act_layer"])
    if size := arguments.get("img_size"):
        fields["image_size"] = size if isinstance(size, int) or len({*size}) > 1 else size[0]
    return fields


def _labels(where: str, data: Mapping[str, Any], classes: int | None) -> Fields:
    """The labels that timm's configuration names, in any of the places it had for them; else one for each class.

    Raises:
        ConfigError: they are not labels for just these classes.
    """
    inner = data.get("pretrained_cfg")
    places = [data, *([inner] if isinstance(inner, Mapping) else [])] if "architecture" in data else []
    for place in places:
        for name in ("label_names", "labels"):
            if not place.get(name):
                continue
            try:
                return {"id2label": label_table(f"{where}: config.json: {name}", place[name], classes=classes)}
            except ConfigError as error:
                raise ConfigError(f"{error}.\nMend {name} there, or pass id2label= with the labels.") from None
    return {} if classes is None else {"id2label": [f"LABEL_{index}" for index in range(classes)]}


def _keras_hub(where: str, data: Mapping[str, Any]) -> Fields:
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


# --- what other programs' files say beside weights -------------------------------------------------------------------


def timm_config(config: Any, model: str, images: Mapping[str, Any]) -> Fields:
    """The config.json of a timm repository.

    Args:
        images: what pretrained_cfg says of the preparation of images.
    """
    hidden, mlp = config.hidden_size, config.intermediate_size
    ratio = next(ratio for ratio in (mlp / hidden, (mlp + 0.5) / hidden) if int(hidden * ratio) == mlp)
    classes = config.num_labels if model == "ViTForImageClassification" else 0
    size = list(pair(config.image_size))
    labels = [config.id2label[i] for i in range(classes)]
    fields: Fields = {
        "architecture": "vit_base_patch16_224",  # what timm then changes by these arguments
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
            **images,
        },
    }
    if config.hidden_act != "gelu":
        fields["model_args"]["act_layer"] = TIMM_ACTIVATIONS[config.hidden_act]
    if labels != [f"LABEL_{i}" for i in range(classes)]:
        fields["label_names"] = labels
    return fields
