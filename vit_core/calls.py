"""The types of a call of a model: what type checkers know of it, read off the method that does the work.

Calls are typed by what they return unless asked for tuples. With return_dict=False the same type is stated, of which
indices and iteration are untyped: an overload for that value would be taken for every `model(**inputs)`.
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
    """The method itself, of which type checkers then know what it returns."""
    return cast("Callable[Concatenate[Model, Arguments], Output]", method)
