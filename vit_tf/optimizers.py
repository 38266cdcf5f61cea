"""AdamW with settings for groups of weights, and learning rates by step: a recipe's optimisation for `compile`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from vit_core.errors import InputError
from vit_core.training import Optimisation, Schedule
from vit_tf import _keras
from vit_tf.pretrained import SERIALISABLE, TFViTPreTrainedModel


@SERIALISABLE
class GroupedAdamW(_keras.AveragingOptimizer):
    """AdamW with a decay and a factor of the learning rate for each group of weights.

    Args:
        learning_rate: a number, a schedule of Keras, or a function without arguments.
        groups: {"paths": of weights, "weight_decay": a number, "scale": of the rate} for each; weights in none of them
            are not decayed and learn at the full rate.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: added to the root.
        name: of the optimizer.
        **kwargs: of every optimizer of Keras. With `use_ema` the average starts as the weights.

    Differs: the arithmetic is that of `vit_core.training.Optimisation`. Keras' AdamW divides by the root before it is
    corrected, so that its epsilon counts for more in the first steps, and has one decay and one rate for all weights.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        groups: Iterable[Mapping[str, Any]] = (),
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "grouped_adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.groups = tuple(dict(group) for group in groups)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the moments of weights, and finds the group of each."""
        if self.built:
            return
        super().build(variables)
        self.first, self.second = self.add_optimizer_variables(variables, ("first", "second"))
        groups = {path: (group["weight_decay"], group["scale"]) for group in self.groups for path in group["paths"]}
        self.settings = [groups.get(variable.path, (0.0, 1.0)) for variable in variables]

    def update_step(self, gradient: Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Moves one weight, its moments and its average."""
        place, dtype = _keras.place_of(self, variable), variable.dtype
        weight_decay, scale = self.settings[place]
        rate = tf.cast(learning_rate, tf.float64) * scale
        if weight_decay:
            variable.assign(variable * tf.cast(1.0 - rate * weight_decay, dtype))
        step = tf.cast(self.iterations, tf.float64) + 1.0
        beta_1, beta_2 = (np.asarray(beta, dtype.as_numpy_dtype).item() for beta in (self.beta_1, self.beta_2))
        root = tf.sqrt(1.0 - beta_2**step)  # what the kernel divides by is not corrected: its rate and epsilon are
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.first[place].value.handle,
            v=self.second[place].value.handle,
            beta1_power=tf.zeros((), dtype),
            beta2_power=tf.zeros((), dtype),
            lr=tf.cast(rate * root / (1.0 - beta_1**step), dtype),
            beta1=tf.constant(beta_1, dtype),
            beta2=tf.constant(beta_2, dtype),
            epsilon=tf.cast(self.epsilon * root, dtype),
            grad=tf.convert_to_tensor(gradient),
        )
        if self.use_ema:
            average = self.averages[place].value
            average.assign_sub((1.0 - self.ema_momentum) * (average - variable))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same optimizer from."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        groups = [{**group, "paths": [*group["paths"]]} for group in self.groups]
        return {**super().get_config(), **own, "groups": groups}


@SERIALISABLE
class ScheduledRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rates of a `vit_core.training.Schedule`; beyond its last step that of the last.

    Args:
        schedule: a Schedule, or its fields.
        calls: how many times an optimizer is called for one step, which is where it accumulates gradients.
    """

    def __init__(self, schedule: Schedule | Mapping[str, Any], calls: int = 1) -> None:
        super().__init__()
        self.schedule = schedule if isinstance(schedule, Schedule) else Schedule(**schedule)
        self.calls = calls
        self._rates = [self.schedule(step) for step in range(self.schedule.steps)]

    def __call__(self, step: Any) -> Tensor:
        """The rate at a call of the optimizer, counted from 0: a float64 scalar."""
        place = tf.minimum(tf.cast(step, tf.int64) // self.calls, self.schedule.steps - 1)
        return tf.gather(tf.constant(self._rates, tf.float64), place)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same schedule from."""
        return {"schedule": asdict(self.schedule), "calls": self.calls}


def groups_of(model: TFViTPreTrainedModel, optimisation: Optimisation) -> list[dict[str, Any]]:
    """The groups of a model's weights, as GroupedAdamW takes them, with the weights by canonical name as well."""
    weights = model.named_weights()
    groups = optimisation.groups(model.config, type(model), **model.options)
    return [
        {
            "paths": tuple(weights[name].path for name in group.names),
            "weight_decay": group.weight_decay,
            "scale": group.scale,
        }
        for group in groups
    ]


def optimizer(model: TFViTPreTrainedModel, optimisation: Optimisation, schedule: Schedule | float) -> GroupedAdamW:
    """An optimizer for `model.compile` that moves the weights as a recipe says.

    Example:
        model.compile(optimizer(model, Optimisation(layer_decay=0.75, clip=1.0), Schedule(1e-3, steps=1000, warmup=50)))

    Args:
        model: to train, or the one inside a larger one.
        optimisation: the recipe. Its precision is the model's policy, so `TrainStep` has it and this has not; for
            `recompute` call `model.gradient_checkpointing_enable()`. With `accumulate` each batch of `fit` is one part.
        schedule: learning rates by step, or one for all.

    Raises:
        InputError: the model computes in another precision, or trains weights that the recipe leaves as they are.
    """
    model_name = type(model).__name__
    optimisation.check_dtype(model_name, model.variable_dtype)
    if optimisation.precision != model.compute_dtype.replace("float64", "float32"):
        raise InputError(
            f"{model_name}: optimizer: precision: expected that of the model, {model.compute_dtype}, got "
            f"{optimisation.precision}.\nMake the model with dtype='mixed_{optimisation.precision}'."
        )
    groups = groups_of(model, optimisation)
    paths = {path for group in groups for path in group["paths"]}
    table = model.parameter_table()
    if frozen := [
        name
        for name, weight in model.named_weights().items()
        if weight.trainable and name in table and weight.path not in paths
    ]:
        raise InputError(
            f"{model_name}: optimizer: freeze={optimisation.freeze!r} leaves {frozen[0]} as it is, the model trains "
            "it.\nSet `trainable` of those layers to False, such as model.vit.trainable = False."
        )
    parts = optimisation.accumulate
    return GroupedAdamW(
        ScheduledRate(schedule, parts) if isinstance(schedule, Schedule) else float(schedule),
        groups,
        *optimisation.betas,
        optimisation.epsilon,
        global_clipnorm=optimisation.clip,
        use_ema=optimisation.average is not None,
        ema_momentum=optimisation.average or 0.0,
        gradient_accumulation_steps=parts if parts > 1 else None,
    )
