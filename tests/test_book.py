"""The book is true: its pages name what exists, and every page can be found from the first one."""

import re
from pathlib import Path

import pytest
from check_types import PAGES

ROOT = Path(__file__).parent.parent
BOOK = [page for page in PAGES if page.name != "README.md"]
TESTS = {name for f in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", f.read_text())}


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", BOOK, ids=names)
def test_pages_name_what_exists(page):
    """Tests by their names, which may end in an ellipsis, and links."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)(…?)`", text)
    missing = [name for name, cut in named if not any(t.startswith(name) if cut else t == name for t in TESTS)]
    assert missing == []
    linked = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    links = [link.partition("#")[0] for link in linked if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in BOOK if "{toctree}" in page.read_text()], ids=names)
def test_what_the_book_turns_to_is_also_linked_for_readers_of_the_source(page):
    """A code host shows no table of contents, so each list of pages is a list of links too."""
    text = page.read_text(encoding="utf-8")
    (listed,) = re.findall(r"```\{toctree\}\n:hidden:\n\n(.*?)```", text, flags=re.DOTALL)
    links = [link.removesuffix(".md") for link in re.findall(r"^- \[.*?\]\(([^)#]+)\)", text, flags=re.MULTILINE)]
    assert listed.split() == links


def test_every_page_is_in_the_book():
    listed = {ROOT / "docs" / "index.md"}
    for page in BOOK:
        for block in re.findall(r"```\{toctree\}(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            listed |= {page.parent / f"{name}.md" for name in block.split() if not name.startswith(":")}
    assert listed == {*BOOK}
