"""What one step of training is told, and what it tells: the same words for every backend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

from vit_core.errors import InputError
from vit_core.tensors import Array

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
        clip: largest norm of all gradients together; larger ones are scaled to it. None: as they are.
        accumulate: parts that a batch is computed in, one after the other, to need less memory.
        average: decay of the moving average of the weights, which starts as the weights: each step makes it
            average * itself + (1 - average) * weights. None: there is none.
        precision: dtype that the model computes in. Parameters, gradients and moments keep the dtype of the model;
            with "float16" the loss is scaled, and a step whose gradients are not finite is left out.
        recompute: whether layers are computed anew in the backward pass instead of keeping their activations.

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


class TrainingBatch(NamedTuple):
    """What a model is trained on in one step; which fields are there goes by its class.

    Attributes:
        pixel_values: (batch, channels, height, width), float32 or float64.
        targets: (batch, classes), floating: shares of classes, for image classification. The loss is the mean over the
            images of -sum(targets * log_softmax(logits)).
        noise: (batch, patches), float32, which orders the patches: for ViTMAEForPreTraining.
        bool_masked_pos: (batch, patches), bool: for ViTForMaskedImageModeling.
        drop_path_mask: (layers, 2, batch), bool: True where stochastic depth leaves out the attention (0) or the MLP
            (1) of a layer for an image. None: nothing is left out.
    """

    pixel_values: Array
    targets: Array | None = None
    noise: Array | None = None
    bool_masked_pos: Array | None = None
    drop_path_mask: Array | None = None


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
        """Moves the weights by one step of the given learning rate."""

    def evaluate(self, batch: TrainingBatch, *, averaged: bool = False) -> dict[str, Array]:
        """The outputs of the model in evaluation, such as "logits", or "loss", "mask" and "reconstruction".

        Args:
            batch: to compute; without targets for a classifier, whose loss is the caller's.
            averaged: use the moving average of the weights.
        """

    def state(self) -> dict[str, Array]:
        """Everything that the next step goes by, as NumPy arrays in the canonical names and layouts.

        "model.NAME" for each parameter; "first.NAME" and "second.NAME" for the moments of those that are trained;
        "average.NAME" for each parameter where there is an average; "steps", an int64 scalar; and with "float16"
        "loss_scale" and "good_steps".
        """

    def restore(self, state: dict[str, Array]) -> None:
        """Goes on from a `state`: the next steps are those that would have followed, to the bit.

        Raises:
            InputError: the state of another model or other settings, by the first names that differ.
        """
