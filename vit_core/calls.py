"""The types of a call of a model: what type checkers know of it, read off the method that does the work.

Nothing here has an effect while a program runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

Arguments = ParamSpec("Arguments")
Output = TypeVar("Output", covariant=True)


class Call(Protocol[Arguments, Output]):
    """A call that returns its outputs by name, or with return_dict=False as a tuple."""

    @overload
    def __call__(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Any, ...]: ...
    @overload
    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Output: ...


class HasForward(Protocol[Arguments, Output]):
    """A model of PyTorch: calling it is calling `forward`."""

    def forward(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Output | tuple[Any, ...]:
        """What a call does."""


def documented(
    method: Callable[Concatenate[Any, Arguments], Output | tuple[Any, ...]],
) -> Call[Arguments, Output]:
    """The method itself, of which type checkers then know what it returns."""
    return cast("Call[Arguments, Output]", method)
