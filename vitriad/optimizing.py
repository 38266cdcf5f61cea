"""`optimize=` and `--optimize`: models of PyTorch that compute faster on a CPU."""

from __future__ import annotations

from argparse import ArgumentParser
from importlib import import_module
from typing import Any

from vitriad.backends import BACKENDS

DTYPES = ("float32", "bfloat16")


def add_option(parser: ArgumentParser) -> None:
    """The options that say it; they come as `optimize`: None, True or a dtype."""
    text = "compute faster on a CPU, with torch, by packed weights: the same numbers within 1e-5"
    parser.add_argument("--optimize", action="store_const", const=True, help=text)
    text = "the same, and what the layers compute in: bfloat16 is faster where the processor has it, and less exact"
    parser.add_argument("--optimize-dtype", dest="optimize", choices=DTYPES, help=text)


def optimized(model: Any, optimize: bool | str | None) -> Any:
    """A model that was loaded, optimised in place if asked for; see `vit_torch.optimize_for_inference`.

    Args:
        model: of any backend.
        optimize: True, or the dtype that its layers are to compute in.

    Raises:
        InputError: the model is of another backend, or it cannot be optimised.
    """
    if not optimize:
        return model
    from vit_core.errors import InputError  # only now: --help imports nothing

    if optimize is not True and optimize not in DTYPES:
        raise InputError(f"optimize: expected True, False, {' or '.join(map(repr, DTYPES))}, got {optimize!r}.")
    if model.framework != "pt":
        raise InputError(
            f"optimize: {type(model).__name__} is no model of PyTorch, and only those can be optimised in place.\n"
            "Take backend='torch' (--backend torch); TensorFlow and JAX compile their calls anyway."
        )
    dtype = None if optimize is True else getattr(import_module("torch"), optimize)
    return import_module(BACKENDS["torch"].package).optimize_for_inference(model, dtype)
