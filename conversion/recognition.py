"""Which dialect the names of a file are of, or that they are of none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import islice

from conversion.dialects import DIALECTS, Dialect
from conversion.naming import LONGEST, explained, listed, template, understood, unwrapped
from conversion.tables.refusals import MARKS
from vit_core.config import ViTConfig
from vit_core.errors import CheckpointError
from vit_core.parameters import parameter_table

_SAMPLE = 2000  # names that settle a dialect
_MOST = 20_000  # names among which an encoder is looked for
# The share of names that a dialect has to explain. The biases of a model that is named otherwise can be half of them.
_CLEAR = 2 / 3
_MARK = re.compile(rf"\.({'|'.join(map(re.escape, MARKS))})\.")


def recognised(where: str, names: Collection[str]) -> Dialect:
    """The dialect that explains most names of a file.

    Below a clear majority it has to explain every matrix of an encoder: then the file holds a ViT beside other things.

    Raises:
        CheckpointError: none does; or a name tells of another kind of model.
    """
    if not names:
        raise CheckpointError(f"{where}: no tensors in it.")
    some = _spread(names)
    dialect, count = _best(some)
    left = sum(dropped(name, dialect) is not None for name in some)
    if count and (count + left >= _CLEAR * len(some) or _has_encoder(names, dialect)):
        return dialect
    known = understood(some, dialect)
    strange = [name for name in some if name not in known]
    refuse_marked(where, strange)
    said = f"{dialect.name!r} explains {count}, and no other dialect more" if count else "no dialect explains any"
    of = f"{len(some)} names" if len(some) == len(names) else f"{len(some)} of its {len(names)} names"
    raise CheckpointError(
        f"{where}: not a known dialect: of {of}, {said}; unknown are {listed(strange, 3)}.\n"
        + (
            _hint(some)
            or "docs/conversion.md says what is known. Rename the tensors, or save them from a known program."
        )
    )


def dropped(name: str, dialect: Dialect) -> str | None:
    """Why a tensor means nothing to a model, where the dialect says so."""
    for short in unwrapped(name, dialect) if dialect.dropped else ():
        for start, reason in dialect.dropped.items():
            if short.startswith(start):
                return reason
    return None


def refuse_marked(where: str, names: Iterable[str]) -> None:
    """Raises CheckpointError for what tells of another kind of model, by name."""
    for name in names:
        if mark := _MARK.search(f".{name[:LONGEST].replace('/', '.')}."):
            raise CheckpointError(f"{where}: {listed([name])}: {MARKS[mark[1]]}; no ViT or ViTMAE can hold it exactly.")


def _spread(names: Collection[str]) -> list[str]:
    """A few thousand names at most, spread over all."""
    return [*names][:: -(-len(names) // _SAMPLE)]


def _best(names: Sequence[str]) -> tuple[Dialect, int]:
    """The dialect that explains most of some names (of equals the first), and how many."""
    counts = [explained(names, dialect) for dialect in DIALECTS]
    return DIALECTS[counts.index(max(counts))], max(counts)


def _has_encoder(names: Iterable[str], dialect: Dialect) -> bool:
    """Whether a dialect explains every matrix of an encoder somewhere among the names."""
    return _matrices() <= set().union(*understood(islice(names, _MOST), dialect).values())


@cache
def _matrices() -> frozenset[str]:
    rows = parameter_table(ViTConfig(num_hidden_layers=1), "ViTModel", add_pooling_layer=False).values()
    return frozenset(template(row.name) for row in rows if row.name.endswith(".weight") and len(row.shape) > 1)


def _hint(names: Sequence[str]) -> str:
    """What to take off the names where they are a known dialect's but for a word in front of most."""
    words = Counter(found[0] for name in names if (found := re.match(r"[^./]+[./]", name)))
    for word, count in words.most_common(1):
        if count >= _CLEAR * len(names):
            dialect, explains = _best([name.removeprefix(word) for name in names])
            if explains >= _CLEAR * len(names):
                return (
                    f"Without {word!r} in front they are names of {dialect.name!r}: rename them, and save them again."
                )
    return ""
