"""The book for programs that read text: llms.txt, a list of the pages, and llms-full.txt, all of them in one file."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.text import TextBuilder
from sphinx.writers.text import TextTranslator

HIDDEN = re.compile(r"<!--.*?-->\n?|^---\n.*?\n---\n", re.DOTALL)
DIRECTIVE = re.compile(r"^```\{(?:toctree|eval-rst)\}.*?^```\n", re.DOTALL | re.MULTILINE)
LISTED = re.compile(r"^- \[[^]]+\]\(([^)]+)\.md\): (.+)$", re.MULTILINE)
INCLUDE = re.compile(r"^```\{include\} (\S+)\n.*?^```\n", re.DOTALL | re.MULTILINE)


def described(docs: Path, env: Any) -> dict[str, str]:
    """What the lists of pages say of each page: "- [Title](page.md): what it is about"."""
    found = {}
    for page in env.toctree_includes:
        text = (docs / f"{page}.md").read_text(encoding="utf-8")
        for link, said in LISTED.findall(text):
            found[posixpath.normpath(posixpath.join(posixpath.dirname(page), link))] = said
    return found


def in_order(env: Any, page: str = "index") -> list[str]:
    """The pages of the book, each after the one that lists it."""
    return [page, *(each for inner in env.toctree_includes.get(page, []) for each in in_order(env, inner))]


def markdown(docs: Path, page: str) -> str:
    """A page as it is written, without what readers never see."""
    text = (docs / f"{page}.md").read_text(encoding="utf-8")
    text = INCLUDE.sub(lambda found: ((docs / page).parent / found[1]).read_text(encoding="utf-8"), text)
    return DIRECTIVE.sub("", HIDDEN.sub("", text)).strip()


def api_text(app: Sphinx, page: str) -> str:
    """A page that is made from docstrings, as text."""
    builder = TextBuilder(app, app.env)
    builder.secnumbers = {}  # chapters have none
    tree = app.env.get_and_resolve_doctree(page, builder)
    translator = TextTranslator(tree, builder)
    tree.walkabout(translator)
    return str(translator.body).strip()


def first_sentence(app: Sphinx, page: str) -> str:
    """What a page is about."""
    paragraphs = app.env.get_doctree(page).findall(nodes.paragraph)
    said = " ".join(next(paragraphs).astext().split())
    return re.split(r"(?<=[.:;]) ", said)[0].rstrip(":;")


def write(app: Sphinx, failure: Exception | None) -> None:
    """Writes both files beside the pages, once these are built."""
    if failure is not None or app.builder.format != "html":
        return
    docs, folder = Path(app.srcdir), Path(app.outdir)
    lines = [f"# {app.config.project}", "", f"> {first_sentence(app, 'index')}", ""]
    order, about = in_order(app.env), described(docs, app.env)
    for page in order[1:]:
        title = app.env.titles[page].astext()
        if page.endswith("index") and page.count("/") == 1:
            lines += ["", f"## {title}", ""]
        else:
            lines.append(f"- [{title}]({page}.html): {about.get(page) or first_sentence(app, page)}")
    (folder / "llms.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    whole = "\n\n\n".join(api_text(app, page) if "/api/" in page else markdown(docs, page) for page in order)
    (folder / "llms-full.txt").write_text(whole + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
