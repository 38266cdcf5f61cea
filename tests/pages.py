"""The pages of the book as programs: what check_types.py has read by type checkers, and page_runner.py runs.

Fenced blocks by their language: `python` and `bash` are run, in the order of the page; `text` straight after one of
them is what it prints; `console` is what a person types to set a machine up, compared with pyproject and Makefile.
Three things are not shown to readers and stand in comments: `<!-- given: images, labels -->` for values that a page
takes as given, `<!-- files: photo.jpg, my-vit -->` for files that lie in the folder where its commands run, and
`<!-- needs: torch -->` for frameworks without which it cannot run, beside those that it imports.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"^<!-- (given|files|needs): (.*?) -->$", re.MULTILINE)
ONE_IMPORT = re.compile(r"from \w+ import [^\n]+\n")


class Block(NamedTuple):
    """A fenced block, or a comment of the kinds above.

    Attributes:
        kind: its language, "given", "files" or "needs".
        text: what is in it.
        line: of the page where the text begins, from 0.
        follows: whether nothing stands between it and the block before.
    """

    kind: str
    text: str
    line: int
    follows: bool


def blocks(page: str) -> list[Block]:
    """All of a page, in order."""
    found = sorted([*BLOCK.finditer(page), *COMMENT.finditer(page)], key=lambda match: match.start())
    ends = [0, *(match.end() for match in found)]
    return [
        Block(match[1], match[2], page[: match.start(2)].count("\n"), not page[end : match.start()].strip())
        for match, end in zip(found, ends, strict=False)
    ]


def names(block: Block) -> list[str]:
    """What a comment lists."""
    return block.text.split(", ")


def commands(block: Block) -> list[tuple[int, str]]:
    """The commands of a block with their lines; one that ends in a backslash goes on in the next line."""
    lines = block.text.splitlines()
    starts = [number for number in range(len(lines)) if number == 0 or not lines[number - 1].endswith("\\")]
    whole = [
        " ".join(each.rstrip("\\ ") for each in lines[i:j]) for i, j in zip(starts, [*starts[1:], None], strict=True)
    ]
    return [(block.line + i, each) for i, each in zip(starts, whole, strict=True) if each.partition("#")[0].strip()]
