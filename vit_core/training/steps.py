"""What one step of training is told, and what it tells: the same words for every backend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.masking import check_seed
from vit_core.plain_values import name_list
from vit_core.tensors import Array
from vit_core.training.batches import TrainingBatch
from vit_core.training.groups import Group, parameter_groups

# With float16 the loss is multiplied by a scale: this one at first, half of it after a step with gradients that are not
# finite, twice of it after so many steps in a row with finite ones.
FIRST_LOSS_SCALE, LOSS_SCALE_DOUBLES_AFTER = 2.0**16, 2000

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Optimisation:
    """How the parameters of a model are moved by their gradients: AdamW, in the same arithmetic in every backend.

    With gradient g, at step t counted from 1, and with the rate of the step times the scale of the parameter's group:

        m = beta1 * m + (1 - beta1) * g              first moment
        v = beta2 * v + (1 - beta2) * g**2           second moment
        p = p * (1 - rate * weight_decay)
        p = p - rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

    Attributes:
        weight_decay: of the parameters that are decayed; see `parameter_groups`.
        layer_decay: factor of the rate from each layer to the one before it.
        freeze: "encoder", or how many layers stay as they are; see `parameter_groups`.
        betas: beta1 and beta2.
        epsilon: added to the root.
        clip: largest norm of all gradients together; larger ones are scaled by clip / norm. None: as they are.
        accumulate: parts that a batch is computed in, one after the other, to need less memory.
        average: decay of the moving average of the weights, which starts as the weights: each step makes it
            average * itself + (1 - average) * weights. None: there is none.
        precision: dtype of the computation: "float32" for that of the model itself, which may be float64; another one
            for products in that dtype, in evaluation too. Parameters, gradients and moments keep the dtype of the
            model. With "float16" the loss is scaled, and a step whose gradients are not finite is left out: weights,
            moments, average and t stay.
        recompute: whether layers are computed anew in the backward pass instead of keeping their activations.
        seed: of dropouts, which are drawn by it and the number of the step alone: a run that goes on draws what it
            would have drawn. Each backend draws others.

    Raises:
        InputError: a value that is none of these.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2, with the rate in place of
    the schedule's factor, as torch.optim.AdamW has it.
    """

    weight_decay: float = 0.05
    layer_decay: float = 1.0
    freeze: Literal["encoder"] | int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip: float | None = None
    accumulate: int = 1
    average: float | None = None
    precision: Precision = "float32"
    recompute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.weight_decay < math.inf and 0 < self.epsilon < math.inf and 0 < self.layer_decay <= 1):
            raise InputError(
                "weight_decay, epsilon, layer_decay: expected 0 or more, more than 0, and one in (0, 1], got "
                f"{self.weight_decay}, {self.epsilon}, {self.layer_decay}."
            )
        shares = (*self.betas, 0.0 if self.average is None else self.average)
        if len(self.betas) != 2 or not all(0 <= share < 1 for share in shares):
            raise InputError(f"betas, average: expected numbers in [0, 1), got {self.betas}, {self.average}.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError(f"clip: expected more than 0, or None, got {self.clip}.")
        if isinstance(self.accumulate, bool) or not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise InputError(f"accumulate: expected a number of parts of at least 1, got {self.accumulate!r}.")
        if self.precision not in get_args(Precision):
            raise InputError(f"precision: expected one of {', '.join(get_args(Precision))}, got {self.precision!r}.")
        check_seed("seed", self.seed)

    def check_dtype(self, model: str, dtype: str) -> None:
        """Checks that the parameters of a model are wide enough to be trained, and narrow enough for the precision.

        Raises:
            InputError: they are not.
        """
        if dtype not in ("float32", "float64") or (dtype == "float64" and self.precision != "float32"):
            raise InputError(
                f"{model}: expected parameters in float32 to train with precision={self.precision!r}, got {dtype}.\n"
                "Load the model in float32: `precision` is what says which dtype it computes in."
            )

    def groups(self, config: PretrainedConfig, cls: str | type, **options: bool) -> list[Group]:
        """`parameter_groups` of a model, with these settings.

        Raises:
            InputError: layers to freeze that the model does not have.
        """
        return parameter_groups(
            config,
            cls,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            freeze=self.freeze,
            **options,
        )

    def check_average(self, model: str) -> None:
        """Checks that there is an average of the weights to evaluate.

        Raises:
            InputError: there is none.
        """
        if self.average is None:
            raise InputError(f"{model}: evaluate: there is no average.\nAsk for one: Optimisation(average=0.9999).")


class StepResult(NamedTuple):
    """What a step found: scalars of the framework, which `float` waits for.

    Attributes:
        loss: before the step.
        gradient_norm: of all gradients together, before they are clipped.
    """

    loss: Any
    gradient_norm: Any


class TrainStep(Protocol):
    """A model with its optimiser: `vit_torch.training.TrainStep(model, optimisation)`, and so for every backend.

    Equal weights, batches and rates give equal losses in every backend, within rounding.
    """

    def __call__(self, batch: TrainingBatch, rate: float) -> StepResult:
        """Moves the weights by one step of the given learning rate. The mode of the model stays as it was.

        Raises:
            InputError: a batch that does not fit the model.
        """

    def evaluate(self, batch: TrainingBatch, *, averaged: bool = False) -> dict[str, Array]:
        """The outputs of the model in evaluation by the names of its fields; what the next step does stays as it was.

        "logits" of a classifier; "loss", "logits", "mask" and "ids_restore" of a masked autoencoder; "loss" and
        "reconstruction" of masked image modelling.

        Args:
            batch: to compute; without targets for a classifier, whose loss is the caller's.
            averaged: use the moving average of the weights.
        """

    def state(self) -> dict[str, Array]:
        """Everything that the next step goes by, as NumPy arrays in the canonical names and layouts.

        "model.NAME" for each parameter; "first.NAME" and "second.NAME" for the moments of those that are trained;
        "average.NAME" for each parameter where there is an average; "steps", an int64 scalar; and with "float16"
        "loss_scale", a float32 scalar, and "good_steps", an int64 one.
        """

    def restore(self, state: dict[str, Array]) -> None:
        """Goes on from a `state`: the next steps are those that would have followed, to the bit.

        Raises:
            InputError: the state of another model or other settings, by the first names that differ.
        """


def check_state(model: str, expected: Mapping[str, Array], state: Mapping[str, Array]) -> None:
    """Checks that a state is one of the same model and settings, by names, shapes and dtypes.

    Args:
        model: name of the class, for messages.
        expected: a state of the step as it is, or anything with its names, shapes and dtypes.
        state: the one to go on from.

    Raises:
        InputError: it is another one, by the first names that differ.
    """
    differing = [f"{name} missing" for name in expected if name not in state]
    differing += [f"{name} unknown" for name in state if name not in expected]
    for name, wanted in expected.items():
        want, got = ((str(each.dtype), each.shape) for each in (wanted, state.get(name, wanted)))
        if want != got:
            differing.append(f"{name} is {got[0]} {got[1]} instead of {want[0]} {want[1]}")
    if differing:
        raise InputError(
            f"{model}: restore: the state of another model or of other settings: {name_list(differing, 3)}.\n"
            "Go on with the model and the Optimisation that it was made by."
        )
