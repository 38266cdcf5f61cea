"""Infers a missing configuration: from shapes, from what the program always does, and from known sizes.

A field that none of these tells is an error that names the keyword to pass; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversion.dialect import Dialect, Fields
from conversion.dialects import DIALECTS
from conversion.folds import side_of
from conversion.heads import KNOWN, KNOWN_DECODERS
from vit_core.config import pair
from vit_core.config.labels import label_table
from vit_core.config.relatives import OF_DINOV2_HEADS
from vit_core.errors import CheckpointError, ConfigError, on_command_line
from vit_core.files.arrays import LazyArray

_PROJECTION = "embeddings.patch_embeddings.projection.weight"


def is_of_transformers(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the form of transformers, which is ours too, rather than in another program's."""
    return "model_type" in data or not any(dialect.config_key in data for dialect in DIALECTS if dialect.config_key)


def program_of(data: Mapping[str, Any]) -> str | None:
    """The dialect of the program that wrote a config.json, "hf" for transformers; None for an unknown program."""
    if is_of_transformers(data):
        return "hf" if {"model_type", "architectures", "hidden_size"} & data.keys() else None
    return next(dialect.name for dialect in DIALECTS if dialect.config_key in data)


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
        shown: fields that follow from the stored layout.
        data: what the program's own config.json says.
        given: fields that the caller passes; used where nothing else tells.
        model: the class to load; None for the one that the file holds.

    Raises:
        CheckpointError: not a whole encoder, or a field that cannot be inferred.
    """
    fields = _encoder(where, tensors)
    fields |= dict(dialect.numerics or {}) | dict(shown) | _said(where, data or {})
    fields |= _pooling(where, tensors, fields)
    sizes = (fields["hidden_size"], fields["num_hidden_layers"], fields["intermediate_size"])
    if dialect.refuse:
        dialect.refuse(where, fields)
    if sizes in KNOWN:
        fields.setdefault("num_attention_heads", KNOWN[sizes])
    _ask(where, fields, given, "num_attention_heads", f"a model of {sizes[1]} layers of {sizes[0]} is not known")
    grid = stored_grid(where, dialect, tensors, fields.get("image_size") or given.get("image_size"))
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
    return fields | _decoder(where, dialect, tensors, given, model)


def said_size(where: str, data: Mapping[str, Any]) -> Any:
    """The image size in a config.json of any program, which the position table is for; None if it has none."""
    return _said(where, data).get("image_size") or data.get("image_size")


def stored_grid(
    where: str, dialect: Dialect, tensors: Mapping[str, LazyArray], image_size: Any = None
) -> tuple[int, int]:
    """(rows, columns) of the patches that the position table is for.

    Args:
        dialect: of the file; some always have a row for the class token.
        image_size: decides where the patches form no square.

    Raises:
        CheckpointError: they make no square, and the image size does not fit.
    """
    tokens = _shape(where, tensors, "embeddings.position_embeddings", 3)[1]
    patch = _shape(where, tensors, _PROJECTION, 4)[2:]
    if 0 in patch:
        raise CheckpointError(f"{where}: {_PROJECTION}: expected patches of pixels, got {patch[0]} x {patch[1]}.")
    first = int("embeddings.cls_token" in tensors)
    # Positions may be of the class token and the patches, of the patches alone, or of registers too.
    known = [tokens - rows for rows in (first, 0, first + _registers(where, tensors))]
    if image_size is not None:
        rows, columns = (side // size for side, size in zip(pair(image_size), patch, strict=True))
        if rows * columns in known:
            return rows, columns
    for patches in known[:1] if dialect.has_class_row else known:
        if side := side_of(patches):
            return side, side
    raise CheckpointError(
        f"{where}: {tokens} positions make no square.\n"
        f"Pass image_size=(height, width) {on_command_line('--set image_size=...')}."
    )


def _encoder(where: str, tensors: Mapping[str, LazyArray]) -> Fields:
    """What the shapes of the encoder say."""
    hidden, channels, height, width = _shape(where, tensors, _PROJECTION, 4)
    mlp, _ = _shape(where, tensors, "encoder.layer.0.intermediate.dense.weight", 2)
    _, inner = _shape(where, tensors, "encoder.layer.0.output.dense.weight", 2)
    if mlp not in (inner, 2 * inner):
        raise CheckpointError(
            f"{where}: encoder.layer.0: an MLP {mlp} wide, of which {inner} are read: expected all, or half of a gated "
            "one.\nThe file is damaged, or of two models."
        )
    return {
        "model_type": "vit",
        "hidden_size": hidden,
        "num_channels": channels,
        "patch_size": height if height == width else [height, width],
        "intermediate_size": mlp,
        "num_hidden_layers": _layers(where, tensors, "encoder.layer."),
        "qkv_bias": "encoder.layer.0.attention.attention.query.bias" in tensors,
        "use_swiglu_ffn": mlp == 2 * inner,
        "use_class_token": "embeddings.cls_token" in tensors,
        "num_register_tokens": _registers(where, tensors),
    }


def _registers(where: str, tensors: Mapping[str, LazyArray]) -> int:
    name = "embeddings.register_tokens"
    return _shape(where, tensors, name, 3)[1] if name in tensors else 0


def _pooling(where: str, tensors: Mapping[str, LazyArray], fields: Mapping[str, Any]) -> Fields:
    """What heads read, and where the final norm stands: by the norms that are there, or as config.json says.

    Raises:
        CheckpointError: config.json says otherwise.
    """
    head = tensors.get("classifier.weight")
    if head is not None and head.shape[1:] == (2 * fields["hidden_size"],) and fields["use_class_token"]:
        return {**OF_DINOV2_HEADS}
    is_of_mean, said = "pooler.layernorm.weight" in tensors, fields.get("use_mean_pooling")
    if is_of_mean and said is False:
        raise CheckpointError(f"{where}: a norm of the mean (fc_norm), and config.json says global_pool 'token'.")
    pools_mean = is_of_mean or bool(said) or not fields["use_class_token"]
    is_before = fields.get("norm_before_pooling", pools_mean and not is_of_mean)
    return {"use_mean_pooling": pools_mean, "norm_before_pooling": is_before}


def _decoder(
    where: str, dialect: Dialect, tensors: Mapping[str, LazyArray], given: Mapping[str, Any], model: str | None
) -> Fields:
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
    if sizes in KNOWN_DECODERS:
        fields["decoder_num_attention_heads"] = KNOWN_DECODERS[sizes]
    _ask(
        where, fields, given, "decoder_num_attention_heads", f"a decoder of {sizes[1]} layers of {hidden} is not known"
    )
    for (start, end), said in dialect.published.items():
        name = Path(where).name
        if name.startswith(start) and name.endswith(end):
            fields |= said
    _ask(where, fields, given, "norm_pix_loss", "no tensor tells whether it reconstructs normalised pixels")
    return fields


def _ask(where: str, fields: Fields, given: Mapping[str, Any], name: str, why: str) -> None:
    if name not in fields and given.get(name) is None:
        option = "--heads" if name == "num_attention_heads" else f"--set {name}=..."
        raise CheckpointError(
            f"{where}: {name} is not in the file, and {why}.\nPass {name}= {on_command_line(option)}."
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
    for dialect in DIALECTS:
        key = dialect.config_key
        if key and dialect.read_config and isinstance(data.get(key), str):
            return dialect.read_config(where, data)
    return {}


def _labels(where: str, data: Mapping[str, Any], classes: int | None) -> Fields:
    """The labels that the program's own configuration names; else one for each class.

    Raises:
        ConfigError: they are not labels for just these classes.
    """
    readers = (dialect.read_labels for dialect in DIALECTS if dialect.read_labels and dialect.config_key in data)
    if found := next((said for read in readers if (said := read(data))), None):
        name, labels = found
        try:
            return {"id2label": label_table(f"{where}: config.json: {name}", labels, classes=classes)}
        except ConfigError as error:
            raise ConfigError(f"{error}.\nMend {name} there, or pass id2label= with the labels.") from None
    return {} if classes is None else {"id2label": [f"LABEL_{index}" for index in range(classes)]}
