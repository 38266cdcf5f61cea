"""Links from pages to files of the source: in the book they lead to pages with that source, so it is whole offline.

CONTRIBUTING, CHANGELOG and SECURITY stand beside the source and are pages of the book as well: links to and in them
are mended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
INCLUDED = {  # files of the root that are pages of the book
    "README.md": "index",
    "CONTRIBUTING.md": "explanation/contributing",
    "CHANGELOG.md": "reference/changelog",
    "SECURITY.md": "reference/security",
}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".md": "markdown", "Makefile": "make"}


class SourceLinks(SphinxTransform):
    """Gives links that leave docs/ a place in the book."""

    default_priority = 210  # before Sphinx collects what is to be downloaded

    def apply(self, **kwargs: Any) -> None:
        kinds = (addnodes.download_reference, addnodes.pending_xref)
        for link in [node for kind in kinds for node in self.document.findall(kind)]:
            if link.get("reftype") == "myst" and link.get("refdomain") in (None, "", "doc"):
                self.mend(link)

    def mend(self, link: nodes.Element) -> None:
        """Replaces one link, unless it leads to a page by itself."""
        target, _, anchor = link["reftarget"].partition("#")
        if link.get("refdomain") == "doc":  # Markdown, inside docs/ or not: without its suffix
            if not target.startswith("/"):
                return
            target, anchor = f"{target}.md", link["reftargetid"]
        here = self.env.docname
        base = ROOT if here in INCLUDED.values() and here != "index" else (DOCS / here).parent
        path = Path(os.path.normpath(base / target))
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) and target else ""
        page = INCLUDED.get(name) or (self.env.path2doc(str(path)) if path.is_relative_to(DOCS) else None)
        if page in self.env.found_docs:
            kept = {"refdoc": here, "reftype": "myst", "refexplicit": True, "reftargetid": anchor or None}
            mended: nodes.Element = addnodes.pending_xref(refdomain="doc", reftarget=page, **kept)
        elif name and path.exists():
            linked_sources(self.env).setdefault(here, set()).add(name)
            up = "../" * here.count("/")
            mended = nodes.reference(refuri=f"{up}source/{name}.html", internal=True)
        else:
            return  # Sphinx warns of it
        mended += link.children
        link.replace_self(mended)


def linked_sources(env: Any) -> dict[str, set[str]]:
    """Page -> files of the source that it links to."""
    if not hasattr(env, "linked_sources"):
        env.linked_sources = {}
    found: dict[str, set[str]] = env.linked_sources
    return found


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page with the text of every file, and the list of every folder, that is linked to."""
    wanted = set().union(*linked_sources(app.env).values())
    folders = {name for name in wanted if (ROOT / name).is_dir()}
    wanted |= {file.relative_to(ROOT).as_posix() for name in folders for file in listed(ROOT / name)}
    for name in sorted(wanted):
        path = ROOT / name
        body = listing(path) if path.is_dir() else highlighted(app, path)
        yield f"source/{name}", {"title": name, "body": f"<h1>{escape(name)}</h1>{body}"}, "page.html"


def listed(folder: Path) -> list[Path]:
    """The files of a folder that can be shown."""
    return sorted(file for file in folder.iterdir() if file.suffix in LANGUAGES)


def listing(folder: Path) -> str:
    """The files of a folder, as links."""
    lines = [f'<li><a href="{folder.name}/{file.name}.html">{escape(file.name)}</a></li>' for file in listed(folder)]
    return f"<ul>{''.join(lines)}</ul>"


def highlighted(app: Sphinx, path: Path) -> str:
    """A file with line numbers."""
    language = LANGUAGES.get(path.suffix or path.name, "text")
    text = path.read_text(encoding="utf-8")
    return str(app.builder.highlighter.highlight_block(text, language, linenos="inline"))  # type: ignore[attr-defined]


def forget(app: Sphinx, env: Any, page: str) -> None:
    """Before a page is read anew."""
    linked_sources(env).pop(page, None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_transform(SourceLinks)
    app.connect("html-collect-pages", pages)
    app.connect("env-purge-doc", forget)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
