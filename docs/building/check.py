"""Checks the built book: every link within it leads to a page and an anchor that are there, and llms.txt has all pages.

    python docs/building/check.py docs/_build/html

Sphinx checks what pages say; this checks what came of it, pages of source and pictures included.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


def broken(folder: Path) -> list[str]:
    """Every link that leads nowhere, as "page: link"."""
    pages = {file.resolve(): Page(file) for file in sorted(folder.rglob("*.html")) if "_static" not in file.parts}
    found = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            has_anchor = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not target.is_file() or not has_anchor:
                found.append(f"{file.relative_to(folder.resolve())}: {link}")
    return found


def unlisted(folder: Path) -> list[str]:
    """Pages of the book that llms.txt does not name, or that llms-full.txt has no text of."""
    listed = {*re.findall(r"\]\((\S+\.html)\)", (folder / "llms.txt").read_text(encoding="utf-8"))}
    whole = (folder / "llms-full.txt").read_text(encoding="utf-8")
    pages = {file.relative_to(folder).as_posix() for part in PARTS for file in (folder / part).rglob("*.html")}
    pages -= {f"{part}/index.html" for part in PARTS}
    return sorted(pages ^ listed) + [part for part in PARTS if f"\n# {part.capitalize()}\n" not in whole]


PARTS = ("tutorials", "guides", "reference", "explanation")


def main(folder: Path) -> int:
    """0 where nothing is found."""
    found = [*broken(folder), *(f"llms.txt: {page}" for page in unlisted(folder))]
    for line in found:
        print(line)
    print(f"{folder / 'index.html'}: {len(found)} links lead nowhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
