"""How a convention lays tensors out: a function of the kind of the tensor, never of a single parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from vit_core.parameters import Kind

Array = np.ndarray[Any, np.dtype[Any]]

# convention -> kind -> order in which the stored axes become the canonical ones; a kind that is not listed is stored in
# the canonical layout. "torch" is the canonical convention itself.
AXES: dict[str, dict[Kind, tuple[int, ...]]] = {"torch": {}}


def to_canonical(array: Array, kind: Kind, convention: str) -> Array:
    """A stored tensor in the canonical layout, as a view."""
    axes = AXES[convention].get(kind)
    return array if axes is None or array.ndim != len(axes) else array.transpose(axes)
