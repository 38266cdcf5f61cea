"""Groups of parameters: which are decayed, and by how much slower the early layers learn."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.parameters import parameter_table

DECAYED = ("linear", "heads_in", "heads_out", "conv")  # kinds of parameters; not biases, norms, tokens and positions


class Group(NamedTuple):
    """Parameters that one optimiser setting is for.

    Attributes:
        names: canonical names, in the order of the parameter table.
        weight_decay: 0.0 for what is not decayed.
        scale: factor of the learning rate.
    """

    names: tuple[str, ...]
    weight_decay: float
    scale: float


def parameter_groups(
    config: PretrainedConfig,
    cls: str | type,
    *,
    weight_decay: float,
    layer_decay: float = 1.0,
    freeze: Literal["encoder"] | int | None = None,
    **options: bool,
) -> list[Group]:
    """The trainable parameters of a model by weight decay and learning rate, the deepest layers last.

    Weights of linear layers and of the patch projection are decayed. Biases, norms, class and mask tokens, positions
    and what activations learn are not.

    Args:
        config: of the model.
        cls: a model class of any backend, or its name.
        weight_decay: of what is decayed.
        layer_decay: factor from each layer to the one before it, in (0, 1]. What follows the last layer has scale 1,
            the last layer has `layer_decay`, the embeddings have layer_decay ** (layers + 1).
        freeze: parameters to leave out: "encoder" for all but the heads; n for the embeddings and the first n layers.
        **options: as for `parameter_table`.

    Raises:
        InputError: a decay that is none, or layers that the model does not have.

    Source: the fine-tuning recipes of BEiT (Bao et al., 2021, appendix H) and MAE (He et al., 2021, appendix A.2).
    """
    if not (0 < layer_decay <= 1 and weight_decay >= 0):
        raise InputError(
            f"layer_decay, weight_decay: expected one in (0, 1] and 0 or more, got {layer_decay}, {weight_decay}."
        )
    layers = config.num_hidden_layers
    if freeze not in (None, "encoder", *range(layers + 1)):
        raise InputError(f"freeze: expected 'encoder' or a number of layers from 0 to {layers}, got {freeze!r}.")
    groups: dict[tuple[int, bool], list[str]] = {}
    for name, row in parameter_table(config, cls, **options).items():
        depth = depth_of(name, layers)
        is_frozen = row.part == "encoder" if freeze == "encoder" else freeze is not None and depth <= freeze
        if row.trainable and not is_frozen:
            group = depth if layer_decay < 1 else layers + 1
            groups.setdefault((group, row.kind in DECAYED), []).append(name)
    return [
        Group(tuple(names), weight_decay if is_decayed else 0.0, layer_decay ** (layers + 1 - depth))
        for (depth, is_decayed), names in sorted(groups.items())
    ]


def depth_of(name: str, layers: int) -> int:
    """How deep a parameter lies: 0 in the embeddings, i + 1 in layer i, layers + 1 in the last norm and every head."""
    if found := re.match(r"(?:vit\.)?encoder\.layer\.(\d+)\.", name):
        return int(found[1]) + 1
    return 0 if re.match(r"(?:vit\.)?embeddings\.", name) else layers + 1
