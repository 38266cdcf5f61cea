"""What refuses: a configuration, with its message, and the system, where this process has fewer rights."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vit_core.errors import ConfigError

NOBODY = 65534


def refusal(build: Callable[[], Any]) -> str:
    """The message of the ConfigError that `build` raises: what it is about, then what is wrong."""
    with pytest.raises(ConfigError) as caught:
        build()
    message = str(caught.value)
    assert len(message.split("\n")) <= 3
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
