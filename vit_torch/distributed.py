"""A model on several processes, one device each: copies of it (DDP), or shares of its weights (FSDP2).

`torchrun` starts the processes. All make the same model and take the same batches; each computes its own images.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from vit_core.errors import BackendError, InputError
from vit_core.training import TrainingBatch
from vit_core.training.batches import parts

How = Literal["ddp", "fsdp"]


def spread(model: Any, how: How) -> nn.Module:
    """A model on all processes: a DistributedDataParallel around it, or the same model, its weights sharded in place.

    With "fsdp" each layer is gathered when it computes, and everything else once more around all of them.

    Raises:
        InputError: another word.
        BackendError: there is no group of processes.
    """
    if how not in ("ddp", "fsdp"):
        raise InputError(f"distributed: expected 'ddp', 'fsdp' or None, got {how!r}.")
    if not dist.is_initialized():
        raise BackendError(
            f"distributed={how!r}: torch has no group of processes.\n"
            'Start with torchrun, and call torch.distributed.init_process_group() first ("gloo" on a CPU).'
        )
    if how == "ddp":
        return DistributedDataParallel(model)
    for part in model.modules():
        if hasattr(part, "recomputing"):  # a stack of layers
            for layer in getattr(part, "layer", None) or part.decoder_layers:
                fully_shard(layer)
    # what is gathered by an evaluation must not stay: the average of the weights would take part in the next step
    sharded: nn.Module = fully_shard(model, reshard_after_forward=True)
    return sharded


def own_part(part: TrainingBatch, config: Any) -> tuple[TrainingBatch, Any]:
    """What this process computes of a part of a batch, and its share of it.

    Where there are more processes than images, those that are left over compute the first ones for nothing: all have
    to take part in the exchange of gradients.
    """
    cuts, rank = parts(part, dist.get_world_size(), config), dist.get_rank()
    return cuts[rank] if rank < len(cuts) else (cuts[0][0], 0.0)


def summed(number: Tensor) -> Tensor:
    """The sum of a number over all processes."""
    dist.all_reduce(number)
    return number


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all processes where they hold shares of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, values: Tensor) -> None:
    """Copies whole values into a tensor, or into the shares of it."""
    if isinstance(tensor, DTensor):
        values = distribute_tensor(values.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, whatever each process holds of them: ()."""
    norm = get_total_norm([local(gradient) for gradient in gradients])
    if any(isinstance(gradient, DTensor) for gradient in gradients):
        return summed(norm.square()).sqrt()
    return norm


def is_sharded(model: nn.Module) -> bool:
    """Whether processes hold shares of the weights."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def without_gradients(model: nn.Module) -> torch.no_grad | torch.inference_mode:
    """Around evaluation. Differs: tensors of inference mode stay in what FSDP gathers into, and break the next step."""
    return torch.no_grad() if is_sharded(model) else torch.inference_mode()
