"""Registers the output classes with Keras, so that they pass functional models, `predict` and `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import optree

from vit_core.outputs import OUTPUTS, ModelOutput


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str], list[str]]:
    return list(output.values()), list(output.keys()), list(output.keys())


def _unflatten_as(cls: type[ModelOutput]) -> Callable[[list[str], Iterable[Any]], ModelOutput]:
    return lambda names, values: cls(**dict(zip(names, values, strict=True)))


def register() -> None:
    """Makes every output class a tree whose leaves are the fields that are present."""
    for cls in OUTPUTS:
        register: Any = optree.register_pytree_node  # whose types know collections only
        register(cls, _flatten, _unflatten_as(cls), namespace="keras")
