"""Makes one system call of a save in another process fail, or the process die there, with strace.

with Saver("single", scratch) as saver:
    calls = saver.record(folder, value)  # [("openat", 1), ("write", 1), ("openat", 2), …]
    ending = saver.run(folder, value, ("write", 1), FAULTS["ENOSPC"])
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(__file__).with_name("savers.py")
FAULTS = {"kill": "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
_CALL = re.compile(r"^(?:\d+ +)?(?:<\.\.\. )?(\w+)[( ]")


class Ending(NamedTuple):
    """How a save ended: the exit code of its process, None after SIGKILL, and the text of its error."""

    code: int | None
    text: str


class Saver:
    """A process that is ready to save, and saves in children of its own that can be traced.

    Args:
        save: one of `savers.SAVES`.
        scratch: a folder for itself.
        always: an injection that every traced save gets, such as "renameat2:error=ENOSYS".
    """

    def __init__(self, save, scratch, always=None):
        if not shutil.which("strace"):
            raise RuntimeError(
                "strace is missing: install it (apt-get install strace); these tests inject faults with it."
            )
        self.save, self.log, self.always, self.tracer = save, scratch / "strace.log", always, None
        command = [sys.executable, str(PROGRAM), save, str(scratch / "warm")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def run(self, folder, value, call=None, fault=None):
        """A save with a fault (one of FAULTS) at a system call, given as (name, which of its name); or without."""
        self.start(folder, value, [f"{call[0]}:{fault}:when={call[1]}"] if call else [])
        ending = self.ending()
        log = self.log.read_text()
        if call and not re.search(rf"\+ killed by SIGKILL|\b{call[0]}\(.*\(INJECTED\)", log):
            raise RuntimeError(f"{self.save}: the save did not come to {call}:\n{log[-2000:]}")
        return ending

    def plain(self, folder, value):
        """A save that nothing disturbs."""
        self._order(folder, value, is_traced=False)
        return self.ending()

    def record(self, folder, value):
        """The system calls that a save makes, as (name, which of its name)."""
        ending = self.run(folder, value)
        if ending.code != 0:
            raise RuntimeError(f"{self.save}: the save failed without a fault: {ending.text}")
        names = [found[1] for line in self.log.read_text().splitlines() if (found := _CALL.match(line))]
        begin, end = (place for place, name in enumerate(names) if name == "getppid")
        return [(name, names[: place + 1].count(name)) for place, name in enumerate(names[:end]) if place > begin]

    def _order(self, folder, value, is_traced):
        order = {"save": self.save, "folder": str(folder), "value": value, "is_traced": is_traced}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, folder, value, injections):
        """Begins a save that strace watches and disturbs; its process id."""
        child = self._order(folder, value, is_traced=True)
        self.tracer = self.attach(child, [*injections, *([self.always] if self.always else [])])
        os.kill(child, signal.SIGUSR1)
        return child

    def attach(self, child, injections):
        options = [part for injection in injections for part in ("-e", f"inject={injection}")]
        command = ["strace", "-f", "-o", str(self.log), *options, "-p", str(child)]
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
