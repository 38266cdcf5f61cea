"""Whole encoders among the names of a file: what stands in front of their names, and whose names they are.

A file may hold a model under the name of another module, or several models. What stands in front is taken off where the
names behind it are those of one whole encoder; nothing is taken off a name on its own account.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache

from conversion.dialect import Dialect, Part
from conversion.dialects import DIALECTS
from conversion.naming import LONGEST, explained, template
from vit_core.config import ViTConfig
from vit_core.errors import CheckpointError, on_command_line
from vit_core.parameters import parameter_table
from vit_core.plain_values import name_list, short

Towers = Mapping[str, Sequence[Dialect]]  # prefix -> the dialects in which an encoder behind it is whole
Matrices = tuple[tuple[str, ...], ...]  # of an encoder's first layer, each in every spelling

_SAMPLE = 2000  # names that settle whose the encoders of a file are
_SEPARATORS = "./"
_SEPARATOR = re.compile("[./]")
_FIRST = "embeddings.patch_embeddings.projection.weight"  # there once in every encoder: names with its ending are tried
_FIRST_LAYER = {"{c}.{i}": "0.0", "{i}": "0"}


def towers(names: Collection[str]) -> Towers:
    """Every prefix behind which the names, which are also looked up, are those of a whole encoder."""
    ends = _ends(tuple(DIALECTS))
    endings = tuple(ends)
    encoders: dict[str, list[Dialect]] = {}
    for name in [name for name in names if name.endswith(endings) and len(name) <= LONGEST]:
        for end in filter(name.endswith, ends):
            encoder = name[: -len(end)]
            if not _is_of_words(encoder):
                continue
            for matrices, dialects in ends[end].items():
                if lacking(names, encoder, matrices) is None:
                    encoders.setdefault(encoder, []).extend(dialects)
    in_order = sorted(names) if any(len(dialects) > 1 for dialects in encoders.values()) else []
    share = max(1, _SAMPLE // max(1, len(encoders)))
    found: dict[str, list[Dialect]] = {}
    for encoder, dialects in encoders.items():
        for dialect in _best_of(in_order, encoder, dialects, share):
            prefix = encoder.removesuffix(dialect.encoder_prefix)
            is_another = any(dialect is other for other in encoders.get(prefix, ())) or not _is_of_words(prefix)
            found.setdefault(encoder if is_another else prefix, []).append(dialect)
    return found


def _best_of(in_order: Sequence[str], encoder: str, dialects: Sequence[Dialect], share: int) -> Sequence[Dialect]:
    """Of the dialects that an encoder may be of, those that explain most names; then those whose own word is in front.

    Models of one library share most names: what one wraps another in ("vit." around a Dinov2) does not decide.

    Args:
        in_order: all names, sorted, so that those behind a prefix are found without looking at the others.
        encoder: the prefix.
        dialects: to choose from.
        share: how many names to look at.
    """
    if len(dialects) == 1:
        return dialects
    first = bisect_left(in_order, encoder)
    last = bisect_left(in_order, True, first, key=lambda name: not name.startswith(encoder))
    behind = in_order[first : last : -(-(last - first) // share)]
    found = []
    for dialect in dialects:
        before = len(encoder.removesuffix(dialect.encoder_prefix))
        found.append(explained([name[before:] for name in behind], dialect))
    best = [dialect for dialect, count in zip(dialects, found, strict=True) if count == max(found)]
    return [each for each in best if each.encoder_prefix and encoder.endswith(each.encoder_prefix)] or best


def lacking(names: Collection[str], prefix: str, matrices: Matrices) -> str | None:
    """The first matrix that is missing behind a prefix; None if all are there."""
    for spellings in matrices:
        for name in spellings:
            if prefix + name in names:
                break
        else:
            return prefix + spellings[0]
    return None


def chosen(where: str, found: Towers, weights: str | None, asked: str | None) -> str:
    """The prefix of the encoder to load.

    Args:
        weights: what the caller chose among the prefixes, or the words that it begins with; None for nothing.
        asked: all that the caller said, for messages: a key of the file may stand in front of `weights`.

    Raises:
        CheckpointError: there are several and none is chosen, or none like the one that is.
    """
    if weights is not None and weights in found:
        return weights
    names: dict[str, str] = {}
    for prefix in sorted(found):
        name = prefix.rstrip(_SEPARATORS)
        names[prefix if name in names else name] = prefix
    fitting = [*names] if weights is None else _fitting(names, weights)
    if len(fitting) == 1:
        return names[fitting[0]]
    if fitting:
        raise CheckpointError(
            f"{where}: several sets of weights: {_quoted(fitting)}.\n"
            f"Say which one: weights={short(fitting[0])} {on_command_line('--weights')}."
        )
    there = f"there is {_quoted([*names])}" if any(names) else "it holds one set of weights, under no name"
    raise CheckpointError(f"{where}: no weights in it under {short(asked)}; {there}.\nSay one that is, or nothing.")


def split(names: Iterable[str], prefix: str, found: Towers) -> tuple[list[str], list[str]]:
    """The names behind a prefix, and the rest: beside it, or of another encoder within it."""
    others = {other for other in found if other != prefix and other.startswith(prefix)}
    inside: list[str] = []
    outside: list[str] = []
    for name in names:
        is_inside = name.startswith(prefix) and not (others and _is_behind(name, others))
        (inside if is_inside else outside).append(name)
    return inside, outside


def matrices_of(dialect: Dialect) -> Matrices:
    """The names of the matrices of an encoder's first layer in a dialect."""
    found = []
    for canonical in _encoder():
        names = [cell.name if isinstance(cell, Part) else cell for cell in dialect.rows[canonical]]
        names = [name for name in names if not (dialect.encoder_prefix and name.startswith(dialect.encoder_prefix))]
        for mark, number in _FIRST_LAYER.items():
            names = [name.replace(mark, number) for name in names]
        found.append(tuple(names))
    return tuple(dict.fromkeys(found))


def _quoted(names: Sequence[str], most: int = 5) -> str:
    return name_list([repr(name) for name in names], most)


def _fitting(names: Iterable[str], weights: str) -> list[str]:
    """The names that are the wanted one; else those that begin with its words."""
    wanted = weights.rstrip(_SEPARATORS).replace("/", ".")
    plain = {name: name.replace("/", ".") for name in names}
    exact = [name for name in plain if plain[name] == wanted]
    return exact or [name for name in plain if wanted and plain[name].startswith(f"{wanted}.")]


def _is_behind(name: str, prefixes: Collection[str]) -> bool:
    return len(name) <= LONGEST and any(name[: found.end()] in prefixes for found in _SEPARATOR.finditer(name))


def _is_of_words(prefix: str) -> bool:
    """Whether a prefix ends where a word ends."""
    return not prefix or prefix[-1] in _SEPARATORS


@cache
def _ends(dialects: tuple[Dialect, ...]) -> dict[str, dict[Matrices, list[Dialect]]]:
    """How the name of the first matrix may end -> the names of the other matrices -> the dialects whose they are."""
    found: dict[str, dict[Matrices, list[Dialect]]] = {}
    for dialect in dialects:
        first, *others = matrices_of(dialect)
        for end in first:
            found.setdefault(end, {}).setdefault(tuple(others), []).append(dialect)
    return found


@cache
def _encoder() -> tuple[str, ...]:
    """Templates of the canonical names of an encoder's matrices, the first one first."""
    rows = parameter_table(ViTConfig(num_hidden_layers=1), "ViTModel", add_pooling_layer=False).values()
    matrices = (template(row.name) for row in rows if row.name.endswith(".weight") and len(row.shape) > 1)
    return (_FIRST, *(name for name in matrices if name != _FIRST))
