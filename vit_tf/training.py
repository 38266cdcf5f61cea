"""Models in `fit`, `evaluate` and `predict`: their own losses, and the losses and metrics of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor

from vit_core.errors import InputError


class TrainedModel(keras.Model):
    """A model that trains on the loss that was given to `compile`, or on its own."""

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """The loss to train on: the one that was given to `compile`, of the main output; or else the model's own.

        The model's own needs its labels, or its mask, among the inputs `x`; the labels of a classifier may also be `y`.

        Raises:
            InputError: there is nothing to compute a loss from, or a sample weight, which the model's own takes not.
        """
        if self._compile_loss is not None:
            return super().compute_loss(x, y, self._compared(y_pred), sample_weight, training)
        model, replicas = type(self).__name__, tf.distribute.get_strategy().num_replicas_in_sync  # gradients are added
        if sample_weight is not None:
            raise InputError(f"{model}: sample_weight: the model's own loss takes none; give a loss to compile().")
        if "loss" in y_pred:
            return y_pred["loss"] / replicas
        labels = [] if y is None else keras.tree.flatten(y)  # also of {"labels": y} and (y,)
        if len(labels) != 1 or "logits" not in y_pred:
            raise InputError(
                f"{model}: fit: no loss: give its labels or mask among the inputs, or a loss to compile()."
            )
        return self.loss_of(y_pred["logits"], labels[0]) / replicas

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The metrics that were given to `compile`, of the main output."""
        return super().compute_metrics(x, y, self._compared(y_pred), sample_weight)

    def _compared(self, output: Any) -> Any:
        """What a user's loss and metrics see of an output: everything where they go by name, else the main tensor."""
        is_named = isinstance(self.loss, Mapping)
        return dict(output) if is_named else next(value for name, value in output.items() if name != "loss")

    def predict_step(self, data: Any) -> Any:
        """The outputs for one batch, without the loss: batches are put together image by image."""
        output = super().predict_step(data)
        return type(output)(**{name: value for name, value in output.items() if name != "loss"})
