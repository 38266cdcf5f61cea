"""What a model looks at, in NumPy: attention rollout, maps of the class token's attention, colours of patch features.

Arguments are outputs of a model of any backend, as NumPy arrays or the backend's tensors. Axis words: batch, layers,
heads, tokens (class token, registers, patches), hidden; rows and columns of the patch grid, rows * columns = patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.tensors import Array, to_numpy

Grid = tuple[int, int]


def rollout(attentions: Sequence[Any], grid: Grid | None = None, *, config: PretrainedConfig | None = None) -> Array:
    """How much every patch reaches the class token, or the mean of the patches without one, through all layers.

    Attention is averaged over the heads; half of what a token becomes is what it was (the residual connection); the
    matrices of all layers are multiplied.

    Args:
        attentions: `output.attentions`: for each layer (batch, heads, tokens, tokens).
        grid: (rows, columns) of the patches; None for a square.
        config: of the model; None for one class token in front of the patches.

    Returns:
        (batch, rows, columns), float64; the sum of each image is at most 1, the rest is the class token's own share.

    Raises:
        InputError: no attentions, or another number of patches than the grid has.

    Source: Abnar and Zuidema, Quantifying attention flow in transformers, 2020.
    """
    layers = _checked(attentions)
    found = np.broadcast_to(np.eye(layers[0].shape[-1]), (len(layers[0]), *layers[0].shape[2:]))
    for layer in layers:
        mixed = layer.mean(axis=1) + np.eye(layer.shape[-1])
        found = (mixed / mixed.sum(axis=-1, keepdims=True)) @ found
    return _on_grid(_read(found, config), grid)


def class_maps(attentions: Sequence[Any], grid: Grid | None = None, *, config: PretrainedConfig | None = None) -> Array:
    """The attention that the class token, or the patches on average without one, pay to every patch.

    Args:
        attentions, grid, config: as for `rollout`.

    Returns:
        (layers, batch, heads, rows, columns), float64.

    Raises:
        InputError: as `rollout`; layers of different numbers of heads, as pruned models have them.
    """
    layers = _checked(attentions)
    if len({layer.shape[1] for layer in layers}) > 1:
        raise InputError("class_maps: layers have different numbers of heads; give one layer at a time: [layer].")
    return _on_grid(_read(np.stack(layers), config), grid)


def patch_pca(
    tokens: Any, grid: Grid | None = None, components: int = 3, *, config: PretrainedConfig | None = None
) -> Array:
    """The directions in which the patch features of some images differ most, as numbers from 0 to 1: colours, if three.

    Equal parts of different images get equal colours, since the directions are those of all images together. Which way
    is up on a direction is settled by its largest entry, so every backend gives the same picture.

    Args:
        tokens: `output.last_hidden_state`, (batch, tokens, hidden).
        grid: (rows, columns) of the patches; None for a square.
        components: how many directions, at most `hidden`.
        config: as for `rollout`.

    Returns:
        (batch, rows, columns, components), float64. Each component is cut at its 1st and 99th hundredth.

    Raises:
        InputError: tokens of another shape, or more components than there are.
    """
    patches = to_numpy(tokens).astype(np.float64)
    if patches.ndim != 3 or patches.shape[1] < 2:
        raise InputError(f"patch_pca: tokens: expected (batch, tokens, hidden), got {patches.shape}.")
    patches = patches[:, _prefix(config) :]
    if not 1 <= components <= patches.shape[2]:
        raise InputError(f"patch_pca: components: expected 1 to {patches.shape[2]}, got {components!r}.")
    flat = patches.reshape(-1, patches.shape[2])
    centred = flat - flat.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1][:, :components]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(components)])
    found = centred @ directions
    low, high = np.percentile(found, [1, 99], axis=0)
    shares = ((found - low) / np.where(high > low, high - low, 1)).clip(0, 1)
    return _on_grid(shares.reshape(*patches.shape[:2], components).transpose(0, 2, 1), grid).transpose(0, 2, 3, 1)


def _checked(attentions: Sequence[Any]) -> list[Array]:
    """The attentions of all layers, float64."""
    if attentions is None or not len(attentions):
        raise InputError("attentions: expected one array for each layer; call the model with output_attentions=True.")
    layers = [to_numpy(layer).astype(np.float64) for layer in attentions]
    for layer in layers:
        if layer.ndim != 4 or layer.shape[2] != layer.shape[3] or layer.shape[2] < 2:
            raise InputError(f"attentions: expected (batch, heads, tokens, tokens), got {layer.shape}.")
    return layers


def _prefix(config: PretrainedConfig | None) -> int:
    """How many tokens stand in front of the patches."""
    return 1 if config is None else config.num_prefix_tokens


def _read(maps: Array, config: PretrainedConfig | None) -> Array:
    """(..., tokens, tokens) as what reaches the class token, or patches on average without one: (..., patches)."""
    first = _prefix(config)
    has_class_token = config is None or config.use_class_token
    return maps[..., 0, first:] if has_class_token else maps[..., first:, first:].mean(axis=-2)


def _on_grid(patches: Array, grid: Grid | None) -> Array:
    """(..., patches) as (..., rows, columns)."""
    count = patches.shape[-1]
    rows, columns = grid or (round(count**0.5),) * 2
    if rows * columns != count:
        raise InputError(f"grid: {count} patches do not make {rows} x {columns}; pass grid=(rows, columns).")
    return patches.reshape(*patches.shape[:-1], rows, columns)
