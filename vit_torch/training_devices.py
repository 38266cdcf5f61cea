"""What a run in PyTorch is computed on: the accelerator or the CPU, or one of these for each process of a group."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from vit_core.errors import InputError
from vit_core.training import Optimisation
from vit_core.training.devices import check_count, cores, words_of
from vit_torch.distributed import How
from vit_torch.training import TrainStep
from vit_torch.weights import placed

MEETING = "VITRIAD_MEETING"  # where the processes of `vitriad --devices` find one another; those of torchrun: env://


class Devices:
    """See `vit_core.training.devices.Devices`.

    In a process of torchrun, or of any launcher that says RANK, LOCAL_RANK and WORLD_SIZE, it joins the others, by NCCL
    where there are CUDA devices and by gloo elsewhere.

    Args:
        count: of devices; None for one, or for as many as the launcher has started processes.
        is_sharded: each holds a share of weights and moments (FSDP2) in place of a copy (DDP).

    Raises:
        InputError: a launcher has started another number of processes.
        BackendError: there are not so many devices.
    """

    def __init__(self, count: int | None, *, is_sharded: bool = False) -> None:
        processes = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
        if count not in (None, processes):
            raise InputError(f"--devices {count}: expected {processes}, as many as processes were started.")
        self.count, self.words, self.rank = processes, words_of(processes, is_sharded), 0
        self.device = placed("Devices", "auto")
        if self.device.type == "cuda":
            place = int(os.environ.get("LOCAL_RANK", 0))
            check_count(place + 1, *there())
            self.device = torch.device("cuda", place)
            torch.cuda.set_device(self.device)
        self.how: How | None = "fsdp" if is_sharded else "ddp" if processes > 1 else None
        if processes > 1 or is_sharded:
            self._join()

    def _join(self) -> None:
        os.environ.setdefault("RANK", "0")
        os.environ.setdefault("WORLD_SIZE", "1")
        meeting = os.environ.get(MEETING)
        if meeting:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        elif "MASTER_ADDR" not in os.environ:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        dist.init_process_group(
            "cuda:nccl,cpu:gloo" if self.device.type == "cuda" else "gloo",
            init_method=meeting or "env://",
            rank=int(os.environ["RANK"]),
            world_size=self.count,
        )
        self.rank = dist.get_rank()

    def train_step(self, make: Callable[[], Any], optimisation: Optimisation) -> TrainStep:
        """The step of a model on these devices."""
        return TrainStep(make().to(self.device), optimisation, distributed=self.how)

    def agreed(self, word: int) -> int:
        """What process 0 gave; all processes have come here when it returns."""
        if not dist.is_initialized():
            return word
        said = torch.tensor(word if self.rank == 0 else 0)  # on the CPU: the host goes by it, no device waits
        dist.all_reduce(said)
        return int(said)

    def free_bytes(self) -> int | None:
        """Memory of a device that a run could still take, what torch keeps for itself included; None on a CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)

    def close(self) -> None:
        """Leaves the group of processes, where there is one."""
        if dist.is_initialized():
            dist.destroy_process_group()


def there() -> tuple[int, str]:
    """How many devices there are, and what they are."""
    if torch.cuda.is_available():
        return torch.cuda.device_count(), "CUDA devices"
    return cores(), "CPU cores"


def _end_with_parent() -> None:
    """Waits until the process that started this one is gone, which closes stdin, and goes too."""
    while os.read(0, 1):  # not sys.stdin, which Python would wait for at its end
        pass
    os._exit(1)
