"""Recognises the dialect of a file by the names in it, or says why it is none that is known."""

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
from vit_core.plain_values import name_list, short

_SAMPLE = 2000  # names that settle a dialect
# The share of names that a dialect has to explain. The biases of a model that is named otherwise can be half of them.
_CLEAR = 2 / 3
_NESTED = 4  # words in front that a hint looks behind
_WORD = re.compile(r"[^./]+[./]")


class Recognised(NamedTuple):
    """The dialect of a file and which of its names belong to the model.

    Attributes:
        dialect: with the prefix that all names of the model share.
        inside: the names that may be the model's.
        outside: the names of other modules in the file.
    """

    dialect: Dialect
    inside: Collection[str]
    outside: Sequence[str]


def recognised(where: str, names: Collection[str], weights: str | None = None, asked: str | None = None) -> Recognised:
    """The dialect of a file, and the prefix of its model, by the names in it.

    The file must hold one whole encoder; any prefix may stand in front of its names, and other modules beside it. A
    file without a whole encoder passes if most of its names are of one dialect without a prefix: the error that follows
    can then name what is missing.

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
    """The dialect that explains the most names, if it explains a clear majority."""
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
        f"{where}: not a known dialect: of {of}, {said}; unknown are {name_list(strange, 3)}.\n"
        + (
            _hint(names, some)
            or "docs/reference/conversion.md says what is known. Rename the tensors, or save them from a known program."
        )
    )


def dropped(name: str, dialect: Dialect) -> str | None:
    """Why the dialect drops a tensor; None if it does not."""
    for start, reason in dialect.dropped.items():
        if name.startswith((start, dialect.prefix + start)):
            return reason
    return None


def heads_beside(names: Collection[str], dialect: Dialect) -> list[str]:
    """The names outside the model that would be those of its head if the head stood beside the encoder."""
    rows = [row for canonical, row in dialect.rows.items() if canonical.startswith(HEADS)]
    ends = tuple(cell.name if isinstance(cell, Part) else cell for row in rows for cell in row)
    found = [name for name in names if name.endswith(ends) and len(name) <= LONGEST]
    return [
        name
        for name in found
        if any(name.endswith(end) and dialect.prefix.startswith(name[: -len(end)]) for end in ends)
    ]


def _spread(names: Collection[str]) -> list[str]:
    """A sample of at most a few thousand names, taken at even distances."""
    return [*names][:: -(-len(names) // _SAMPLE)]


def _best(names: Sequence[str], dialects: Sequence[Dialect]) -> tuple[Dialect, int]:
    """The dialect that explains most of some names (of equals the first), and how many."""
    counts = [explained(names, dialect) for dialect in dialects]
    return dialects[counts.index(max(counts))], max(counts)


def _hint(names: Collection[str], some: Sequence[str]) -> str:
    """A hint what is missing, if most names are a known dialect's behind a common prefix; else an empty text."""
    prefix = ""
    for _ in range(_NESTED):
        words = Counter(found[0] for name in some if (found := _WORD.match(name, len(prefix))))
        word, count = words.most_common(1)[0] if words else ("", 0)
        if count < _CLEAR * len(some):
            break
        prefix += word
        some = [name for name in some if name.startswith(prefix)]
        dialect, explains = _best(some, [replace(dialect, prefix=prefix) for dialect in DIALECTS])
        has_inner = any(name.startswith(prefix + dialect.encoder_prefix) for name in some)
        missing = lacking(names, prefix + dialect.encoder_prefix * has_inner, matrices_of(dialect))
        if explains >= _CLEAR * len(some) and missing:
            return (
                f"Behind {short(prefix)} are names of {dialect.name!r}, but of no whole model: "
                f"{name_list([missing])} is missing."
            )
    return ""
