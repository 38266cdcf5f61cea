"""Folds: computing steps that only other programs have, worked into canonical tensors so that outputs stay the same.

What one family of programs does alone is in its module of `conversion.dialects`; here is what several do. Nothing is
read before it is asked for. Formulas: docs/reference/conversion.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from operator import itemgetter

import numpy as np

from conversion.dialect import Tensors
from conversion.naming import template
from vit_core.errors import CheckpointError
from vit_core.files.arrays import LazyArray
from vit_core.parameters import BASE_PREFIX
from vit_core.plain_values import name_list
from vit_core.tensors import Array

# What can be left out on request: outputs then change.
LOSSY = {
    "distillation": "a distillation token (dist_token) takes part in attention, which no ViT here has",
    "numerics": "its programs compute with other constants",
    "pre_logits": "a layer with tanh (pre_logits) stands between class token and head; a ViTModel has it as its pooler",
}
_QKV = ("query", "key", "value")
# End of the name of a LayerScale -> the layer before it.
_SCALED = {"layer_scale1.lambda1": "attention.output.dense", "layer_scale2.lambda1": "output.dense"}
_WITH_BIAS = ("attention.output.dense", "intermediate.dense", "output.dense", "projection")


def unstacked(tensors: Tensors, mark: str, single: str, layers: int) -> Tensors:
    """The tensors of scanned blocks, one per layer instead of all layers on a leading axis.

    Args:
        mark: what stands in the names of such tensors.
        single: what stands there in the name of one layer's.
        layers: at most so many.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        if mark not in name or not tensor.shape or tensor.shape[0] > layers:
            found[name] = tensor
            continue
        for i in range(tensor.shape[0]):
            found[name.replace(mark, single.replace("{i}", str(i)))] = mapped(tensor, itemgetter(i))
    return found


def mapped(tensor: LazyArray, change: Callable[[Array], Array]) -> LazyArray:
    """A tensor to which a function is applied when it is read; the new shape is known without reading."""
    shape = change(np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)).shape
    return LazyArray(tensor.dtype, shape, lambda: change(tensor.read()))


def check_allowed(where: str, step: str, allow: Collection[str]) -> None:
    """Raises unless the caller allowed a step that changes outputs."""
    if step not in allow:
        raise CheckpointError(
            f"{where}: {LOSSY[step]}.\n"
            f"allow=({step!r},) (--allow {step}) goes on all the same; the outputs then differ."
        )


def scales(where: str, found: Tensors, layers: int) -> list[str]:
    """LayerScale multiplies the output of a branch: so may the last linear layer of the branch.

    Args:
        found: tensors by canonical name, changed in place.
        layers: of the encoder, each of which has two.

    Raises:
        CheckpointError: some branches have a LayerScale and some have none, or one is of another width.
    """
    names = [name for name in found if name.endswith(tuple(_SCALED))]
    if names and len(names) != 2 * layers:
        raise CheckpointError(
            f"{where}: {name_list(names, 1)}: LayerScale of {len(names)} branches, expected {2 * layers} or none.\n"
            "Some are lost, or folded into the weights already: take the file as its program wrote it."
        )
    for name in names:
        scale = found.pop(name)
        layer, _, ending = name.rpartition(".layer_scale")
        for tensor in ("weight", "bias"):
            target = f"{layer}.{_SCALED[f'layer_scale{ending}']}.{tensor}"
            if target in found:
                found[target] = _product(where, target, found[target], scale)
    return [f"folded: {len(names)} LayerScales into the layers before them"] if names else []


def register_positions(found: Tensors, patches: int) -> list[str]:
    """Some programs have positions for registers too, which are sums of both as far as a model sees.

    Args:
        found: tensors by canonical name, with or without a prefix; changed in place.
        patches: how many the positions are for.
    """
    at = next((name.removesuffix("register_tokens") for name in found if name.endswith("register_tokens")), "")
    registers, table = (found.get(f"{at}{name}") for name in ("register_tokens", "position_embeddings"))
    if registers is None or table is None or len(registers.shape) != 3 or len(table.shape) != 3:
        return []
    first, count = int(f"{at}cls_token" in found), registers.shape[1]
    if table.shape[1:] != (first + count + patches, *registers.shape[2:]):
        return []
    found[f"{at}register_tokens"] = LazyArray(
        registers.dtype, registers.shape, lambda: registers.read() + table.read()[:, first : first + count]
    )
    gone = [*range(first, first + count)]
    found[f"{at}position_embeddings"] = mapped(table, lambda rows: np.delete(rows, gone, axis=1))
    return [f"folded: the positions of {count} registers into them"]


def _product(where: str, name: str, tensor: LazyArray, scale: LazyArray) -> LazyArray:
    """A tensor with every row multiplied; in float32 at least, since scales can be tiny."""
    if tensor.shape[:1] != scale.shape:
        raise CheckpointError(f"{where}: {name}: {tensor.shape} does not fit a scale of {scale.shape}.")
    dtype = np.promote_types(np.float32, np.promote_types(tensor.dtype, scale.dtype))

    def read() -> Array:
        rows = scale.read().astype(dtype).reshape(-1, *[1] * (len(tensor.shape) - 1))
        return np.asarray(tensor.read().astype(dtype) * rows)

    return LazyArray(dtype, tensor.shape, read)


def distillation(where: str, found: Tensors, allow: Collection[str]) -> list[str]:
    """The token and the head of distillation, and the position of the token, are left out where that is allowed."""
    names = [name for name in found if name.startswith("distillation.")]
    if not names:
        return []
    check_allowed(where, "distillation", allow)
    for name in names:
        del found[name]
    if positions := found.get("embeddings.position_embeddings"):  # class, distillation, patches
        found["embeddings.position_embeddings"] = mapped(positions, lambda table: np.delete(table, 1, axis=1))
    return [f"left out, as allowed: {LOSSY['distillation']}"]


def zero_biases(where: str, found: Tensors, allow: Collection[str]) -> list[str]:
    """Biases that a model was built without are zero: in every layer, or of keys where queries or values have one."""
    templates, added = {template(name) for name in found}, []
    for weight in [name for name in found if name.endswith(".weight")]:
        module = weight.removesuffix(".weight")
        attention, _, projection = module.rpartition(".")
        if projection in _QKV:
            is_zero = any(f"{attention}.{other}.bias" in found for other in _QKV)
        else:
            is_zero = module.endswith(_WITH_BIAS) and template(f"{module}.bias") not in templates
        if is_zero and f"{module}.bias" not in found:
            width, dtype = found[weight].shape[:1], found[weight].dtype
            found[f"{module}.bias"] = LazyArray(dtype, width, partial(np.zeros, width, dtype))
            added.append(f"{module}.bias")
    return [f"zero, since the model was built without: {name_list(added, 3)}"] if added else []


def dead_head(where: str, found: Tensors, allow: Collection[str]) -> list[str]:
    """Some files of the first release have a head of 21,843 classes that was never filled."""
    weight = found.get("classifier.weight")
    if weight is None or weight.read().any():
        return []
    found.pop("classifier.bias", None)
    del found["classifier.weight"]
    return ["left out: the classifier, which is all zero"]


def with_class_row(table: LazyArray, patches: int) -> LazyArray:
    """A position table that has a row for the class token: of zeros, where a program adds positions to patches only."""
    if len(table.shape) != 3 or table.shape[1] != patches:
        return table
    shape = (table.shape[0], patches + 1, table.shape[2])

    def read() -> Array:
        return np.concatenate([np.zeros((shape[0], 1, shape[2]), table.dtype), table.read()], axis=1)

    return LazyArray(table.dtype, shape, read)


def with_prefix(tensors: Tensors, heads: tuple[str, ...]) -> Tensors:
    """Canonical names as a class with a head has them, where there is a head."""
    if not any(name.startswith(heads) for name in tensors):
        return tensors
    return {name if name.startswith(heads) else BASE_PREFIX + name: tensor for name, tensor in tensors.items()}


def side_of(patches: int) -> int | None:
    """The side of a square of so many patches; None if they make no square."""
    side = math.isqrt(patches)
    return side if side and side * side == patches else None
