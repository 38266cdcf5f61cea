"""Learning rates by step: a linear warm-up, then a cosine, a line, or the same rate to the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vit_core.errors import InputError

Kind = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate at each step of a run.

    Attributes:
        rate: the highest one, that of the step after the warm-up.
        steps: of the whole run, at least 1.
        warmup: steps over which the rate rises evenly; the first has rate / (warmup + 1), so that it already learns.
        final: rate that the last step nears, of "cosine" and "linear".
        kind: how the rate falls after the warm-up.

    Raises:
        InputError: such a run does not exist.

    Source: the cosine of Loshchilov and Hutter, SGDR (2017), without restarts, as the recipes of ViT, DeiT and MAE.
    """

    rate: float
    steps: int
    warmup: int = 0
    final: float = 0.0
    kind: Kind = "cosine"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"kind: expected one of {', '.join(get_args(Kind))}, got {self.kind!r}.")
        if not 0 <= self.warmup < self.steps:
            raise InputError(f"warmup: expected fewer steps than the {self.steps} of the run, got {self.warmup}.")
        if not 0 <= self.final <= self.rate < math.inf:
            raise InputError(f"rate, final: expected 0 <= final <= rate, got {self.rate} and {self.final}.")

    def __call__(self, step: int) -> float:
        """The rate of a step, counted from 0.

        Raises:
            InputError: there is no such step.
        """
        if not 0 <= step < self.steps:
            raise InputError(f"step: expected a number from 0 to {self.steps - 1}, got {step}.")
        if step < self.warmup:
            return self.rate * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / (self.steps - self.warmup)
        share = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[self.kind]
        return self.final + (self.rate - self.final) * share
