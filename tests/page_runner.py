"""Runs pages of the book, each in a folder and a process of its own.

`python -m page_runner` imports the backends once, which takes longer than most pages, then forks for every page.

The snippets of a page are one program, line for line where they stand, so a traceback names the page's line. Commands
are run in between; those of `vitriad` in this process, where its frameworks are loaded already.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path

import page_givens
from backends import INSTALLED
from pages import ROOT, blocks, commands, names

from vitriad.backends import BACKENDS

NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
CLOSE = 0.25  # share by which a number with a point, a percentage or a power of ten may be another on other machines


def program(text: str) -> str:
    """A page as a program; it is called with the functions of a Run."""
    lines = [""] * len(text.splitlines())
    ran = False
    for block in blocks(text):
        if block.kind == "given":
            lines[block.line] = f"{', '.join(names(block))}, = given({names(block)})"
        elif block.kind == "files":
            lines[block.line] = f"files({names(block)})"
        elif block.kind == "python":
            own = block.text.splitlines()
            lines[block.line : block.line + len(own)] = own
        elif block.kind == "bash":
            for line, command in commands(block):
                lines[line] = f"bash({command!r})"
        elif block.kind == "text" and ran and block.follows:
            lines[block.line] = f"printed({block.text!r})"
        ran = block.kind in ("python", "bash")
    return "\n".join(lines) + "\n"


class Run:
    """A page that is running: what it may call, and what it has printed since the last look."""

    def __init__(self) -> None:
        self.output = io.StringIO()

    def bash(self, command: str) -> None:
        """Runs a command, which has to end well."""
        if command.startswith("vitriad "):
            from vitriad.cli import main

            code = main(shlex.split(command, comments=True)[1:])
        else:
            done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=False)
            code = done.returncode
            print(done.stdout + done.stderr, end="")
        if code:
            raise SystemExit(f"{command}: exit code {code}\n{self.output.getvalue()}")

    def printed(self, expected: str) -> None:
        """Compares what was printed with what the page says; `…` stands for anything."""
        differ = differences(expected, self.output.getvalue())
        if differ:
            raise SystemExit(differ)
        self.output.seek(0)
        self.output.truncate()

    def names(self) -> dict[str, object]:
        """What the program of a page can call beside Python's own."""
        return {"__name__": "page", "bash": self.bash, "printed": self.printed, **page_givens.FUNCTIONS}


def differences(expected: str, got: str) -> str:
    """What is printed on a page and not by its program; "" where nothing is. Numbers may differ by a quarter."""
    lines = [line.split() for line in got.splitlines()]
    for line in expected.splitlines():
        if line.strip() not in ("", "…") and not any(alike(line.split(), each) for each in lines):
            return f"the page says it prints\n{line}\nbut the program printed\n{got}"
    return ""


def alike(expected: list[str], got: list[str]) -> bool:
    """Whether the words are the same, but for figures that depend on the machine; `…` ends a line anywhere."""
    if "…" in expected:
        expected = expected[: expected.index("…")]
        got = got[: len(expected)]
    return len(expected) == len(got) and all(map(same_word, expected, got))


def same_word(expected: str, got: str) -> bool:
    """Text and whole numbers are compared as they are, other numbers loosely."""
    if expected == got:
        return True
    measured = [re.search(r"[.%]|e[+-]?\d", word) for word in (expected, got)]
    if not all(measured) or NUMBER.sub("#", expected) != NUMBER.sub("#", got):
        return False
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(got), strict=True)
    return all(abs(float(one) - float(other)) <= CLOSE * abs(float(one)) for one, other in pairs)


class Server:
    """The process that forks for every page."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "page_runner"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, page: Path, folder: Path) -> tuple[int, str]:
        """Runs a page in a folder: its exit code, and its log, which has what it printed where it failed."""
        try:
            self._process.stdin.write(json.dumps([str(page), str(folder)]) + "\n")
            self._process.stdin.flush()
            return tuple(json.loads(self._process.stdout.readline()))
        except BaseException:  # such as pytest's time limit
            os.killpg(self._process.pid, signal.SIGKILL)
            raise

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Answers lines of page and folder until stdin ends."""
    for name in INSTALLED:
        import_module(BACKENDS[name].package)
    gc.freeze()
    for line in sys.stdin:
        page, folder = json.loads(line)
        print(json.dumps(forked(Path(page), folder)), flush=True)


def forked(page: Path, folder: str) -> tuple[int, str]:
    """Runs a page in a child: its exit code, and its log."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if not pid:
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(run_page(page))
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode()


def run_page(page: Path) -> int:
    """Runs a page in the current folder; whatever it prints stays quiet unless it fails. Returns its exit code."""
    run = Run()
    try:
        code = compile(program(page.read_text(encoding="utf-8")), page.name, "exec")
        with contextlib.redirect_stdout(run.output):
            exec(code, run.names())
        return 0
    except BaseException:
        print(run.output.getvalue(), traceback.format_exc(), flush=True)
        return 1


if __name__ == "__main__":
    serve()
