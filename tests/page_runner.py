"""Runs one page of the book in this process: `python -m page_runner PAGE`, in an empty folder.

The snippets of a page are one program, line for line where they stand, so a traceback names the page's line. Commands
are run in between; those of `vitriad` in this process, where its frameworks are loaded already.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import page_givens
from pages import blocks, commands, names

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


def main(page: Path) -> None:
    """Runs a page; whatever it prints stays quiet unless it fails."""
    run = Run()
    code = compile(program(page.read_text(encoding="utf-8")), page.name, "exec")
    try:
        with contextlib.redirect_stdout(run.output):
            exec(code, run.names())
    except BaseException:
        print(run.output.getvalue())
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
