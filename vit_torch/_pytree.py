"""Registers the output classes with torch, so that they pass torch.compile, torch.export and torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils import _pytree

from vit_core.outputs import OUTPUTS, ModelOutput


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output.keys())


def _flatten_with_keys(output: ModelOutput) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(_pytree.MappingKey(name), value) for name, value in output.items()], list(output.keys())


def _unflatten_as(cls: type[ModelOutput]) -> Callable[[Iterable[Any], list[str]], ModelOutput]:
    return lambda values, names: cls(**dict(zip(names, values, strict=True)))


def register() -> None:
    """Makes every output class a pytree whose leaves are the fields that are present."""
    for cls in OUTPUTS:
        _pytree.register_pytree_node(
            cls,
            _flatten,
            _unflatten_as(cls),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )
