"""What `make bench` measures: groups of contenders. Nothing here needs more than Python until a contender is made."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HOMES = {  # environments of peers -> the package that tells them, in the version that is measured
    "hf4": ("transformers", "4.57.6"),
    "hf5": ("transformers", "5.24.0"),
    "timm": ("timm", "1.0.31"),
}


class Contender(NamedTuple):
    """One of those that are measured in turns.

    Attributes:
        make: a folder of the group's files, and whether sizes are tiny -> case -> function. It is timed, unless
            it returns a number, which is taken as it is: seconds, or bytes where the case is of memory.
        role: "floor", "ours" or "peer".
        of: the floor of one of ours, in place of the fastest; the one of ours that a peer is compared with.
        home: the environment of a peer; "" is our own.
    """

    make: Callable[[Path, bool], dict[str, Callable[[], Any]]]
    role: str
    of: str = ""
    home: str = ""


class Group(NamedTuple):
    """Contenders that do the same.

    Attributes:
        prepare: makes the files of the group, once, in a process of its own.
        is_fresh: a new process for every turn, since it is the first call that counts.
        is_asked_for: measured only where it is named.
    """

    title: str
    contenders: dict[str, Contender]
    prepare: Callable[[Path, bool], None] | None = None
    is_fresh: bool = False
    is_asked_for: bool = False


def without_other_frameworks() -> None:
    """So that transformers imports torch alone, as where nothing else is installed."""
    os.environ.update({"USE_TF": "0", "USE_FLAX": "0"})


def groups() -> dict[str, Group]:
    """All groups by name, in the order of the page."""
    from benchmarks.contenders import embedding, forward, growth, importing, loading, preprocessing, training

    return {
        **forward.GROUPS,
        **training.GROUPS,
        **loading.GROUPS,
        **importing.GROUPS,
        **preprocessing.GROUPS,
        **embedding.GROUPS,
        **growth.GROUPS,
    }
