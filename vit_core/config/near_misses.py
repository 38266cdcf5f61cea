"""Names that are most likely a field misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Names in configurations of transformers 4.57.6 that would count as misspelt. The tests hold all its names to this.
_OTHERS = frozenset({"architecture", "position_embeddings_type", "pre_lnorm"})
_SHORTEST = 8  # letters: a name that is no field and shorter has too many neighbours


class NearMisses:
    """Finds the known name that an unknown one was meant to be.

    That is a name one edit away (a letter too many, missing, wrong, or two swapped), or one whose words are the leading
    words of a field, with one edit in some of them (`hidden_droput` for `hidden_dropout_prob`). Leading words that are
    spelt right (`hidden_dropout`, `pooler_output`) are names of their own: other programs have them.

    Looking up takes time in proportion to the name, however many names are known: files may hold 100,000 keys.

    Args:
        fields: names that may be meant.
        others: longer names that may be meant too, but not by their leading words.
    """

    def __init__(self, fields: Iterable[str], others: Iterable[str] = ()) -> None:
        fields = [*fields]
        self._known = frozenset(fields) | frozenset(others)
        self._names = _index([*fields, *(name for name in others if len(name) >= _SHORTEST)])
        self._words = _index(sorted({word for name in fields for word in name.split("_")}))
        self._leading: dict[tuple[str, ...], str] = {}
        for name in fields:
            words = name.split("_")
            for count in range(2, len(words) + 1):
                self._leading.setdefault((*words[:count],), name)

    def of(self, name: str) -> str | None:
        """The known name that `name` was most likely meant to be; None where it is no misspelling."""
        if name in self._known or name in _OTHERS:
            return None
        return next(_edited(name, self._names), None) or self._by_words(name.split("_"))

    def _by_words(self, words: list[str]) -> str | None:
        if not 1 < len(words) < 8:
            return None
        meant: list[tuple[str, ...]] = [()]
        for word in words:  # as they are or edited, as far as some field begins so
            choices = [word, *(other for other in _edited(word, self._words) if other[:1] == word[:1])]
            meant = [(*start, choice) for start in meant for choice in choices if self._begins((*start, choice))]
        return next((self._leading[start] for start in meant if [*start] != words), None)

    def _begins(self, words: tuple[str, ...]) -> bool:
        return words in self._leading or len(words) == 1


def _index(names: Iterable[str]) -> dict[str, list[str]]:
    """Every name, and every name with a letter left out -> the names it is of."""
    index: dict[str, list[str]] = {}
    for name in names:
        for key in dict.fromkeys(_shortened(name)):
            index.setdefault(key, []).append(name)
    return index


def _shortened(name: str) -> Iterator[str]:
    yield name
    for place in range(len(name)):
        yield name[:place] + name[place + 1 :]


def _edited(name: str, index: dict[str, list[str]]) -> Iterator[str]:
    """The names of an index that are one edit away."""
    if len(name) > 80:
        return
    for key in _shortened(name):  # two names one edit apart become the same when each lacks one letter or none
        for other in index.get(key, ()):
            if _is_edit(name, other):
                yield other


def _is_edit(one: str, other: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours makes `one` into `other`."""
    if one == other or (one[:1] != other[:1] and one[-1:] != other[-1:]):
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    swapped = one[1::-1] + one[2:]
    return one[1:] == other[1:] or one[1:] == other or one == other[1:] or (len(one) > 1 and swapped == other)
