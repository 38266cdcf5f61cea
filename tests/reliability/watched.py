"""Runs cases, each in a child process of its own that is watched: what it opened and started, its time, its memory.

`python -m reliability.watched` imports everything once, then forks for every name on stdin and answers with a line of
JSON. A case is prepared (its files are written) before the watch begins.

`python -m reliability.watched tf` runs the cases through the models of a backend, one after another in one process:
what its framework has started cannot be forked.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

HEADERS = 12  # what a case may take, in readings of a header of 99,000 names by json alone: two seconds in all
MEMORY = 2**31  # bytes of address space beyond what the parent has
CANARY = "executed"  # hostile files try to make a file of this name
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
_REACHES = ("socket.connect", "socket.getaddrinfo", "socket.bind", "pickle.find_class")


class Server:
    """The process that runs the cases, started once: each in a child, or all of them with the models of a backend."""

    def __init__(self, backend: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "reliability.watched", *([backend] if backend else [])],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def run(self, name: str) -> dict:
        """What happened: how it ended, the error's classes and text, bytes, CPU seconds, and what it must not do."""
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the parent."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def most_seconds() -> float:
    """What a refusal may take here and now: a busy machine does all work more slowly.

    Without collections of garbage, which take longer the more frameworks a process holds.
    """
    names = json.dumps({f"name.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(99_000)})
    was_enabled = gc.isenabled()
    gc.disable()
    start = time.process_time()
    for _ in range(3):
        json.loads(names)
    taken = time.process_time() - start
    if was_enabled:
        gc.enable()
    return HEADERS * taken / 3


def status(field: str) -> int:
    """A size from /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def watch(folder: Path) -> list[str]:
    """From now on, notes what this process must not do; it may open files of `folder`, and of Python."""
    noted: list[str] = []
    home, here = os.path.realpath(folder), str(Path(__file__).parents[2])
    allowed = [home, sys.prefix, sys.base_prefix, *sys.path[1:], here, "/proc", "/sys", "/dev/null", "/usr/lib"]

    def hook(event: str, args: tuple) -> None:
        if event in _STARTS or event in _REACHES:
            noted.append(f"{event} {args!r}"[:200])
        elif event == "open" and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not any(path == place or path.startswith(place.rstrip("/") + "/") for place in allowed):
                noted.append(f"opened {path}")

    sys.addaudithook(hook)
    return noted


def measured(act: Callable[[Path], Any], folder: Path, noted: list[str]) -> dict:
    """What one case does, and what that costs."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before, mapped, start = status("VmRSS"), status("RssFile"), resource.getrusage(resource.RUSAGE_SELF)
    found = {"ended": "returned", "classes": [], "text": "", "value": ""}
    try:
        found["value"] = repr(act(folder))[:200]
    except BaseException as error:
        classes = [cls.__name__ for cls in type(error).__mro__]
        found.update(ended="raised", classes=classes, text=str(error), trace=traceback.format_exc()[-2000:])
    end = resource.getrusage(resource.RUSAGE_SELF)
    found["seconds"] = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    # less the code of libraries that ran for the first time: how much of it is mapped is the kernel's choice
    found["bytes"] = max(0, status("VmHWM") - before - max(0, status("RssFile") - mapped))
    found["noted"] = [*noted, *(f"{CANARY}: {path}" for path in folder.parent.rglob(CANARY))]
    return found


def child(case, answer: int) -> None:
    """Prepares and runs one case, and writes down what happened."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        case.prepare(folder)
        os.chdir(scratch)
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + MEMORY,) * 2)
        found = measured(case.act, folder, watch(folder))
        os.write(answer, json.dumps(found).encode())


def in_turn(cases: Iterable[Any], act: Callable[[Any], Callable[[Path], Any]]) -> Iterator[dict]:
    """Prepares and runs cases one after another in this process; `act` says what to run of a case."""
    with tempfile.TemporaryDirectory() as base:
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + MEMORY,) * 2)
        noted = watch(Path(base))
        for number, case in enumerate(cases):
            folder = Path(base) / str(number) / "checkpoint"
            folder.mkdir(parents=True)
            case.prepare(folder)
            noted.clear()
            yield measured(act(case), folder, noted)


def fork(case) -> dict:
    """Runs a case in a child and waits for it, not for ever."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.close(reader)
        try:
            child(case, writer)
        except BaseException:
            os.write(writer, json.dumps({"ended": "broken", "text": traceback.format_exc()}).encode())
        os._exit(0)
    os.close(writer)
    answer = b""
    with contextlib.closing(os.fdopen(reader, "rb", buffering=0)) as pipe:
        while select.select([pipe], [], [], case.patience)[0]:
            if not (piece := pipe.read(65_536)):
                break
            answer += piece
        else:
            os.kill(pid, signal.SIGKILL)
    _, how = os.waitpid(pid, 0)
    if answer:
        return json.loads(answer)
    return {
        "ended": f"killed by signal {os.WTERMSIG(how)}",
        "text": "",
        "seconds": case.patience,
        "bytes": 0,
        "noted": [],
    }


def serve() -> None:
    """Answers names of cases until stdin ends."""
    from reliability import bad_inputs

    gc.freeze()  # each case begins with a collection, which then looks at what is new
    for line in sys.stdin:
        print(json.dumps(fork(bad_inputs.CASES[line.strip()])), flush=True)


def serve_with(backend: str) -> None:
    """The same with the models of a backend, all of which have been made and called before."""
    from reliability import bad_inputs

    bad_inputs.warm(backend)
    gc.freeze()
    cases = (bad_inputs.CASES[line.strip()] for line in sys.stdin)
    for found in in_turn(cases, bad_inputs.through_a_backend):
        print(json.dumps(found), flush=True)


if __name__ == "__main__" and len(sys.argv) > 1:
    serve_with(sys.argv[1])
elif __name__ == "__main__":
    serve()
