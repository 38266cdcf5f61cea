"""One step of training in PyTorch: AdamW with groups, clipping, accumulation, autocast, and an average of the weights.

A loop around it is a few lines:

    step = TrainStep(model, Optimisation(layer_decay=0.75, clip=1.0))
    schedule = Schedule(rate=1e-3, steps=len(batches))
    for number, batch in enumerate(batches):
        result = step(batch, schedule(number))

Source: torch.optim.AdamW and torch.amp of torch 2.13; `vit_core.training.Optimisation` says which arithmetic it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vit_core.errors import InputError
from vit_core.tensors import Array, dtype_name, to_numpy
from vit_core.training import Draws, Optimisation, StepResult, TrainingBatch
from vit_core.training.batches import arguments, parts, trained_class
from vit_core.training.groups import Group
from vit_core.training.steps import FIRST_LOSS_SCALE, LOSS_SCALE_DOUBLES_AFTER, check_state
from vit_torch.distributed import How, fill, local, norm_of, own_part, spread, summed, whole, without_gradients
from vit_torch.layers import at_least_float32
from vit_torch.trainer_folders import ModelFolders
from vit_torch.weights import as_tensor

__all__ = ["ModelFolders", "TrainStep", "adamw", "loss_of"]

_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}  # canonical word -> torch's


class TrainStep:
    """A model with its optimiser; a call moves the weights by one batch. See `vit_core.training.TrainStep`.

    Args:
        model: with a loss, on its device, or what `torch.compile` made of it. What the optimisation freezes, and what
            is never trained, stops requiring gradients. What required none before stays as it is.
        optimisation: how the weights are moved.
        distributed: "ddp" or "fsdp" on the processes of `torchrun`: copies of the model, or shares of its weights. Each
            process is given every batch, and computes its share of the images; `evaluate`, `state` and `restore` are
            called by all of them, and tell each the whole.

    Raises:
        InputError: a model without a loss, or in a dtype that is not trained; float16 with shares of the weights.
        BackendError: `distributed`, and no group of processes.
    """

    def __init__(
        self, model: nn.Module, optimisation: Optimisation | None = None, *, distributed: How | None = None
    ) -> None:
        self.model, self.optimisation, self.distributed = model, optimisation or Optimisation(), distributed
        inner = inner_of(model)
        self._name = trained_class(type(inner))
        self.optimisation.check_dtype(self._name, dtype_name(inner.dtype))
        self.device: torch.device = inner.device
        if distributed == "fsdp" and self.optimisation.precision == "float16":
            raise InputError(f"{self._name}: float16 is not for shares of the weights.\nUse precision='bfloat16'.")
        if distributed is not None:
            freeze(inner, self.optimisation.groups(inner.config, type(inner), **inner.options))
            self.model = spread(model, distributed)
        self.optimizer = adamw(inner, self.optimisation)
        self.parameters: dict[str, nn.Parameter] = dict(inner.named_parameters())
        self.trained = {name: each for name, each in self.parameters.items() if each.requires_grad}
        self.average: dict[str, Tensor] | None = None
        if self.optimisation.average is not None:  # what is frozen is its own average
            self.average = {
                name: each.detach().clone() if name in self.trained else each.detach()
                for name, each in self.parameters.items()
            }
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=FIRST_LOSS_SCALE,
            growth_interval=LOSS_SCALE_DOUBLES_AFTER,
            enabled=self.optimisation.precision == "float16",
        )
        self.steps = 0
        if self.optimisation.recompute:
            inner.gradient_checkpointing_enable()

    def __call__(self, batch: TrainingBatch, rate: float) -> StepResult:
        """Moves the weights by one step of the given learning rate. The mode of the model stays as it was.

        Raises:
            InputError: a batch that does not fit the model.
        """
        self.optimizer.zero_grad()
        config = inner_of(self.model).config
        processes = 1 if self.distributed is None else dist.get_world_size()
        loss = torch.zeros((), device=self.device)
        with in_mode(self.model, training=True), self._drawing():
            for part, share in parts(batch, self.optimisation.accumulate, config):
                own, of_part = (part, 1.0) if self.distributed is None else own_part(part, config)
                with self._autocast():
                    found = loss_of(self.model, own) * (share * of_part)
                self.scaler.scale(found * processes).backward()  # gradients are averaged over the processes
                loss = loss + found.detach()
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.scaler.step(self.optimizer)  # leaves the step out where a gradient is not finite
        self.scaler.update()
        if not self.scaler.is_enabled() or norm.isfinite():
            self.steps += 1
            self._move_average()
        return StepResult(loss if self.distributed is None else summed(loss), norm)

    def _clip(self) -> Tensor:
        """The norm of all gradients together, which are scaled where it is too large.

        Differs: by clip / norm; torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm.
        """
        gradients = [each.grad for each in self.trained.values() if each.grad is not None]
        norm = norm_of(gradients)
        if self.optimisation.clip is not None:
            torch._foreach_mul_([local(each) for each in gradients], (self.optimisation.clip / norm).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def _move_average(self) -> None:
        if self.average is not None:
            averages = [local(self.average[name]) for name in self.trained]
            weights = [local(each) for each in self.trained.values()]
            torch._foreach_lerp_(averages, weights, 1 - (self.optimisation.average or 0.0))

    def evaluate(self, batch: TrainingBatch, *, averaged: bool = False) -> dict[str, Array]:
        """The outputs of the model in evaluation by the names of its fields; see `vit_core.training.TrainStep`.

        Raises:
            InputError: a batch that does not fit the model, or there is no average.
        """
        inner = inner_of(self.model)
        given = _tensors(inner, arguments(type(inner), inner.config, batch, training=False))
        with self._weights(averaged), in_mode(self.model, training=False), without_gradients(inner), self._autocast():
            output = self.model(**given, return_dict=True)
        found = {name: value for name, value in output.items() if isinstance(value, Tensor)}
        wide = {
            name: value.to(at_least_float32(value.dtype)) for name, value in found.items() if value.is_floating_point()
        }
        return {name: to_numpy(value) for name, value in {**found, **wide}.items()}

    @contextmanager
    def _weights(self, averaged: bool) -> Iterator[None]:
        """The average in place of the weights, which come back to the bit."""
        if not averaged:
            yield
            return
        self.optimisation.check_average(self._name)
        kept = {name: each.detach().clone() for name, each in self.trained.items()}
        try:
            self._assign(self.average or {})
            yield
        finally:
            self._assign(kept)

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, each in self.trained.items():
            each.copy_(values[name])

    def _autocast(self) -> torch.autocast:
        precision = self.optimisation.precision
        is_mixed = precision != "float32"
        return torch.autocast(self.device.type, getattr(torch, precision) if is_mixed else None, enabled=is_mixed)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Random numbers of the step alone; the caller's go on as if none had been drawn."""
        kind = self.device.type
        rank = 0 if self.distributed is None else dist.get_rank()
        seed = Draws(self.optimisation.seed, "dropout", self.steps, rank).below(2**53)
        with torch.random.fork_rng(
            [self.device] if kind != "cpu" else [], device_type=kind if kind != "cpu" else "cuda"
        ):
            torch.default_generator.manual_seed(seed)
            if kind != "cpu":
                torch.get_device_module(kind).manual_seed(seed)
            yield

    # --- states ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Everything that the next step goes by; see `vit_core.training.TrainStep`."""
        return {name: to_numpy(whole(tensor)).copy() for name, tensor in self._tensors().items()} | self._counts()

    def restore(self, state: Mapping[str, Array]) -> None:
        """Goes on from a `state`, to the bit.

        Raises:
            InputError: the state of another model or of other settings.
        """
        tensors = self._tensors()
        shapes = {
            name: np.broadcast_to(np.zeros((), dtype_name(each.dtype)), each.shape) for name, each in tensors.items()
        }
        check_state(self._name, {**shapes, **self._counts()}, state)
        with torch.no_grad():
            for name, tensor in tensors.items():
                fill(tensor, as_tensor(np.array(state[name])))
        self.steps = int(state["steps"])
        for moments in self.optimizer.state.values():
            moments["step"].fill_(self.steps)
        if self.scaler.is_enabled():
            counts = {"scale": float(state["loss_scale"]), "_growth_tracker": int(state["good_steps"])}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **counts})

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of a state, which training goes on with."""
        named: dict[str, Mapping[str, Tensor]] = {"model": self.parameters}
        if self.average is not None:
            named["average"] = self.average
        for word, key in _MOMENTS.items():
            named[word] = {name: self.optimizer.state[each][key] for name, each in self.trained.items()}
        return {f"{word}.{name}": each.detach() for word, tensors in named.items() for name, each in tensors.items()}

    def _counts(self) -> dict[str, Array]:
        counts = {"steps": np.array(self.steps)}
        if self.scaler.is_enabled():
            scaler = self.scaler.state_dict()
            counts["loss_scale"] = np.array(scaler["scale"], np.float32)
            counts["good_steps"] = np.array(scaler["_growth_tracker"])
        return counts


def freeze(model: Any, groups: list[Group]) -> dict[str, nn.Parameter]:
    """Has no parameters but those of the groups require gradients; returns these, by name.

    What required none before is not trained, as with `trainable` in Keras, unless it was another recipe that froze it.

    Raises:
        InputError: nothing is left to train, or the model is optimised for inference.
    """
    with in_mode(model, training=True):
        pass  # a model that is optimised for inference refuses to be trained here; its weights all look frozen below
    names = {name for group in groups for name in group.names}
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
    ours: set[str] = getattr(model, "frozen_by_recipe", set())
    free = {name for name in names if parameters[name].requires_grad or name in ours}
    if not free:
        raise InputError(f"{type(model).__name__}: TrainStep: no parameter is left to train: all are frozen.")
    model.frozen_by_recipe = {
        name for name, each in parameters.items() if name not in names and (each.requires_grad or name in ours)
    }
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in free)
    return {name: parameters[name] for group in groups for name in group.names if name in free}


def adamw(model: Any, optimisation: Optimisation) -> torch.optim.AdamW:
    """The optimiser of a model, its moments zero. Groups have a `scale` of the learning rate; set their "lr" by it.

    Other parameters than those of the groups stop requiring gradients.
    """
    groups = optimisation.groups(model.config, type(model), **model.options)
    trained = freeze(model, groups)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [trained[name] for name in group.names if name in trained],
                "weight_decay": group.weight_decay,
                "scale": group.scale,
            }
            for group in groups
            if not trained.keys().isdisjoint(group.names)
        ],
        lr=0.0,
        betas=optimisation.betas,
        eps=optimisation.epsilon,
        fused=model.device.type in ("cpu", "cuda", "xpu", "mps"),
    )
    for parameter in trained.values():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            **{key: torch.zeros_like(parameter) for key in _MOMENTS.values()},
        }
    return optimizer


def loss_of(model: nn.Module, batch: TrainingBatch) -> Tensor:
    """The loss of a batch, in float32 or wider: ().

    Of a classifier it is that of the recipe: the mean over the images of -sum(targets * log_softmax(logits)). The
    model's own one takes floating labels for several labels of an image.

    Raises:
        InputError: a batch that does not fit the model.
    """
    inner = inner_of(model)
    output = model(**_tensors(inner, arguments(type(inner), inner.config, batch, training=True)), return_dict=True)
    if batch.targets is None:
        loss: Tensor = output.loss
        return loss
    logits = output.logits.to(at_least_float32(output.logits.dtype))
    targets = as_tensor(batch.targets).to(logits)
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def inner_of(model: nn.Module) -> Any:
    """The model itself, out of what torch.compile or DDP made of it."""
    model = getattr(model, "_orig_mod", model)
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Sets every module to training or evaluation, and each back to what it was."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _tensors(model: Any, given: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: as_tensor(np.asarray(value)).to(model.device) for name, value in given.items()}
