"""Registers the output classes with JAX, so that they pass jit, grad, vmap, scan and export."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from vit_core.outputs import OUTPUTS, ModelOutput


def _flatten(output: ModelOutput) -> tuple[list[Any], tuple[str, ...]]:
    return list(output.values()), tuple(output.keys())


def _flatten_with_keys(output: ModelOutput) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    return [(jax.tree_util.DictKey(name), value) for name, value in output.items()], tuple(output.keys())


def _unflatten_as(cls: type[ModelOutput]) -> Callable[[tuple[str, ...], Iterable[Any]], ModelOutput]:
    return lambda names, values: cls(**dict(zip(names, values, strict=True)))


def register() -> None:
    """Makes every output class a pytree whose leaves are the fields that are present."""
    for cls in OUTPUTS:
        jax.tree_util.register_pytree_with_keys(cls, _flatten_with_keys, _unflatten_as(cls), _flatten)
        jax.export.register_pytree_node_serialization(
            cls,
            serialized_name=f"{cls.__module__}.{cls.__name__}",
            serialize_auxdata=lambda names: ",".join(names).encode(),
            deserialize_auxdata=lambda text: tuple(filter(None, text.decode().split(","))),
        )
