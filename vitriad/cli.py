"""The `vitriad` command: exit codes and errors; each subcommand lives in the module of its name.

Results go to stdout; progress and messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some images were
skipped, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from vitriad.options import make_parser
from vitriad.printing import escaping, forget_stdout

_MODULES = {name: f"vitriad.{name}_command" for name in ("convert", "export")}  # vitriad.convert is the function


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit code."""
    with escaping():
        if sys.stdout is None:
            print("vitriad: error: stdout is closed: there is nowhere to print to.", file=sys.stderr)
            return 1
        try:
            try:
                return _run(argv) or _flushed()
            except SystemExit:  # of --help and --version, and of wrong usage
                if _flushed():
                    return 1
                raise
        except BrokenPipeError:  # whoever read our output has seen enough
            forget_stdout()
            return 1


def _run(argv: Sequence[str] | None) -> int:
    arguments = make_parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its notes about the machine look like failures
    os.environ.setdefault("PILLOW_BLOCK_SIZE", "64m")  # smaller pieces of pictures stay in the heap of their thread
    try:
        status: int = import_module(_MODULES.get(arguments.command, f"vitriad.{arguments.command}")).run(arguments)
        return status
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("vitriad: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if arguments.debug or not is_expected(error):
            raise
        print(f"vitriad: error: {_line_of(error)}", file=sys.stderr)
        return 1


def _flushed() -> int:
    """Writes out what was printed; 1 if that is impossible, which is said."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"vitriad: error: stdout cannot be written to: {error.strerror}.", file=sys.stderr)
        forget_stdout()
        return 1
    return 0


def is_expected(error: Exception) -> bool:
    """Whether an error is one that its text explains to whoever typed the command."""
    from vit_core.errors import VitError  # only now: --help imports nothing

    return isinstance(error, VitError | OSError | MemoryError)


def _line_of(error: Exception) -> str:
    return f"out of memory. {error}".rstrip() if isinstance(error, MemoryError) else str(error)
