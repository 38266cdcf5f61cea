"""One step of training in JAX: optax over groups, clipping, accumulation, mixed precision, an average of the weights.

`training_step(model, optimisation)` is a pure function of a state, a batch and a rate, to compile and to take away:

    step = jax.jit(training_step(model, optimisation), donate_argnums=0)
    state = first_state(model, optimisation)
    for number, batch in enumerate(batches):
        state, result = step(state, batch, schedule(number))

`TrainStep` is that for a model that holds its parameters.

Source: optax 0.2.8; `vit_core.training.Optimisation` says which arithmetic it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax import Array
from jax.sharding import Mesh, NamedSharding

from conversion.layouts import from_canonical, to_canonical
from vit_core.errors import InputError
from vit_core.tensors import dtype_name, to_numpy
from vit_core.training import Draws, Optimisation, StepResult, TrainingBatch
from vit_core.training.batches import arguments, parts, trained_class
from vit_core.training.groups import Group
from vit_core.training.steps import FIRST_LOSS_SCALE, LOSS_SCALE_DOUBLES_AFTER, check_state
from vit_flax.layers import at_least_float32
from vit_flax.sharding import DATA, batch_places, check_mesh, gathered, put, state_places
from vit_flax.weights import Params, path_of, tree_of

Leaves = dict[str, Array]  # canonical name -> leaf in Flax' layout


class TrainStep:
    """A model with its optimiser; a call moves its parameters by one batch. See `vit_core.training.TrainStep`.

    After each step `model.params` are the new ones; the arrays that were there before are given away, and gone.

    Args:
        model: with a loss and parameters.
        optimisation: how the parameters are moved.
        mesh: devices, of this process or of several, each of which computes its images of every batch; see
            `vit_flax.sharding.data_mesh`. Every process is given every batch, and calls every method.
        sharded: each device of the mesh holds a share of parameters, moments and average in place of a copy.

    Raises:
        InputError: a model without a loss, or in a dtype that is not trained; shares, and no mesh with an axis "data".
    """

    def __init__(
        self,
        model: Any,
        optimisation: Optimisation | None = None,
        *,
        mesh: Mesh | None = None,
        sharded: bool = False,
    ) -> None:
        self.model, self.optimisation, self.mesh = model, optimisation or Optimisation(), mesh
        if sharded and mesh is None:
            raise InputError("sharded=True: expected a mesh as well, such as vit_flax.sharding.data_mesh().")
        self._name = trained_class(type(model))
        self.optimisation.check_dtype(self._name, dtype_name(jax.tree.leaves(model.params)[0].dtype))
        self.current, places = first_state(model, self.optimisation), None
        if mesh is not None:
            check_mesh(mesh)
            places = state_places(mesh, self.current, sharded=sharded), None
            self.current = jax.tree.map(put, self.current, places[0])
        self._step = jax.jit(training_step(model, self.optimisation, mesh), donate_argnums=0, out_shardings=places)
        self._computing = computing_model(model, self.optimisation)
        self._show()

    def __call__(self, batch: TrainingBatch, rate: float) -> StepResult:
        """Moves the parameters by one step of the given learning rate; compiled once for every size of batch.

        Raises:
            InputError: a batch that does not fit the model.
        """
        self.current, result = self._step(self.current, self._on_devices(batch), float(rate))
        self._show()
        return result

    def _on_devices(self, batch: TrainingBatch) -> TrainingBatch:
        """The images of a batch where they are computed."""
        return batch if self.mesh is None else jax.tree.map(put, batch, batch_places(self.mesh, batch))

    def _show(self) -> None:
        """Gives the model the parameters of the state."""
        self.model.params = tree_of(self.model.parameter_table(), self.current.weights)

    def evaluate(self, batch: TrainingBatch, *, averaged: bool = False) -> dict[str, np.ndarray]:
        """The outputs of the model in evaluation by the names of its fields; see `vit_core.training.TrainStep`.

        Raises:
            InputError: a batch that does not fit the model, or there is no average.
        """
        if averaged:
            self.optimisation.check_average(self._name)
        given = arguments(type(self.model), self.model.config, self._on_devices(batch), training=False)
        weights = {**self.current.weights, **((self.current.average or {}) if averaged else {})}
        params = tree_of(self.model.parameter_table(), weights)
        output = self._computing(**given, params=params, return_dict=True)
        found = {name: value for name, value in output.items() if isinstance(value, Array)}
        return {name: to_numpy(gathered(value.astype(wide(value.dtype)))) for name, value in found.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step goes by; see `vit_core.training.TrainStep`."""
        table = self.model.parameter_table()
        places = {name: place for place, name in enumerate(table)}
        found = {
            f"{word}.{name}": np.array(to_canonical(to_numpy(gathered(leaf)), table[name].kind, "flax"), order="C")
            for word, leaves in self._leaves().items()
            for name, leaf in sorted(leaves.items(), key=lambda item: places[item[0]])  # compiled code sorts names
        }
        return found | self._counts()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a `state`, to the bit.

        Raises:
            InputError: the state of another model or of other settings.
        """
        table = self.model.parameter_table()
        held = {
            f"{word}.{name}": (name, leaf) for word, leaves in self._leaves().items() for name, leaf in leaves.items()
        }
        shapes = {
            key: np.broadcast_to(np.zeros((), leaf.dtype), table[name].shape) for key, (name, leaf) in held.items()
        }
        check_state(self._name, shapes | self._counts(), state)
        new: dict[str, Leaves] = {word: {} for word in self._leaves()}
        for key, (name, leaf) in held.items():
            array = from_canonical(np.asarray(state[key]), table[name].kind, "flax")
            new[key.partition(".")[0]][name] = _as_before(array, leaf)
        adam, *rest = self.current.optimizer
        steps = _as_before(np.asarray(state["steps"], np.int32), adam.count)
        adam = adam._replace(count=steps, mu=new["first"], nu=new["second"])
        scale, good = self.current.loss_scale, self.current.good_steps
        self.current = State(
            new["model"],
            (adam, *rest),
            {name: new["average"][name] for name in new["first"]} if "average" in new else None,
            None if scale is None else _as_before(np.asarray(state["loss_scale"], np.float32), scale),
            None if good is None else _as_before(np.asarray(state["good_steps"], np.int32), good),
        )
        self._show()

    def _leaves(self) -> dict[str, Leaves]:
        """The arrays of a state, by word and canonical name."""
        weights, (adam, *_), average, *_ = self.current
        averages = {} if average is None else {"average": {**weights, **average}}  # what is frozen is its own
        return {"model": weights, **averages, "first": adam.mu, "second": adam.nu}

    def _counts(self) -> dict[str, np.ndarray]:
        counts = {"steps": np.array(self.current.optimizer[0].count, np.int64)}  # on every device the same
        if self.current.loss_scale is not None:
            counts["loss_scale"] = np.array(self.current.loss_scale, np.float32)
            counts["good_steps"] = np.array(self.current.good_steps, np.int64)
        return counts


class State(NamedTuple):
    """What one step hands on to the next: a pytree.

    Attributes:
        weights: every parameter by canonical name.
        optimizer: the state of `adamw`; first in it the moments of the parameters that are trained, and their count.
        average: of the parameters that are trained; None without one.
        loss_scale, good_steps: of float16; None otherwise.
    """

    weights: Leaves
    optimizer: Any
    average: Leaves | None = None
    loss_scale: Array | None = None
    good_steps: Array | None = None


def adamw(groups: list[Group], optimisation: Optimisation) -> optax.GradientTransformation:
    """AdamW for a rate of 1 over parameters by canonical name: its updates times the rate are added to them."""
    betas = dict(zip(("b1", "b2"), optimisation.betas, strict=True))
    return optax.chain(
        optax.scale_by_adam(**betas, eps=optimisation.epsilon, eps_root=0.0),
        optax.multi_transform(
            {
                place: optax.chain(optax.add_decayed_weights(group.weight_decay), optax.scale(-group.scale))
                for place, group in enumerate(groups)
            },
            {name: place for place, group in enumerate(groups) for name in group.names},
        ),
    )


def first_state(model: Any, optimisation: Optimisation) -> State:
    """The state before the first step, with copies of the model's parameters: a step may give its state away."""
    groups = optimisation.groups(model.config, type(model), **model.options)
    weights = {name: jnp.array(leaf, copy=True) for name, leaf in leaves_of(model, model.params).items()}
    trained = {name: weights[name] for group in groups for name in group.names}
    is_scaled = optimisation.precision == "float16"
    return State(
        weights,
        adamw(groups, optimisation).init(trained),
        None if optimisation.average is None else {name: jnp.array(leaf, copy=True) for name, leaf in trained.items()},
        jnp.float32(FIRST_LOSS_SCALE) if is_scaled else None,
        jnp.int32(0) if is_scaled else None,
    )


def training_step(
    model: Any, optimisation: Optimisation, mesh: Mesh | None = None
) -> Callable[[State, TrainingBatch, Any], Any]:
    """A pure function: state, batch, rate -> the next state and a StepResult.

    Args:
        model: of which the classes and the configuration are used, and no parameters.
        optimisation: how the weights are moved.
        mesh: over whose devices the images of a batch are split. Those that do not divide by the devices are computed
            by all of them.
    """
    devices = 1 if mesh is None else mesh.shape[DATA]
    groups = optimisation.groups(model.config, type(model), **model.options)
    names = [name for group in groups for name in group.names]
    optimizer, table, computing = (
        adamw(groups, optimisation),
        model.parameter_table(),
        computing_model(model, optimisation),
    )
    first_key = Draws(optimisation.seed, "dropout").below(2**31)

    def step(state: State, batch: TrainingBatch, rate: Any) -> tuple[State, StepResult]:
        trained = {name: state.weights[name] for name in names}
        scale = 1.0 if state.loss_scale is None else state.loss_scale
        key = jax.random.fold_in(jax.random.key(first_key), state.optimizer[0].count)

        def part_of_loss(trained: Leaves, part: TrainingBatch, share: Any, number: Any) -> tuple[Array, Array]:
            if mesh is not None:
                part = jax.lax.with_sharding_constraint(part, batch_places(mesh, part))
            params = tree_of(table, {**state.weights, **trained})
            found = loss_of(computing, params, part, jax.random.fold_in(key, number))
            found = found * jnp.asarray(share, found.dtype)
            return found * scale, found

        gradients, loss = accumulated(
            jax.grad(part_of_loss, has_aux=True), trained, parts(batch, optimisation.accumulate, model.config, devices)
        )
        gradients = jax.tree.map(lambda gradient: gradient / scale, gradients)
        norm = optax.tree.norm(gradients)
        if optimisation.clip is not None:
            factor = jnp.minimum(optimisation.clip / norm, 1.0)
            gradients = jax.tree.map(lambda gradient: gradient * factor, gradients)
        updates, moved = optimizer.update(gradients, state.optimizer, trained)
        trained = optax.apply_updates(trained, jax.tree.map(lambda update: rate * update, updates))
        average = state.average
        if average is not None and optimisation.average is not None:
            average = optax.incremental_update(trained, average, 1 - optimisation.average)
        new = State({**state.weights, **trained}, moved, average, state.loss_scale, state.good_steps)
        if new.loss_scale is not None and new.good_steps is not None:
            new = scaled(state, new, jnp.isfinite(norm), new.loss_scale, new.good_steps + 1)
        return new, StepResult(loss, norm)

    return step


def accumulated(
    gradient_of: Callable[..., tuple[Leaves, Array]], trained: Leaves, cuts: list[tuple[TrainingBatch, Any]]
) -> tuple[Leaves, Array]:
    """The gradients and the loss of all parts, computed one after the other: those of equal size in a loop."""
    even = [cut for cut in cuts if len(cut[0].pixel_values) == len(cuts[0][0].pixel_values)]
    if len(even) == 1:
        total = gradient_of(trained, *even[0], 0)
    else:

        def add(total: Any, cut: Any) -> tuple[Any, None]:
            (part, share), number = cut
            return jax.tree.map(jnp.add, total, gradient_of(trained, part, share, number)), None

        zeros = jax.tree.map(jnp.zeros_like, trained)
        nothing = zeros, jnp.zeros((), next(iter(trained.values())).dtype)
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *even)
        total, _ = jax.lax.scan(add, nothing, (stacked, jnp.arange(len(even))))
    for number, (part, share) in enumerate(cuts[len(even) :], len(even)):  # at most one, on a mesh two
        total = jax.tree.map(jnp.add, total, gradient_of(trained, part, share, number))
    return total


def loss_of(model: Any, params: Params, batch: TrainingBatch, key: Array) -> Array:
    """The loss of a batch, in float32 or wider: ().

    Of a classifier it is that of the recipe: the mean over the images of -sum(targets * log_softmax(logits)). The
    model's own one takes floating labels for several labels of an image.
    """
    given = arguments(type(model), model.config, batch, training=True)
    output = model(**given, params=params, dropout_rng=key, train=True, return_dict=True)
    if batch.targets is None:
        return output.loss
    logits = output.logits.astype(at_least_float32(output.logits.dtype))
    return -(jnp.asarray(batch.targets, logits.dtype) * jax.nn.log_softmax(logits, -1)).sum(-1).mean()


def scaled(old: State, new: State, is_finite: Array, scale: Array, good: Array) -> State:
    """The new state with the scale of the next loss; or the old one, with half of its scale."""
    kept = jax.tree.map(lambda one, other: jnp.where(is_finite, one, other), new, old)
    doubles = good == LOSS_SCALE_DOUBLES_AFTER
    return kept._replace(
        loss_scale=scale * jnp.where(is_finite, jnp.where(doubles, 2.0, 1.0), 0.5),
        good_steps=jnp.where(is_finite & ~doubles, good, 0),
    )


def computing_model(model: Any, optimisation: Optimisation) -> Any:
    """The model as it computes in training: in the precision asked for, its layers recomputed where asked for."""
    computing = copy(model)
    if optimisation.precision != "float32":
        computing.dtype = jnp.dtype(optimisation.precision)
    computing.checkpointing = model.checkpointing or optimisation.recompute
    return computing


def wide(dtype: Any) -> Any:
    """The dtype in which an output leaves: floating ones in float32 or wider."""
    return at_least_float32(dtype) if jnp.issubdtype(dtype, jnp.floating) else dtype


def _as_before(array: np.ndarray, leaf: Array) -> Array:
    """Values in place of a leaf, where that is."""
    if isinstance(leaf.sharding, NamedSharding):
        return put(array, leaf.sharding)
    copied = jnp.array(array, copy=True)
    # where the caller had chosen no device, choosing one now would compile the step anew
    return jax.device_put(copied, leaf.sharding) if leaf.committed else copied


def leaves_of(model: Any, params: Params) -> Leaves:
    """A tree of parameters by canonical name."""
    flat = flatten_dict(params)
    return {name: flat[path_of(row)] for name, row in model.parameter_table().items()}
