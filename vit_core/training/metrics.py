"""How good a classifier is: accuracy with its interval, cross entropy, and which classes it takes for which."""

from __future__ import annotations

import numpy as np

from vit_core.errors import InputError
from vit_core.tensors import Array

_Z = 1.959964  # a normal distribution has 95 % of its weight within so many deviations


class Tally:
    """What a classifier said about images, counted batch by batch.

    Attributes:
        confusion: (classes, classes), int64: how many images of a class (row) were taken for each class (column).
        count: images so far.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.count, self._among_five, self._loss = 0, 0, 0.0

    def add(self, logits: Array, labels: Array) -> None:
        """Counts a batch.

        Args:
            logits: (batch, classes).
            labels: (batch,), integers.

        Raises:
            InputError: other shapes.
        """
        if logits.shape != (*labels.shape, len(self.confusion)):
            raise InputError(
                f"logits: expected (batch, {len(self.confusion)}), got {logits.shape} for {len(labels)} labels."
            )
        logits, rows = logits.astype(np.float64), np.arange(len(labels))
        order = np.argsort(-logits, axis=1, kind="stable")
        np.add.at(self.confusion, (labels, order[:, 0]), 1)
        self._among_five += int((order[:, :5] == labels[:, None]).any(axis=1).sum())
        powers = logits - logits.max(axis=1, keepdims=True)
        self._loss += float((np.log(np.exp(powers).sum(axis=1)) - powers[rows, labels]).sum())
        self.count += len(labels)

    @property
    def right(self) -> int:
        """Images whose best class is theirs."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of them; NaN of no images."""
        return self.right / self.count if self.count else np.nan

    @property
    def accuracy_of_five(self) -> float:
        """Share of images whose class is among the best five."""
        return self._among_five / self.count if self.count else np.nan

    @property
    def cross_entropy(self) -> float:
        """Mean over the images, in nats."""
        return self._loss / self.count if self.count else np.nan


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson, Probable inference, 1927."""
    share, square = right / count, _Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
