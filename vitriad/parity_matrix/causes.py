"""Where a backend first leaves the oracle: one line for each cause, in the order of the forward pass.

The first hidden state that departs names the layer. Which half of the layer it is, is found by running the model once
with the other half silenced: with its last weights and biases set to zero, in the backend and in the oracle alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vitriad.parity_matrix.cases import Case

Row = Mapping[str, Any]

# What is silenced -> the half that is left.
HALVES = {"output.dense": "attention", "attention.output.dense": "MLP"}


class Place(NamedTuple):
    """Where one backend departs in one model: `layer` is None for what is no layer of the encoder."""

    layer: int | None
    part: str


def silenced(case: Case, layer: int, half: str) -> Case:
    """The case with one half of a layer of the encoder adding nothing."""
    ends = tuple(f"encoder.layer.{layer}.{half}.{tensor}" for tensor in ("weight", "bias"))
    tensors = {name: 0 * tensor if name.endswith(ends) else tensor for name, tensor in case.tensors.items()}
    return Case(case.name, case.cls, case.config, tensors, case.options, case.inputs)


def causes(
    rows: Sequence[Row], backends: Sequence[str], halves: Callable[[str, str, str, int], list[str]]
) -> list[str]:
    """One line for every cause of a departure.

    Args:
        rows: of the comparison.
        backends: all that were compared.
        halves: of (backend, case, dtype, layer), the halves of that layer that depart when they run alone.
    """
    where: dict[str, list[str]] = {}
    for backend in backends:
        for text in _texts(backend, [row for row in rows if row["backend"] == backend], halves):
            where.setdefault(text, []).append(backend)
    lines = [f"{_names(group, backends)}, {text}" for text, group in where.items()]
    lines += [
        f"{row['check']}: {row['backend']} and {row['against']} part, most in {row['worst']}"
        for row in rows
        if not row["passed"] and row["check"] == "training" and not lines
    ]
    return lines + [
        f"{row['check']}: {row['backend']} gives other bits than {row['against']}"
        for row in rows
        if not row["passed"] and row["check"] in ("preprocessing", "roundtrip")
    ]


def _names(group: Sequence[str], backends: Sequence[str]) -> str:
    if len(group) == 1:
        return f"{group[0]} departs" if len(backends) == 1 else f"{group[0]} alone departs"
    return f"{', '.join(group[:-1])} and {group[-1]} depart" + (" alike" if len(group) == len(backends) else "")


def _texts(backend: str, rows: Sequence[Row], halves: Callable[[str, str, str, int], list[str]]) -> Iterator[str]:
    """What is to be said of one backend."""
    calls: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["against"] == "oracle":
            calls.setdefault((row["case"], row["dtype"]), {})[row["check"]] = row
    found: dict[str, list[tuple[Place, str, str]]] = {}
    for (case, dtype), by_check in calls.items():
        if any(not row["passed"] for row in by_check.values()):
            place = _place(by_check)
            found.setdefault("layer" if place.layer is not None else place.part, []).append((place, case, dtype))
    for hits in found.values():
        place, case, dtype = min(hits, key=lambda hit: hit[0].layer or 0)
        part = place.part
        if place.layer is not None:
            part = part or " or ".join(halves(backend, case, dtype, place.layer)) or "sum of attention and MLP"
            part = f"from layer {place.layer} on, first in its {part}"
        models, dtypes = len({case for _, case, _ in hits}), list(dict.fromkeys(dtype for *_, dtype in hits))
        yield f"{part} ({models} of {len({case for case, _ in calls})} models, {' and '.join(dtypes)})"


def _place(by_check: Mapping[str, Row]) -> Place:
    """The first departure of one call; `part` is empty where a layer's halves have to be told apart."""
    first = {check: row["first"] for check, row in by_check.items() if not row["passed"]}
    state, attention = (_number(first.get(check)) for check in ("hidden", "attentions"))
    if state == 0:
        return Place(None, "first in the embeddings")
    if attention is not None and (state is None or attention < state):
        return Place(attention, "attention")
    if state is not None:
        return Place(state - 1, "")
    check = next(check for check in ("forward", "loss", "gradients") if check in first)
    return Place(None, f"first in {'the gradient of ' if check == 'gradients' else ''}{first[check]}")


def _number(name: str | None) -> int | None:
    return None if name is None else int(name.rpartition(".")[2])
