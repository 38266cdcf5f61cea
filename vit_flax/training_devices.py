"""What a run in JAX is computed on: one device, or a mesh of several, of this process or of all that a cluster runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils

from vit_core.training import Optimisation
from vit_core.training.devices import check_count, cores, refuse_torchrun, words_of
from vit_flax.sharding import data_mesh
from vit_flax.training import TrainStep

# How clusters say how many processes they have started; `jax.distributed.initialize` finds out the rest.
_PROCESSES = ("JAX_NUM_PROCESSES", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


class Devices:
    """See `vit_core.training.devices.Devices`.

    Where a cluster has started several processes (Slurm, Open MPI, hosts of a TPU slice, or JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID), the devices are those of all of them.

    Args:
        count: of devices; None for one, or for all of a cluster. A CPU is cut into as many.
        is_sharded: each holds a share of parameters, moments and average in place of a copy.

    Raises:
        BackendError: there are not so many devices.
        InputError: torchrun has started several processes.
    """

    def __init__(self, count: int | None, *, is_sharded: bool = False) -> None:
        refuse_torchrun("flax")
        is_cluster = any(int(os.environ.get(name, 1)) > 1 for name in _PROCESSES)
        is_cluster |= "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        if is_cluster:
            _join()
        elif count:
            _cut_cpu(count)
            check_count(count, *there())
        self.count = count or (len(jax.devices()) if is_cluster else 1)
        self.words, self.is_sharded = words_of(self.count, is_sharded), is_sharded
        self.rank: int = jax.process_index()
        self.mesh = data_mesh(self.count) if self.count > 1 or is_sharded else None

    def train_step(self, make: Callable[[], Any], optimisation: Optimisation) -> TrainStep:
        """The step of a model on these devices."""
        return TrainStep(make(), optimisation, mesh=self.mesh, sharded=self.is_sharded)

    def agreed(self, word: int) -> int:
        """What process 0 gave; all processes have come here when it returns."""
        if jax.process_count() == 1:
            return word
        return int(multihost_utils.broadcast_one_to_all(jax.numpy.asarray(word)))

    def free_bytes(self) -> int | None:
        """Memory of a device that a run could still take; None where JAX does not say, as on a CPU."""
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("bytes_limit")

    def close(self) -> None:
        """Leaves the group of processes, where there is one."""
        if jax.process_count() > 1:
            jax.distributed.shutdown()


def there() -> tuple[int, str]:
    """How many devices there are, and what they are."""
    found = jax.devices()
    return len(found), "devices" if found[0].platform == "cpu" else f"{found[0].platform.upper()} devices"


def _join() -> None:
    given = (os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    count, rank = (None if text is None else int(text) for text in given)
    jax.distributed.initialize(num_processes=count, process_id=rank)


def _cut_cpu(count: int) -> None:
    """Makes several devices of the CPU, if JAX does not run yet and nobody has said how many."""
    is_said = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    known = getattr(jax.config, "jax_num_cpu_devices", -1)  # which its types do not name
    if is_said or known >= 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", min(count, cores()))
    except RuntimeError:  # it runs, with the devices that it has
        return
