"""The types of a call of a model: what type checkers know of it, read off the method that does the work.

A call is typed as its output class, also with `return_dict=False`, which returns a tuple: with an overload for that
value, type checkers would choose it for every `model(**inputs)`. Indexing is untyped, so code for tuples still passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

Model = TypeVar("Model")
Arguments = ParamSpec("Arguments")
Output = TypeVar("Output", covariant=True)


class HasForward(Protocol[Arguments, Output]):
    """A model of PyTorch: calling it is calling `forward`."""

    def forward(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Output | tuple[Any, ...]:
        """What a call does."""


def documented(
    method: Callable[Concatenate[Model, Arguments], Output | tuple[Any, ...]],
) -> Callable[Concatenate[Model, Arguments], Output]:
    """The method itself; type checkers then know what calling the model returns."""
    return cast("Callable[Concatenate[Model, Arguments], Output]", method)
