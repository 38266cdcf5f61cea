"""Labels of classes: any table of them becomes text by index, from 0 on, or an error that names what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vit_core.errors import ConfigError
from vit_core.limits import LIMITS
from vit_core.plain_values import is_int, is_number, plain, short


def label_table(where: str, given: Any, *, classes: int | None = None) -> dict[int, str]:
    """Index -> label, by ascending index, for every class.

    Args:
        where: what the table is called, for messages.
        given: labels by index, which may be written as text ("0"), or a list of labels in order. Numbers as labels
            become text.
        classes: how many there must be; None for as many as are given.

    Raises:
        ConfigError: not such a table, too many labels, another number than `classes`, an index that is missing, doubled
            or too large, or a value that is no label. The message names the first.
    """
    if isinstance(given, Mapping):
        return _table(where, given.items(), len(given) if classes is None else classes)
    if isinstance(given, list | tuple):
        if classes not in (None, len(given)):
            raise ConfigError(f"{where}: expected {classes} labels, one for each class, got {len(given)}")
        return _table(where, enumerate(given), len(given))
    raise ConfigError(f"{where}: expected labels by index (a dict), or a list of them, got {short(given)}")


def index_of(value: Any) -> Any:
    """`value` as an int where it is one, of NumPy or in JSON's decimal digits."""
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return int(value) if is_digits else plain(value)


def inverse(id2label: Mapping[int, str]) -> dict[str, int]:
    """Label -> index; where two classes share a label, the later one."""
    return {label: index for index, label in id2label.items()}


def settle_labels(given: dict[str, Any]) -> list[str]:
    """Turns num_labels, id2label and label2id of `given` into the two tables; returns what is wrong with them.

    A table that is refused stays as it was given, for the rule of its field to say why.
    """
    num_labels, id2label, label2id = (plain(given.pop(name, None)) for name in ("num_labels", "id2label", "label2id"))
    problems = []
    if num_labels is not None and not (is_int(num_labels) and 0 <= num_labels <= LIMITS.labels):
        problems.append(f"num_labels: expected an int from 0 to {LIMITS.labels}, got {short(num_labels)}")
        num_labels = None
    if num_labels is not None and id2label is None and label2id is None:
        id2label = [f"LABEL_{index}" for index in range(num_labels)]
    given.update({name: t for name, t in (("id2label", id2label), ("label2id", label2id)) if t is not None})
    try:
        table = _inverted(label2id) if id2label is None else label_table("id2label", id2label)
    except ConfigError as error:
        if id2label is None:
            del given["label2id"]
            problems.append(str(error))
        return problems
    if table is None:
        return problems
    given.update({"id2label": table, "label2id": inverse(table) if label2id is None else label2id})
    if num_labels not in (None, len(table)):
        problems.append(f"num_labels: expected the {len(table)} of id2label, got {num_labels}; give one of the two")
    return problems


def _inverted(label2id: Any) -> dict[int, str] | None:
    """Index -> label of a label2id without an id2label; None where it is none, as its rule says."""
    if not isinstance(label2id, Mapping):
        return None
    return _table("label2id", ((index, label) for label, index in label2id.items()), len(label2id))


def _table(where: str, pairs: Iterable[tuple[Any, Any]], classes: int) -> dict[int, str]:
    if classes > LIMITS.labels:
        raise ConfigError(f"{where}: expected at most {LIMITS.labels} labels, got {classes}")
    found: dict[int, str] = {}
    for key, label in pairs:
        index = index_of(key)
        if not is_int(index) or index < 0:
            raise ConfigError(f"{where}: expected class indices from 0 on, got {short(key)}")
        if index in found:
            raise ConfigError(f"{where}: expected every class index once, got {index} twice")
        found[index] = _text(where, index, label)
    missing = next((f"{index} is missing" for index in range(classes) if index not in found), None)
    extra = next((f"{index} does not belong" for index in sorted(found) if index >= classes), None)
    if wrong := [problem for problem in (missing, extra) if problem]:
        indices = f"the indices 0 to {classes - 1} for {classes} classes" if classes else "no labels"
        raise ConfigError(f"{where}: expected {indices}, but {' and '.join(wrong)}")
    return {index: found[index] for index in range(classes)}


def _text(where: str, index: int, label: Any) -> str:
    label = text_of(label)
    if isinstance(label, str):
        return label
    raise ConfigError(f"{where}: expected text for class {index}, got {short(label)}")


def text_of(label: Any) -> Any:
    """A label as text, also where it is a number; anything else as it is."""
    label = plain(label)
    return str(label) if isinstance(label, str) or is_number(label) else label
