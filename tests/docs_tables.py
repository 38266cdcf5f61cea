"""The scripts of docs/ that write tables into the book, and the cells of such a table."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


@contextmanager
def script(name: str) -> Iterator[object]:
    """A script as a module, which is forgotten afterwards."""
    sys.path.insert(0, str(DOCS))
    try:
        yield import_module(name)
    finally:
        sys.path.remove(str(DOCS))
        sys.modules.pop(name, None)


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table in Markdown."""
    return [cell.strip() for cell in line.strip("|").split("|")]
