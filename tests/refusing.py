"""What refuses: a configuration, with its message, and the system, where this process has fewer rights."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vit_core.errors import ConfigError

NOBODY = 65534


def refusal(call: Callable[[], Any], error: type[Exception] = ConfigError) -> str:
    """The message of the error that a call raises: what it is about, then what is wrong."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.count("\n") < 3, message
    return message


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process has the rights of nobody, where it has more."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
