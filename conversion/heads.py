"""The number of attention heads: of models of known sizes, and from files where the heads have an axis of their own.

All tensors of a file have to agree on such an axis. Joined with its neighbour, an axis of heads leaves no trace in the
shape, so heads that stand in the wrong place would load, and every one of them would be of parts of others.

Source: the papers' and the programs' own tables of sizes; vision_transformer c6de1e53.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from conversion.naming import Names, template
from vit_core.errors import CheckpointError
from vit_core.files.arrays import LazyArray
from vit_core.parameters import Kind
from vit_core.plain_values import name_list, short

# (hidden_size, num_hidden_layers, intermediate_size) -> heads. A width alone does not tell.
KNOWN: dict[tuple[int, int, int], int] = {
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
    (1536, 40, 8192): 24,  # giant of DINOv2, with a gated MLP
    (1664, 48, 8192): 16,  # G
    (1792, 56, 15360): 16,  # e
}
KNOWN_DECODERS = {(512, 8, 2048): 16}  # of MAE, for encoders of every size

# Kind of a tensor -> its number of axes, and which two of them are heads and head_dim.
_AXES: dict[Kind, tuple[int, slice]] = {
    "heads_in": (3, slice(1, 3)),  # (hidden, heads, head_dim)
    "heads_out": (3, slice(0, 2)),  # (heads, head_dim, hidden)
    "heads_bias": (2, slice(0, 2)),  # (heads, head_dim)
}


def shown_heads(
    where: str, tensors: Mapping[str, LazyArray], names: Names, kinds: Mapping[str, Kind]
) -> dict[str, int]:
    """The number of heads that the tensors of a file show, as a field of a configuration; {} where none does.

    Args:
        where: the file, for messages.
        tensors: name in the file -> tensor.
        names: canonical name without prefix -> name in the file.
        kinds: template of a canonical name -> kind of its tensor.

    Raises:
        CheckpointError: a tensor shows something else than most; of these the first, by name.
    """
    shown: dict[str, tuple[int, ...] | None] = {}
    for canonical, name in sorted(names.items(), key=_place):
        kind = kinds.get(template(canonical))
        if kind in _AXES and isinstance(name, str):
            axes, pair = _AXES[kind]
            shape = tensors[name].shape
            shown[name] = shape[pair] if len(shape) == axes else None
    counts = Counter(pair for pair in shown.values() if pair is not None)
    if not counts:
        return {}
    (most, _), *_ = counts.most_common(1)
    for name, found in shown.items():
        if found != most:
            heads, head_dim = most
            got = "no axis for them" if found is None else "{} of {}".format(*found)
            raise CheckpointError(
                f"{where}: {name_list([name])}: shape {tensors[name].shape}: expected {heads} heads of {head_dim}, as "
                f"{counts[most]} of {len(shown)} tensors have them, got {got}.\n"
                "Axes in another order scramble the heads; export the model again with the program that made it."
            )
    return {"num_attention_heads": most[0]}


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    """Sorts by the number of the layer, then by name."""
    return next((int(word) for word in item[0].split(".") if word.isdecimal()), -1), item[0]


def check_heads(where: str, shown: int, names: Mapping[str, str], said: object, by: str) -> None:
    """Checks the number of heads that a configuration says against the one that the tensors show.

    Args:
        names: canonical name -> name in the file.
        said: what the configuration says.
        by: whose word that is, for the message.

    Raises:
        CheckpointError: they differ.
    """
    if said != shown:
        first = next(stored for name, stored in names.items() if name.endswith("attention.query.weight"))
        raise CheckpointError(
            f"{where}: {name_list([first])} has an axis of {shown} heads; num_attention_heads is {short(said)} {by}.\n"
            "Leave it out: the weights tell."
        )
