"""One step of training as a recipe says it: gradients by parts and devices, clipping, AdamW, an average of weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from conversion.layouts import canonical_axes
from vit_core.errors import InputError
from vit_core.inputs import check_call
from vit_core.tensors import Array, to_numpy
from vit_core.training import Draws, Optimisation, StepResult, TrainingBatch
from vit_core.training.batches import arguments, parts, trained_class
from vit_core.training.steps import FIRST_LOSS_SCALE, LOSS_SCALE_DOUBLES_AFTER, check_state
from vit_tf import _keras, weights
from vit_tf.layers import Repeatable, at_least_float32, computing_in
from vit_tf.optimizers import GroupedAdamW, groups_of, optimizer
from vit_tf.pretrained import TFViTPreTrainedModel

__all__ = ["TrainStep", "optimizer"]


class TrainStep:
    """A model with its optimiser, to be called once for every batch.

    A model that was made in the scope of a `tf.distribute` strategy is trained on all of its devices: each computes
    its share of every batch.

    Args:
        model: to train; its weights are moved in place.
        optimisation: the recipe.
        jit_compile: whether XLA compiles gradients and updates.

    Raises:
        InputError: the model has no loss, weights that no recipe names, or such in a dtype that is not trained.
    """

    def __init__(
        self, model: TFViTPreTrainedModel, optimisation: Optimisation | None = None, *, jit_compile: bool = False
    ) -> None:
        self.model, self.optimisation = model, optimisation or Optimisation()
        self.strategy = model.distribute_strategy
        self.optimisation.check_dtype(type(model).__name__, model.variable_dtype)
        trained_class(type(model))
        _check_weights(model)
        groups = groups_of(model, self.optimisation)
        moved = {path for group in groups for path in group["paths"]}
        named = model.named_weights()
        self.weights = {name: weight for name, weight in named.items() if weight.path in moved and weight.trainable}
        average, (beta_1, beta_2) = self.optimisation.average, self.optimisation.betas
        with self.strategy.scope():
            self.optimizer = GroupedAdamW(
                0.0,  # the rate comes with each step
                groups,
                beta_1,
                beta_2,
                self.optimisation.epsilon,
                use_ema=average is not None,
                ema_momentum=average or 0.0,
            )
            self.optimizer.build([*self.weights.values()])
        self.loss_scale = tf.Variable(FIRST_LOSS_SCALE if self._is_scaled else 1.0, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        options = {"autograph": False, "jit_compile": jit_compile}
        self._add = tf.function(self._added_gradients, **options)
        self._move = tf.function(self._moved, **options)
        self._evaluate = tf.function(self._outputs, autograph=False)

    def __call__(self, batch: TrainingBatch, rate: float) -> StepResult:
        """Moves the weights by one step. See `vit_core.training.TrainStep`, also for the other methods."""
        found: Any = None
        for place, (part, share) in enumerate(parts(batch, self.optimisation.accumulate, self.model.config)):
            self._seed_dropouts(place)
            found = self._add(self._on_devices(part, share), found)
        loss, norm = self._move(found, tf.constant(rate, tf.float64))
        return StepResult(loss, norm)

    # --- gradients ---------------------------------------------------------------------------------------------------

    def _on_devices(self, part: TrainingBatch, share: float) -> Any:
        """The arguments of the model and their share in the loss, for each device of the strategy.

        Where there are more devices than images, those that are left over compute the first image for nothing.
        """
        devices = self.strategy.num_replicas_in_sync
        cut = [(own, share * of_part) for own, of_part in parts(part, devices, self.model.config)]
        cut += [(cut[0][0], 0.0)] * (devices - len(cut))
        given = [(self._arguments(own, training=True), tf.constant(own_share, tf.float64)) for own, own_share in cut]
        if devices == 1:
            return given[0]
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: given[context.replica_id_in_sync_group]
        )

    def _arguments(self, batch: TrainingBatch, *, training: bool) -> dict[str, Tensor]:
        """What the model is called with, and the targets where it is trained on them; values are checked here."""
        given = arguments(type(self.model), self.model.config, batch, training=training)
        check_call(type(self.model).__name__, self.model.config, given, len(batch.pixel_values))
        if training and batch.targets is not None:
            given["targets"] = batch.targets
        return {name: tf.convert_to_tensor(value) for name, value in given.items()}

    def _added_gradients(self, given: Any, found: Any) -> Any:
        """What was found for earlier parts of a batch, and the loss and the gradients of one more."""
        with self._as_trained():
            return self.strategy.run(self._gradients, (*given, found))

    def _gradients(self, given: dict[str, Tensor], share: Tensor, found: Any) -> Any:
        """On one device: the loss of a part by its share, and the gradients of that, scaled, by each weight."""
        moved = [weight.value for weight in self.weights.values()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(moved)
            loss = self._loss(given)
            loss = loss * tf.cast(share, loss.dtype)
            scaled = loss * tf.cast(self.loss_scale, loss.dtype) if self._is_scaled else loss
        gradients = tape.gradient(scaled, moved, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.nest.map_structure(tf.add, (loss, gradients), found) if found is not None else (loss, gradients)

    def _loss(self, given: dict[str, Tensor]) -> Tensor:
        """The model's own loss, or with targets -sum(targets * log_softmax(logits)), the mean over the images."""
        targets = given.get("targets")
        output = self.model(
            **{name: value for name, value in given.items() if name != "targets"}, training=True, return_dict=True
        )
        if targets is None:
            return output["loss"]
        logits = tf.cast(output["logits"], at_least_float32(output["logits"].dtype))
        return -tf.reduce_mean(tf.reduce_sum(tf.cast(targets, logits.dtype) * tf.nn.log_softmax(logits), axis=1))

    # --- the step ----------------------------------------------------------------------------------------------------

    def _moved(self, found: Any, rate: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the norm of all gradients, after each weight was moved by its own, clipped."""
        loss, gradients = tf.nest.map_structure(lambda part: self.strategy.reduce("SUM", part, axis=None), found)
        if self._is_scaled:
            gradients = [gradient / self.loss_scale for gradient in gradients]
        norm, clip = tf.linalg.global_norm(gradients), self.optimisation.clip
        if clip is not None:
            factor = tf.where(norm > clip, clip / norm, tf.ones_like(norm))
            gradients = [gradient * factor for gradient in gradients]
        if not self._is_scaled:
            self._update(gradients, rate)
            return loss, norm
        is_good = tf.math.is_finite(norm)
        tf.cond(is_good, lambda: self._update(gradients, rate), lambda: None)
        good_steps = tf.where(is_good, self.good_steps + 1, 0)
        is_long = good_steps == LOSS_SCALE_DOUBLES_AFTER
        self.loss_scale.assign(self.loss_scale * tf.where(is_good, tf.where(is_long, 2.0, 1.0), 0.5))
        self.good_steps.assign(tf.where(is_long, tf.zeros_like(good_steps), good_steps))
        return loss, norm

    def _update(self, gradients: list[Tensor], rate: Tensor) -> None:
        """One step of the optimizer, on every device that has a copy of the weights."""
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            self.strategy.extended.update(
                weight.value,
                lambda variable, gradient: self.optimizer.update_step(gradient, variable, rate),
                args=(gradient,),
                group=False,
            )
        self.optimizer.iterations.assign_add(1)

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, batch: TrainingBatch, *, averaged: bool = False) -> dict[str, Array]:
        """The outputs of the model in evaluation, by the names of its fields."""
        if averaged:
            self.optimisation.check_average(type(self.model).__name__)
        output = self._evaluate(self._arguments(batch, training=False), averaged)
        return {name: to_numpy(value) for name, value in output.items()}

    def _outputs(self, given: dict[str, Tensor], averaged: bool) -> dict[str, Tensor]:
        values = zip(self.weights.values(), self.optimizer.averages, strict=True) if averaged else ()
        with self._as_trained(), keras.StatelessScope([(weight, average.value) for weight, average in values]):
            output = self.model(**given, training=False, return_dict=True)
        is_float = {name: value.dtype.is_floating for name, value in output.items()}
        return {
            name: tf.cast(value, at_least_float32(value.dtype)) if is_float[name] else value
            for name, value in output.items()
        }

    # --- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Everything that the next step goes by, in the canonical names and layouts."""
        table = self.model.parameter_table()
        kept = {name: weights.canonical(variable.value, table[_row(name)]) for name, variable in self._kept().items()}
        return kept | {name: to_numpy(variable) for name, variable in self._counts().items()}

    def restore(self, state: dict[str, Array]) -> None:
        """Goes on from a `state`: the next steps are those that would have followed, to the bit."""
        table, kept, counts = self.model.parameter_table(), self._kept(), self._counts()
        rows = {name: table[_row(name)] for name in kept}
        shapes = {name: np.broadcast_to(np.zeros((), each.dtype), rows[name].shape) for name, each in kept.items()}
        check_state(type(self.model).__name__, shapes | {key: to_numpy(each) for key, each in counts.items()}, state)
        for name, variable in kept.items():
            axes, value = canonical_axes(rows[name].kind, "keras"), tf.constant(state[name])
            variable.assign(tf.transpose(value, axes) if axes else value)
        for name, count in counts.items():
            count.assign(state[name])

    def _kept(self) -> dict[str, keras.Variable]:
        """Weights, moments and averages by their names in a state; what is not moved is its own average."""
        optimizer, named = self.optimizer, self.model.named_weights()
        kept = {f"model.{name}": weight for name, weight in named.items()}
        kept |= {f"first.{name}": each for name, each in zip(self.weights, optimizer.first, strict=True)}
        kept |= {f"second.{name}": each for name, each in zip(self.weights, optimizer.second, strict=True)}
        if optimizer.use_ema:
            averages = named | dict(zip(self.weights, optimizer.averages, strict=True))
            kept |= {f"average.{name}": each for name, each in averages.items()}
        return kept

    def _counts(self) -> dict[str, Any]:
        counts = {"steps": self.optimizer.iterations}
        return counts | ({"loss_scale": self.loss_scale, "good_steps": self.good_steps} if self._is_scaled else {})

    # --- settings ----------------------------------------------------------------------------------------------------

    @property
    def _is_scaled(self) -> bool:
        return self.optimisation.precision == "float16"

    def _as_trained(self) -> Any:
        """Inside, the model computes as the recipe says; what is traced here stays so."""
        precision = self.optimisation.precision
        dtype = self.model.variable_dtype if precision == "float32" else precision
        return computing_in(self.model, dtype, self.optimisation.recompute)

    def _seed_dropouts(self, part: int) -> None:
        """Makes what is dropped a matter of the seed, the step and the part of its batch."""
        layers = [layer for layer in _keras.layers_of(self.model) if isinstance(layer, Repeatable) and layer.rate > 0]
        steps = int(to_numpy(self.optimizer.iterations))
        for place, layer in enumerate(layers):
            draws = Draws(self.optimisation.seed, f"dropout {place}", steps, part)
            layer.seed_generator.state.assign([draws.below(2**31), draws.below(2**31)])


def _row(name: str) -> str:
    """The canonical name in the name of a state's entry."""
    return name.partition(".")[2]


def _check_weights(model: TFViTPreTrainedModel) -> None:
    """Refuses weights that are trained and stand in no table, such as those of LoRA."""
    table = model.parameter_table()
    if own := [name for name, weight in model.named_weights().items() if weight.trainable and name not in table]:
        raise InputError(
            f"{type(model).__name__}: TrainStep: expected the weights of the model alone, got {own[0]} as well.\n"
            "Train it by `fit`, with vit_tf.training.optimizer(model, ...) in `compile`."
        )
