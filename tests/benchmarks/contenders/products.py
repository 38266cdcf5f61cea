"""The floor of models: the matrix products of their shapes and nothing else, by one library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Product = tuple[int, tuple[int, ...], tuple[int, ...]]  # how often, left shape, right shape


def of_layers(batch: int, tokens: int, hidden: int, mlp: int, heads: int, layers: int) -> list[Product]:
    """Those of a Transformer's layers."""
    rows, head_dim = batch * tokens, hidden // heads
    return [
        (4 * layers, (rows, hidden), (hidden, hidden)),  # query, key, value, output
        (layers, (batch, heads, tokens, head_dim), (batch, heads, head_dim, tokens)),
        (layers, (batch, heads, tokens, tokens), (batch, heads, tokens, head_dim)),
        (layers, (rows, hidden), (hidden, mlp)),
        (layers, (rows, mlp), (mlp, hidden)),
    ]


def with_gradients(products: Iterable[Product]) -> list[Product]:
    """The products, and for each the two that its gradients are."""
    found = []
    for times, left, right in products:
        (*batch, m, k), n = left, right[-1]
        found += [
            (times, left, right),
            (times, (*batch, m, n), (*batch, n, k)),
            (times, (*batch, k, m), (*batch, m, n)),
        ]
    return found


def library(name: str) -> tuple[Callable[[tuple[int, ...]], Any], Callable[[Any, Any], Any]]:
    """A maker of random arrays of a shape, and the product of two, finished when it returns."""
    if name == "torch":
        import torch

        return torch.rand, torch.matmul
    if name == "TensorFlow":
        import tensorflow as tf

        return tf.random.uniform, tf.matmul
    import jax

    product = jax.jit(jax.numpy.matmul)
    return (lambda shape: jax.random.uniform(jax.random.key(0), shape)), lambda a, b: product(a, b).block_until_ready()


def floor(name: str, cases: Callable[[bool], dict[str, list[Product]]]) -> Callable[..., dict[str, Callable[[], None]]]:
    """A maker of the floor: by a library, for cases that depend on whether sizes are tiny."""

    def make(folder: Path, tiny: bool) -> dict[str, Callable[[], None]]:
        random, product = library(name)
        settled = {
            case: [(times, random(left), random(right)) for times, left, right in products]
            for case, products in cases(tiny).items()
        }

        def run(case: str) -> None:
            for times, left, right in settled[case]:
                for _ in range(times):
                    product(left, right)

        return {case: lambda case=case: run(case) for case in settled}

    return make
