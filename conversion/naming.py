"""From the names of a dialect to canonical ones, by the templates of its table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from conversion.dialect import Dialect, Part, Row
from vit_core.errors import CheckpointError
from vit_core.parameters import BASE_PREFIX
from vit_core.plain_values import name_list

# Parts that a file may lack, or have although the class does not. Heads stand beside the encoder, never inside it.
HEADS = ("classifier.", "decoder.")
EXCHANGEABLE = (*HEADS, "pooler.", "embeddings.mask_token")

LONGEST = 1000  # characters; a longer name is no parameter's, and matching it would take long
_DIGITS = 4  # of a layer's number at most
_NUMBER = re.compile("[0-9]+")
_ANY_NUMBER = re.compile(r"(?:[0-9]|\{[ci]\})+")

Names = dict[str, str | Part]


class _Spellings(NamedTuple):
    """The names of a dialect, with an index that rejects unknown names quickly: a file may have 100,000 of them.

    Attributes:
        rows: template of the dialect -> canonical templates, each with the third of the tensor that it is.
        outlines: the templates without their numbers.
        endings: their last words; None where one of these holds the number of a layer.
    """

    rows: Mapping[str, list[tuple[str, int | None]]]
    outlines: frozenset[str]
    endings: frozenset[str] | None


def canonical_names(where: str, names: Iterable[str], dialect: Dialect) -> tuple[Names, list[str]]:
    """Understands the names of a file.

    Returns:
        canonical name -> name in the file, or the part of a tensor there; and the names that mean nothing. In a
        canonical dialect the names keep the prefix that they have in the file; elsewhere they have none.

    Raises:
        CheckpointError: two names mean the same parameter.
    """
    spellings = _spellings(dialect)
    found: dict[str, tuple[str, str | Part]] = {}  # keyed without the prefix
    unexplained = []
    for name in names:
        if spellings.endings is not None and name.rpartition("/")[2].rpartition(".")[2] not in spellings.endings:
            unexplained.append(name)  # without a call: there can be 100,000 of them
            continue
        understood = _understood(name, spellings, dialect)
        if not understood:
            unexplained.append(name)
        for canonical, cell in understood:
            bare = canonical.removeprefix(BASE_PREFIX)
            if bare in found:
                both = name_list([str(getattr(other, "name", other)) for other in (found[bare][1], cell)])
                raise CheckpointError(f"{where}: two names for the same parameter: {both}.\nRemove one of them.")
            found[bare] = (canonical, cell)
    return dict(found.values()), unexplained


def explained(names: Iterable[str], dialect: Dialect) -> int:
    """How many of these names mean something in a dialect."""
    spellings = _spellings(dialect)
    return sum(bool(_understood(name, spellings, dialect)) for name in names)


def understood(names: Iterable[str], dialect: Dialect) -> dict[str, set[str]]:
    """The names that mean something in a dialect, each with the templates of the canonical names it stands for."""
    spellings = _spellings(dialect)
    found = {
        name: {template(each.removeprefix(BASE_PREFIX)) for each, _ in _understood(name, spellings, dialect)}
        for name in names
    }
    return {name: templates for name, templates in found.items() if templates}


def template(bare: str) -> str:
    """A canonical name with the number of its layer taken out."""
    if bare.startswith("decoder.0."):  # a list of one, of masked image modelling
        return bare
    number = next((word for word in bare.split(".") if word.isdecimal()), "")
    return bare.replace(f".{number}.", ".{i}.", 1)


@lru_cache(maxsize=64)
def _spellings(dialect: Dialect) -> _Spellings:
    found: dict[str, list[tuple[str, int | None]]] = {}
    tables: tuple[Mapping[str, Row], ...] = (dialect.rows, dialect.folded)
    for canonical, row in (item for table in tables for item in table.items()):
        for cell in row:
            name, third = cell if isinstance(cell, Part) else (cell, None)
            found.setdefault(name, []).append((canonical, third))
    endings = frozenset(map(_ending, found))
    has_numbers = any("{" in ending for ending in endings)
    return _Spellings(found, frozenset(map(_outline, found)), None if has_numbers else endings)


def _outline(name: str) -> str:
    """A name or template without its numbers."""
    return _ANY_NUMBER.sub("#", name)


def _ending(name: str) -> str:
    """The last word of a name or template."""
    return name.rpartition("/")[2].rpartition(".")[2]


def _understood(name: str, spellings: _Spellings, dialect: Dialect) -> list[tuple[str, str | Part]]:
    """The canonical names that a name stands for, with what it is of each."""
    if len(name) > LONGEST or (spellings.endings is not None and _ending(name) not in spellings.endings):
        return []
    if not name.startswith(dialect.prefix):
        return []
    short = name.removeprefix(dialect.prefix)
    for bare in dict.fromkeys((short, short.removeprefix(dialect.encoder_prefix))):
        if _outline(bare) not in spellings.outlines:
            continue
        fitting = ((spellings.rows[each], number) for each, number in _templates(bare) if each in spellings.rows)
        rows, number = next(fitting, ([], ""))
        if not rows or (bare != short and rows[0][0].startswith(HEADS)):  # a head inside the encoder is none
            continue
        kept = BASE_PREFIX if bare != short and dialect.is_canonical else ""
        return [
            (kept + canonical.replace("{i}", number or "0"), name if third is None else Part(name, third))
            for canonical, third in rows
        ]
    return []


def _templates(name: str) -> Iterator[tuple[str, str]]:
    """Every template that a name may be of, with the number of the layer: one number taken out, or CHUNK.NUMBER."""
    if "{" in name:  # it would pass for a template
        return
    yield name, ""
    found = _NUMBER.finditer(name)
    runs = [run.span() for run in found if len(run[0]) <= _DIGITS and run[0] == str(int(run[0]))]
    for begin, end in runs:
        yield f"{name[:begin]}{{i}}{name[end:]}", name[begin:end]
    for (begin, middle), (after, end) in pairwise(runs):
        if name[middle:after] == ".":
            yield f"{name[:begin]}{{c}}.{{i}}{name[end:]}", name[after:end]
