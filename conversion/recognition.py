"""Which dialect the names of a file are of, or that they are of none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from conversion.dialect import Dialect, Part
from conversion.dialects import DIALECTS
from conversion.marks import refuse_marked
from conversion.naming import HEADS, LONGEST, explained, understood
from conversion.towers import chosen, lacking, matrices_of, split, towers
from vit_core.errors import CheckpointError
from vit_core.plain_values import listed

_SAMPLE = 2000  # names that settle a dialect
# The share of names that a dialect has to explain. The biases of a model that is named otherwise can be half of them.
_CLEAR = 2 / 3
_NESTED = 4  # words in front that a hint looks behind
_WORD = re.compile(r"[^./]+[./]")


class Recognised(NamedTuple):
    """What the names of a file are.

    Attributes:
        dialect: whose names they are, with the prefix that all of the model's have.
        inside: the names that may be the model's.
        outside: the names of other modules in the file.
    """

    dialect: Dialect
    inside: Collection[str]
    outside: Sequence[str]


def recognised(where: str, names: Collection[str], weights: str | None = None, asked: str | None = None) -> Recognised:
    """The dialect of a file, and the prefix of its model, by the names in it, in which others are looked up.

    The file holds one whole encoder, whatever stands in front of its names and beside it; or, if none is whole, a clear
    majority of names of one dialect without a prefix, so that what is missing can be said.

    Args:
        weights, asked: see `conversion.towers.chosen`.

    Raises:
        CheckpointError: neither; or several encoders, of which none is chosen; or a name tells of another model.
    """
    if not names:
        raise CheckpointError(f"{where}: no tensors in it.")
    found = towers(names)
    if not found:
        dialect = _majority(where, names)
        chosen(where, {"": (dialect,)}, weights, asked)  # there is nothing to choose
        return Recognised(dialect, names, [])
    prefix = chosen(where, found, weights, asked)
    is_all = not prefix and len(found) == 1
    inside, outside = (names, []) if is_all else split(names, prefix, found)
    candidates = [replace(dialect, prefix=prefix) for dialect in found[prefix]]
    return Recognised(_best(_spread(inside), candidates)[0], inside, outside)


def _majority(where: str, names: Collection[str]) -> Dialect:
    """The dialect of most names, where it is that of nearly all."""
    some = _spread(names)
    dialect, count = _best(some, DIALECTS)
    left = sum(dropped(name, dialect) is not None for name in some)
    if count and count + left >= _CLEAR * len(some):
        return dialect
    known = understood(some, dialect)
    strange = [name for name in some if name not in known]
    refuse_marked(where, strange)
    said = f"{dialect.name!r} explains {count}, and no other dialect more" if count else "no dialect explains any"
    of = f"{len(some)} names" if len(some) == len(names) else f"{len(some)} of its {len(names)} names"
    raise CheckpointError(
        f"{where}: not a known dialect: of {of}, {said}; unknown are {listed(strange, 3)}.\n"
        + (
            _hint(names, some)
            or "docs/reference/conversion.md says what is known. Rename the tensors, or save them from a known program."
        )
    )


def dropped(name: str, dialect: Dialect) -> str | None:
    """Why a tensor means nothing to a model, where the dialect says so."""
    for start, reason in dialect.dropped.items():
        if name.startswith((start, dialect.prefix + start)):
            return reason
    return None


def heads_beside(names: Collection[str], dialect: Dialect) -> list[str]:
    """The names, among those of other modules, that a head of the model would have if it stood beside the encoder."""
    rows = [row for canonical, row in dialect.rows.items() if canonical.startswith(HEADS)]
    ends = tuple(cell.name if isinstance(cell, Part) else cell for row in rows for cell in row)
    found = [name for name in names if name.endswith(ends) and len(name) <= LONGEST]
    return [
        name
        for name in found
        if any(name.endswith(end) and dialect.prefix.startswith(name[: -len(end)]) for end in ends)
    ]


def _spread(names: Collection[str]) -> list[str]:
    """A few thousand names at most, spread over all."""
    return [*names][:: -(-len(names) // _SAMPLE)]


def _best(names: Sequence[str], dialects: Sequence[Dialect]) -> tuple[Dialect, int]:
    """The dialect that explains most of some names (of equals the first), and how many."""
    counts = [explained(names, dialect) for dialect in dialects]
    return dialects[counts.index(max(counts))], max(counts)


def _hint(names: Collection[str], some: Sequence[str]) -> str:
    """What is missing where names are a known dialect's but for words in front of most."""
    prefix = ""
    for _ in range(_NESTED):
        words = Counter(found[0] for name in some if (found := _WORD.match(name, len(prefix))))
        word, count = words.most_common(1)[0] if words else ("", 0)
        if count < _CLEAR * len(some):
            break
        prefix += word
        some = [name for name in some if name.startswith(prefix)]
        dialect, explains = _best(some, [replace(dialect, prefix=prefix) for dialect in DIALECTS])
        has_inner = any(name.startswith(prefix + dialect.inner) for name in some)
        missing = lacking(names, prefix + dialect.inner * has_inner, matrices_of(dialect))
        if explains >= _CLEAR * len(some) and missing:
            return (
                f"Behind {prefix[:80]!r} are names of {dialect.name!r}, but of no whole model: {listed([missing])} is "
                "missing."
            )
    return ""
