"""Checkpoints in other programs' names, layouts and containers, written tensor by tensor as they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from conversion.detecting import kinds
from conversion.dialect import Dialect, Part, Target, Tensors
from conversion.families import form_of
from conversion.folds import check_allowed, mapped
from conversion.layouts import canonical_axes, from_canonical, split_heads
from conversion.naming import HEADS, template
from vit_core.config import PretrainedConfig
from vit_core.errors import CheckpointError
from vit_core.files import msgpack, npz, safetensors
from vit_core.files.arrays import LazyArray, contiguous
from vit_core.files.h5 import write_h5
from vit_core.files.saving import write_pieces
from vit_core.parameters import BASE_PREFIX
from vit_core.tensors import Array

Advance = Callable[[int], Any]


def expressed(
    dialect: Dialect,
    target: Target,
    model: str,
    config: PretrainedConfig,
    tensors: Mapping[str, LazyArray],
    allow: Collection[str],
) -> tuple[Tensors, list[str]]:
    """Tensors as a dialect has them, none of them read yet, and what it cannot say.

    Args:
        dialect, target: the dialect, and how it is written.
        model: the class, for messages.
        config: of the model.
        tensors: canonical name -> tensor.
        allow: "numerics" where the dialect's programs may compute with other constants than the model.

    Raises:
        CheckpointError: the dialect cannot express the model; by name and with the reason.
    """
    bare = {name.removeprefix(BASE_PREFIX): tensor for name, tensor in tensors.items()}
    _check_expressible(dialect, target, model, config, bare)
    if target.unfold:
        target.unfold(config, bare)
    notes = []
    for field, value in (dialect.numerics or {}).items():
        found = value if field == "hidden_act" and config.use_swiglu_ffn else getattr(config, field)
        if found != value and not (field == "hidden_act" and found in (target.activations or ())):
            change = f"{field} {found!r} becomes {value!r} in the dialect {dialect.name!r}"
            check_allowed(change, "numerics", allow)
            notes.append(f"{change}, as allowed")
    if target.container == "h5" and any(tensor.dtype == ml_dtypes.bfloat16 for tensor in bare.values()):
        notes.append("bfloat16 is stored as float32, which holds every value of it")
    whole: Tensors = {}
    thirds: dict[str, dict[int, LazyArray]] = {}
    for name, tensor in bare.items():
        number = next((word for word in name.split(".") if word.isdecimal()), "")
        cell = dialect.rows[template(name)][0]
        stored = _laid_out(tensor, name, dialect.convention, config)
        if isinstance(cell, Part):
            thirds.setdefault(cell.name.replace("{i}", number), {})[cell.third] = stored
        else:
            whole[cell.replace("{i}", number)] = stored
    whole |= {name: _joined(parts) for name, parts in thirds.items()}
    if target.prefix and any(name.startswith(HEADS) for name in bare):
        whole = {name if name.startswith(HEADS) else target.prefix + name: tensor for name, tensor in whole.items()}
    if form := form_of(config, model, whole) if dialect.is_canonical else None:
        whole = {form.names.get(name, name): tensor for name, tensor in whole.items()}
        for name, shape in form.shapes.items():
            if name in whole:
                whole[name] = mapped(whole[name], methodcaller("reshape", shape))
        dtype = next(iter(tensors.values())).dtype
        for name, (shape, value) in form.added.items():
            whole[name] = LazyArray(dtype, shape, partial(np.full, shape, value, dtype))
        notes.append(f"options of the family: stored as model_type {form.fields['model_type']}")
    return whole, notes


_WITHOUT = {  # parts that can stay behind -> how
    "mask token": "use_mask_token=False (--set use_mask_token=false) leaves it out; only masked modelling needs it.",
    "pooler": "add_pooling_layer=False (--set add_pooling_layer=false) leaves it out.",
}


def _check_expressible(dialect: Dialect, target: Target, model: str, config: PretrainedConfig, bare: Tensors) -> None:
    problem, advice = "", ""
    if model not in target.classes:
        problem = f"it has {', '.join(target.classes)} only"
        if model.startswith("ViTFor") and "ViTModel" in target.classes:
            advice = "cls='ViTModel' (--class ViTModel) writes the encoder alone."
    for tensor in bare if not problem else ():
        lacking = next((what for start, what in target.lacks.items() if tensor.startswith(start)), None)
        if lacking is None and template(tensor) not in dialect.rows:
            lacking = "activation with parameters"
        if lacking:
            problem, advice = f"it has no {lacking}, and the model has {tensor}", _WITHOUT.get(lacking, "")
    if target.needs_qkv_bias and not config.qkv_bias:
        problem = "queries, keys and values always have biases there, and in the model they have none"
    options = [name for name in config.family_options if name not in target.options]
    if not dialect.is_canonical and options:
        problem, advice = f"it has no {', '.join(options)}", "to='hf' (--to hf) keeps every option."
    if not dialect.is_canonical and any(config.pruned_heads.values()):
        problem = "it has no pruned heads, and the model has"
    if target.activations is not None and config.mlp_act not in (*target.activations, "swiglu"):
        problem = f"it does not know the activation {config.hidden_act!r}"
    if problem:
        raise CheckpointError(f"{model} as {dialect.name!r}: {problem}." + (advice and f"\n{advice}"))


def _laid_out(tensor: LazyArray, name: str, convention: str, config: Any) -> LazyArray:
    kind = kinds().get(template(name), "scalar")
    heads = config.num_attention_heads  # no dialect with an axis for heads has a decoder

    def read() -> Array:
        array = from_canonical(contiguous(tensor.read()), kind, convention)
        return split_heads(array, kind, heads) if convention == "heads" else array

    shape = tuple(tensor.shape[axis] for axis in canonical_axes(kind, convention) or range(len(tensor.shape)))
    if convention == "heads":
        shape = split_heads(np.broadcast_to(np.False_, shape), kind, heads).shape
    return LazyArray(tensor.dtype, shape, read)


def _joined(parts: Mapping[int, LazyArray]) -> LazyArray:
    """Queries, keys and values in a row."""
    thirds = [parts[i] for i in range(3)]
    rows, *rest = thirds[0].shape
    return LazyArray(thirds[0].dtype, (3 * rows, *rest), lambda: np.concatenate([part.read() for part in thirds]))


# --- containers ------------------------------------------------------------------------------------------------------


def _write_safetensors(path: Path, tensors: Tensors, scope: str, advance: Advance) -> dict[str, Any]:
    return write_pieces(path, safetensors.serialised(tensors, advance, metadata=None))


def _write_npz(path: Path, tensors: Tensors, scope: str, advance: Advance) -> dict[str, Any]:
    return write_pieces(path, npz.serialised(tensors, advance))


def _write_msgpack(path: Path, tensors: Tensors, scope: str, advance: Advance) -> dict[str, Any]:
    return write_pieces(path, msgpack.serialised(tensors, advance))


def _write_h5(path: Path, tensors: Tensors, scope: str, advance: Advance) -> dict[str, Any]:
    return write_h5(path, tensors, scope, advance)


# path, tensors, the group that an HDF5 file has them in, advance
WRITERS: dict[str, Callable[[Path, Tensors, str, Advance], dict[str, Any]]] = {
    "safetensors": _write_safetensors,
    "npz": _write_npz,
    "msgpack": _write_msgpack,
    "h5": _write_h5,
}
