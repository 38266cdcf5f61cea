"""Work on many images shared out by Ray Data: a pool of actors, each of which holds the `Embedder`."""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from vit_core.errors import BackendError, VitError
from vit_core.images.sources import ImageSource
from vit_core.installing import install_command
from vitriad.features import Embedder

_HOST = re.compile(r"(ray://)?(?P<host>[^:/]+):(?P<port>\d+)")  # of RAY_ADDRESS, which may also be a word
_PATIENCE = 10  # seconds to wait for a cluster


class Actor:
    """What every worker holds: an `Embedder`, which comes pickled and loads its model here, once."""

    def __init__(self, work: Callable[..., Any], embedder: Embedder) -> None:
        self._work, self._embedder = work, embedder

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The result for each job of a batch, pickled, or the error that it ends with."""
        found = []
        for job in rows["job"]:
            try:
                found.append(pickle.dumps(self._work(self._embedder, pickle.loads(job), tell=_nothing)))
            except VitError as problem:
                found.append(pickle.dumps(problem))
        return {"number": rows["number"], "found": np.array([*found, None], object)[:-1]}


def pooled(
    work: Callable[..., Any], embedder: Embedder, todo: Sequence[tuple[int, Sequence[ImageSource]]], workers: int
) -> Generator[tuple[int, Any], None, None]:
    """What `work(embedder, sources, tell=...)` gives for each numbered job, in the order in which they are done.

    An actor that dies is started again, and does again what it was at. Workers read images and model under the same
    paths as this process.

    Args:
        workers: how many actors, of one CPU each.

    Raises:
        BackendError: Ray is not installed, or it failed.
    """
    if not todo:
        return
    ray = ray_module()
    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            _start(ray, workers)
        rows = [{"number": number, "job": pickle.dumps(sources)} for number, sources in todo]
        jobs = ray.data.from_items(rows, override_num_blocks=len(rows))
        pool = ray.data.ActorPoolStrategy(size=min(workers, len(rows)))
        arguments = {"fn_constructor_args": (work, embedder), "batch_size": 1, "compute": pool, "num_cpus": 1}
        for row in jobs.map_batches(Actor, **arguments).iter_rows():
            found = pickle.loads(row["found"])
            if isinstance(found, VitError):
                raise found
            yield int(row["number"]), found
    except ray.exceptions.RayError as problem:
        last = (str(problem).strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"ray: {type(problem).__name__}: {last[:300]}") from problem
    finally:
        if is_ours:
            ray.shutdown()


def ray_module() -> Any:
    """Ray, with Ray Data.

    Raises:
        BackendError: it is not there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers about this machine
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of its C++; what stops a run is a Python exception
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError as problem:
        raise BackendError(
            f"--engine ray: needs Ray Data, which cannot be imported: {problem}.\n"
            f"Install it with: {install_command('ray')}"
        ) from None


def _start(ray: Any, workers: int) -> None:
    """Joins the cluster that RAY_ADDRESS names, or starts Ray on this machine.

    Raises:
        BackendError: no such cluster.
    """
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"include_dashboard": False, "num_cpus": workers}
    try:
        if address and (found := _HOST.fullmatch(address)):  # Ray itself waits for minutes, and then ends the process
            socket.create_connection((found["host"], int(found["port"])), _PATIENCE).close()
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError, OverflowError) as problem:
        said = " ".join(str(problem).split())[:300]
        raise BackendError(f"ray: {address or 'this machine'}: cannot be used: {said}") from problem
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _nothing(_: str | None) -> None:
    """Actors show no progress: whoever started them does."""
