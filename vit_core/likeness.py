"""How alike two outputs are, by image: cosine, best classes in common, Kullback-Leibler divergence; in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vit_core.tensors import Array

TOP = 5  # best classes that are compared, beside the very best one
COLUMNS = {"cosine": ".7f", "top-1": ".1%", "top-5": ".1%", "KL": ".1e"}  # of a table, and how they are written


class Likeness(NamedTuple):
    """How near an output is to another one, over all images of a call.

    Attributes:
        cosine: the smallest of any image.
        top1: share of images with the same best class; None for what is no logits of two classes or more.
        top5: mean share of the best `min(5, classes)` classes that both have; None likewise.
        kl: largest Kullback-Leibler divergence of any image, in nats; None likewise.
    """

    cosine: float
    top1: float | None = None
    top5: float | None = None
    kl: float | None = None


def cells(found: Likeness | Mapping[str, Any] | None) -> list[str]:
    """What stands below `COLUMNS`, of a likeness or of a mapping with its fields; nothing where there is no number."""
    fields = found._asdict() if isinstance(found, Likeness) else found or {}
    values = [fields.get(name) for name in Likeness._fields]
    return ["" if value is None else format(value, form) for value, form in zip(values, COLUMNS.values(), strict=True)]


def least(found: Iterable[Likeness]) -> Likeness | None:
    """The least alike of several, in each respect; None of none."""
    found = list(found)
    if not found:
        return None
    cosine = float(np.min([each.cosine for each in found]))
    ranked = [(each.top1, each.top5, each.kl) for each in found if each.kl is not None]
    if not ranked:
        return Likeness(cosine)
    top1, top5, kl = np.asarray(ranked, np.float64).T
    return Likeness(cosine, float(top1.min()), float(top5.min()), float(kl.max()))


def likeness(output: str, got: Array, exact: Array) -> Likeness:
    """How near one output is to what it should be.

    Args:
        output: its name; "logits" (images, classes) also have classes to agree on.
        got, exact: (images, ...), of one shape.
    """
    cosine = float(cosines(got, exact).min())
    if not has_classes(output, exact):
        return Likeness(cosine)
    top1, top5 = (float(in_common(best(got, k), best(exact, k)).mean()) for k in (1, TOP))
    return Likeness(cosine, top1, top5, float(divergences(got, exact).max()))


def has_classes(output: str, array: Array) -> bool:
    """Whether an output scores two classes or more: of one class (regression) nothing can be told by rank."""
    return output == "logits" and array.ndim == 2 and array.shape[1] > 1


def cosines(got: Array, exact: Array) -> Array:
    """(images,): the cosine of each image's numbers; one where both are all zero, zero where one is, NaN with a NaN."""
    one, two = (np.asarray(array, np.float64).reshape(len(array), -1) for array in (got, exact))
    norms = np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)
    product = norms[0] * norms[1]
    found = np.divide((one * two).sum(axis=1), product, out=(norms[0] == norms[1]).astype(float), where=product != 0)
    between: Array = np.clip(found, -1.0, 1.0)  # which rounding oversteps
    return between


def best(scores: Array, count: int) -> Array:
    """(images, min(count, classes)): the best classes, the best first; of equal ones the first, -1 where one is NaN."""
    scores = np.asarray(scores, np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found: Array = np.where(np.isnan(scores).any(axis=1, keepdims=True), -1, order)
    return found


def in_common(one: Array, two: Array) -> Array:
    """(images,): which share of the classes in rows of `one` stands in `two` too; -1 stands for no class."""
    shared: Array = ((one[:, :, None] == two[:, None, :]) & (one >= 0)[:, :, None]).any(axis=2).mean(axis=1)
    return shared


def divergences(got: Array, exact: Array) -> Array:
    """(images,): Kullback-Leibler divergence of the softmax of `got` from that of `exact`, in nats."""
    theirs, ours = _log_shares(exact), _log_shares(got)
    shares = np.exp(theirs)
    apart = np.subtract(theirs, ours, out=np.zeros_like(theirs), where=shares != 0)  # no share, no contribution
    found: Array = np.maximum((shares * apart).sum(axis=1), 0.0)  # which rounding undercuts
    return found


def _log_shares(logits: Array) -> Array:
    """The logarithm of the softmax over the classes."""
    logits = np.asarray(logits, np.float64)
    powers = logits - logits.max(axis=1, keepdims=True)
    shares: Array = powers - np.log(np.exp(powers).sum(axis=1, keepdims=True))
    return shares
