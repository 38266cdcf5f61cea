"""Patch projections of another shape than stored, brought to it where the caller asks: `adapt=` of loading.

What is computed is in `vit_core.projections`; here is what was asked for, what is needed, and what is said of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from vit_core.errors import InputError
from vit_core.parameters import Parameter
from vit_core.plain_values import short
from vit_core.projections import is_channel_rule, with_channels, with_patches
from vit_core.tensors import Array

ADAPTATIONS = ("channels", "patches")
PROJECTION = "embeddings.patch_embeddings.projection.weight"
# Heads that make pixels: of the channels and patches they were trained for, and of no others.
PIXEL_HEADS = ("decoder.0.", "decoder.decoder_pred.")


def asked(adapt: Any) -> tuple[str, ...]:
    """What `adapt=` names: one of ADAPTATIONS, or several.

    Raises:
        InputError: something else.
    """
    names = (adapt,) if isinstance(adapt, str) else adapt
    if names is None:
        return ()
    if not isinstance(names, Collection) or any(name not in ADAPTATIONS for name in names):
        raise InputError(f"adapt: expected {' or '.join(map(repr, ADAPTATIONS))}, or both, got {short(adapt)}.")
    return tuple(names)


def needed(row: Parameter, stored: Sequence[int]) -> tuple[str, ...]:
    """What would bring a stored patch projection to the shape of the class; () where nothing would or has to."""
    if not row.name.endswith(PROJECTION) or len(stored) != len(row.shape) or stored[0] != row.shape[0]:
        return ()
    differs = {"channels": stored[1] != row.shape[1], "patches": tuple(stored[2:]) != row.shape[2:]}
    if differs["channels"] and not is_channel_rule(stored[1], row.shape[1]):
        return ()
    return tuple(name for name in ADAPTATIONS if differs[name])


def adapted(kernel: Array, wanted: Sequence[int]) -> Array:
    """A patch projection in the shape that is wanted, float64."""
    _, channels, height, width = wanted
    return with_patches(with_channels(kernel, channels), (height, width))


def said(stored: Sequence[int], wanted: Sequence[int]) -> list[str]:
    """What was done to a patch projection and for which images it is exact, a line each."""
    (_, old, *before), (_, new, *after) = stored, wanted
    lines = []
    if old != new:
        lines.append(f"patch projection from {old} to {new} channels: {_of_channels(old, new)}")
    if before != after:
        is_larger = all(b <= a for b, a in zip(before, after, strict=True))
        exact = "exact for patches enlarged bilinearly one by one" if is_larger else "an approximation by least squares"
        sizes = "{} x {} to {} x {}".format(*before, *after)
        lines.append(f"patch projection from patches of {sizes}: pseudo-inverse of resizing, {exact}")
    return lines


def _of_channels(old: int, new: int) -> str:
    if new == 1:
        return "their sum, exact for images whose channels are all alike"
    exact = "an approximation" if new % old else f"exact for images whose channels repeat after {old}"
    return f"repeated, times {old}/{new}, {exact}"


def advice(needs: Sequence[str]) -> str:
    """How to ask for what is needed; the start of a sentence."""
    value = repr(needs[0]) if len(needs) == 1 else f"({', '.join(map(repr, needs))})"
    return f"adapt={value} ({' '.join(f'--adapt {name}' for name in needs)})"
