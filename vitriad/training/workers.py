"""The processes of `--devices N` in PyTorch: started together, stopped together, and what became of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vit_core.errors import BackendError
from vit_core.training.devices import cores
from vit_core.training.recipe import Recipe
from vitriad.training.folder import LAST, last_step

_MEETING, _FAULTS = "VITRIAD_MEETING", "VITRIAD_FAULTS"  # where they meet; the folder for tracebacks
_FAILED = 70  # exit code of one whose traceback is in that folder
_GRACE, _GLANCE = 5.0, 0.05  # seconds for the others to end after one has; between looks


def run_workers(recipe: Recipe, out: str, count: int, options: Sequence[str]) -> int:
    """Runs a recipe in so many processes; returns the exit code.

    Args:
        recipe: of the run.
        out: folder of the run.
        count: of processes.
        options: of the command, beside recipe and folder.

    Raises:
        BackendError: one was killed, or failed in a way that it has not said itself.
    """
    with tempfile.TemporaryDirectory(prefix="vitriad-") as place:
        folder = Path(place)
        (folder / "recipe.toml").write_text(recipe.text(), encoding="utf-8")
        command = "finetune" if recipe.objective == "classification" else "pretrain"
        line = [sys.executable, "-m", "vitriad", command, "--recipe", str(folder / "recipe.toml"), "--out", out]
        workers: list[subprocess.Popen[bytes]] = []
        try:
            workers += [_started([*line, *options], rank, count, folder) for rank in range(count)]
            with _forwarding(workers):
                failed = _first_to_fail(workers)
        finally:
            _end(workers)
        return _status(workers, failed, folder, Path(out))


def _started(line: list[str], rank: int, count: int, folder: Path) -> subprocess.Popen[bytes]:
    """One process; the first has our screen. All end when we do: their stdin is closed then."""
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores() // count)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
        **{_MEETING: (folder / "meeting").as_uri(), _FAULTS: str(folder)},
    }
    with open(folder / f"{rank}.err", "wb") as file:
        screen: dict[str, Any] = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": file}
        # a session of its own: Ctrl-C reaches us alone, and we hand it on once
        return subprocess.Popen(line, stdin=subprocess.PIPE, env=environment, start_new_session=True, **screen)


@contextmanager
def _forwarding(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Inside this block Ctrl-C is for the workers, which save the run and end."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        if before != signal.SIG_IGN:
            signal.signal(signal.SIGINT, hand_on)
    except ValueError:  # not in the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _first_to_fail(workers: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Waits for all; returns the number of the one that failed first, once the others have had time to end too."""
    first, until = None, float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        failed = [rank for rank, worker in enumerate(workers) if worker.poll()]
        if failed and first is None:
            first, until = min(failed, key=lambda rank: (workers[rank].poll() or 0) >= 0), time.monotonic() + _GRACE
        time.sleep(_GLANCE)
    codes = [worker.poll() for worker in workers]
    killed = next((rank for rank, code in enumerate(codes) if code and code < 0), None)
    return killed if first is None or killed is not None else first


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends those that still run."""
    for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers:
            if worker.poll() is None:
                end(worker)
        until = time.monotonic() + _GRACE
        while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
            time.sleep(_GLANCE)
    for worker in workers:
        worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()


def _status(workers: Sequence[subprocess.Popen[bytes]], failed: int | None, folder: Path, out: Path) -> int:
    codes = [worker.returncode for worker in workers]
    if failed is None or codes[failed] in (3, 130):
        return int(codes[0])
    step, code = last_step(out), codes[failed]
    where = "there is no checkpoint yet" if step is None else f"{out / LAST} is of step {step}"
    goes_on = f"{where}; the same command goes on from there." if step is not None else f"{where}."
    if code < 0:
        name = signal.Signals(-code).name
        why = ", as systems do where memory runs out" if name == "SIGKILL" else ""
        raise BackendError(
            f"process {failed} of {len(codes)} was killed ({name}){why}; the others were stopped.\n"
            f"The last good checkpoint: {goes_on}"
        )
    if failed == 0 and code != _FAILED:
        return int(code)  # it has said why
    said = (folder / f"{failed}.err").read_text(errors="replace").strip()
    raise BackendError(
        f"process {failed} of {len(codes)} failed: {said.splitlines()[-1][:300] if said else f'exit code {code}'}\n"
        f"The last good checkpoint: {goes_on}"
    )


@contextmanager
def reporting_faults(rank: int) -> Iterator[None]:
    """Inside this block, in a process that `run_workers` started, what nobody expects is told to it alone.

    When one process is gone the others fail too, in words that say nothing of the first.
    """
    folder = os.environ.get(_FAULTS)
    try:
        yield
    except Exception as problem:
        from vitriad.cli import is_expected

        if folder is None or is_expected(problem):
            raise
        with open(Path(folder) / f"{rank}.err", "a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise SystemExit(_FAILED) from None
