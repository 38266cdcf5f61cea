"""What the command line prints: whatever files call their tensors, labels and themselves, a terminal is not commanded.

All that a command writes to stdout and stderr goes through here, messages of loggers and warnings of libraries too.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# Control characters, and those that reverse or break lines on a screen -> as Python writes them.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPED = {code: ascii(chr(code))[1:-1] for code in _CONTROLS}
_ESCAPED_IN_TEXTS = {code: text for code, text in _ESCAPED.items() if chr(code) not in "\n\t"}


def shown(value: object) -> str:
    """A name on one line, its control characters escaped."""
    return str(value).translate(_ESCAPED)


def print_table(rows: Sequence[Sequence[Any]]) -> None:
    """Prints rows of cells in columns."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


class _Escaping:
    """A stream that escapes control characters; a progress bar may go back to the beginning of its line."""

    def __init__(self, stream: Any, has_bars: bool) -> None:
        self._stream, self._has_bars = stream, has_bars
        self._problem: OSError | None = None

    def write(self, text: str) -> int:
        bar = "\r" if self._has_bars and text.startswith("\r") else ""
        try:
            self._stream.write(bar + text[len(bar) :].translate(_ESCAPED_IN_TEXTS))
        except OSError as problem:
            self._problem = problem
            raise
        return len(text)

    def flush(self) -> None:
        """Raises also what an earlier write raised: argparse takes no notice of it."""
        if self._problem is not None:
            raise self._problem
        self._stream.flush()

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaping() -> Iterator[None]:
    """Inside this block stdout and stderr escape what they are given; a stdout that the caller closed is None."""
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names and labels hold what a terminal cannot always show
        sys.stdout.reconfigure(errors="backslashreplace")
    _open_missing()
    if sys.stdout is not None:
        sys.stdout = _Escaping(sys.stdout, False)
    sys.stderr = _Escaping(sys.stderr, True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _open_missing() -> None:
    """Opens the standard streams that the caller closed: the next file would get the number of one, and its output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # to the end of the program


def forget_stdout() -> None:
    """Sends what is left in stdout nowhere: the interpreter writes it once more at its end, and would fail again."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
