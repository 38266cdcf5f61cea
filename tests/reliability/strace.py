"""Follows the system calls of a save in another process, and makes one of them fail, or the process die there.

with Saver(scratch, "single", "sharded") as saver:
    calls = saver.record("single", folder, value)  # [Call("openat", 1, …), Call("write", 1, …), …]
    ending = saver.run("single", folder, value, calls[1], FAULTS["ENOSPC"])
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(__file__).with_name("savers.py")
FAULTS = {"kill": "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
_LINE = re.compile(r"^(?:(\d+) +)?(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_UNFINISHED = " <unfinished ...>"
# What changes files and folders, whatever its arguments are.
_CHANGES = ("write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate", "fallocate")
_CHANGES += ("fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat")
_CHANGES += ("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat", "utimensat", "flock")


class Ending(NamedTuple):
    """How a save ended: the exit code of its process, None after SIGKILL, and the text of its error."""

    code: int | None
    text: str


class Call(NamedTuple):
    """A system call of the process that saves: which one of its name it is, and its arguments and result as text."""

    name: str
    number: int
    text: str

    def __str__(self):
        return f"{self.name} {self.number}"

    @property
    def changes(self):
        """Whether it can change what is on a disk."""
        return self.name in _CHANGES or (self.name == "openat" and re.search("O_(WRONLY|RDWR|CREAT)", self.text))


class Saver:
    """A process that is ready to save, and saves in children of its own that can be traced.

    Args:
        scratch: a folder for itself, made where missing.
        saves: those of `savers.SAVES` that it is to be asked for.
    """

    def __init__(self, scratch, *saves):
        if not shutil.which("strace"):
            raise RuntimeError(
                "strace is missing: install it (apt-get install strace); these tests inject faults with it."
            )
        scratch.mkdir(parents=True, exist_ok=True)
        self.log, self.tracer = scratch / "strace.log", None
        command = [sys.executable, "-W", "ignore", str(PROGRAM), str(scratch), *saves]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def run(self, save, folder, value, call=None, fault=None, always=None):
        """A save with a fault (one of FAULTS) at a system call; or without.

        Args:
            call: its name, and which of its name it is.
            always: an injection beside it, such as "renameat2:error=ENOSYS".
        """
        injections = [f"{call[0]}:{fault}:when={call[1]}"] if call else []
        self.start(save, folder, value, [*injections, *([always] if always else [])])
        ending = self.ending()
        log = self.log.read_text()
        if call and not re.search(rf"\+ killed by SIGKILL|\b{call[0]}\(.*\(INJECTED\)", log):
            raise RuntimeError(f"{save}: the save did not come to {call}:\n{log[-2000:]}")
        return ending

    def plain(self, save, folder, value):
        """A save that nothing disturbs."""
        self._order(save, folder, value, is_traced=False)
        return self.ending()

    def record(self, save, folder, value, always=None):
        """The system calls that a save makes, those of its main thread."""
        child = self.start(save, folder, value, [always] if always else [])
        ending = self.ending()
        if ending.code != 0:
            raise RuntimeError(f"{save}: the save failed without a fault: {ending.text}")
        calls = parsed(self.log.read_text(), str(child))
        begin, end = (place for place, call in enumerate(calls) if call.name == "getppid")
        return calls[begin + 1 : end]

    def _order(self, save, folder, value, is_traced):
        order = {"save": save, "folder": str(folder), "value": value, "is_traced": is_traced}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, save, folder, value, injections):
        """Begins a save that strace watches and disturbs; its process id."""
        child = self._order(save, folder, value, is_traced=True)
        self.tracer = self.attach(child, injections)
        os.kill(child, signal.SIGUSR1)
        return child

    def attach(self, child, injections):
        options = [part for injection in injections for part in ("-e", f"inject={injection}")]
        command = ["strace", "-f", "-y", "-o", str(self.log), *options, "-p", str(child)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = tracer.stderr.readline()
        if "attached" not in said:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError(
                f"strace cannot trace a process here: {said}{tracer.communicate()[1]}"
                "These tests need ptrace; in a container: --cap-add=SYS_PTRACE."
            )
        return tracer

    def ending(self):
        """How the save that was begun ended."""
        status, text = json.loads(self.process.stdout.readline())
        if self.tracer:
            self.tracer.communicate(timeout=30)
            self.tracer = None
        return Ending(os.WEXITSTATUS(status) if os.WIFEXITED(status) else None, text)


def parsed(log, main):
    """The calls of one thread in a log of strace, each where it ended."""
    begun, found, counts = "", [], Counter()
    for line in log.splitlines():
        match = _LINE.match(line)
        if not match or (match[1] or main) != main:
            continue
        _, resumed, name, text = match.groups()
        if text.endswith(_UNFINISHED):
            begun = text.removesuffix(_UNFINISHED)
            continue
        name, text = name or resumed, text if name else begun + text
        counts[name] += 1
        found.append(Call(name, counts[name], text))
    return found
