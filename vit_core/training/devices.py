"""What a run is computed on: one device, several, or those of several processes, in the same words everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vit_core.errors import BackendError, InputError
from vit_core.training.steps import Optimisation, TrainStep


class Devices(Protocol):
    """What a run is computed on: `Devices` of `vit_torch.training_devices`, and so for every backend.

    Attributes:
        count: devices that share the images of each batch.
        rank: number of this process; the one with 0 speaks and writes.
        words: how the run is spread, such as "2" or "2, sharded": with the same words it goes on to the bit.
    """

    count: int
    rank: int
    words: str

    def train_step(self, make: Callable[[], Any], optimisation: Optimisation) -> TrainStep:
        """The step of a model, which `make` makes, on these devices."""

    def agreed(self, word: int) -> int:
        """What process 0 gave; all processes have come here when it returns."""

    def free_bytes(self) -> int | None:
        """Memory of a device that a run could still take; None where nobody says."""

    def close(self) -> None:
        """Leaves the group of processes, where there is one."""


def words_of(count: int, is_sharded: bool) -> str:
    """How a run is spread, for people and for comparing."""
    return f"{count}, sharded" if is_sharded else str(count)


def check_count(asked: int, there: int, kind: str) -> None:
    """Checks that there are as many devices as asked for.

    Raises:
        BackendError: there are not.
    """
    if asked > there:
        raise BackendError(f"--devices: expected at most {there}, the {kind} of this machine, got {asked}.")


def cores() -> int:
    """Cores of the CPU that this process may use: as many devices can be made of it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_torchrun(backend: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuses a backend that does not share work with the processes that torchrun has started.

    Raises:
        InputError: it was started by torchrun.
    """
    if int(environment.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"WORLD_SIZE={environment['WORLD_SIZE']}: expected one process, which has all devices, for {backend}.\n"
            "Start it without torchrun, with --devices N."
        )
