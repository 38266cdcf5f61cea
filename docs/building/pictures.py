"""Pictures that are drawn twice, on a light and on a dark ground.

Pages say `<picture>`, as code hosts want it; there the reader's system decides. In the book the reader's switch does,
so both pictures are put on the page, and the style sheet shows one.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">\s*'
    r'<img src="(?P<light>[^"]+)" width="(?P<width>\d+)" alt="(?P<alt>[^"]+)">\s*</picture>'
)


class BothThemes(SphinxTransform):
    """`<picture>` becomes two images, of which the theme shows one."""

    default_priority = 200  # before Sphinx collects the images of a page

    def apply(self, **kwargs: Any) -> None:
        for raw in list(self.document.findall(nodes.raw)):
            if "<picture>" not in raw.astext():
                continue
            found = PICTURE.fullmatch(raw.astext().strip())
            if not found:
                raise ValueError(f"{self.env.docname}: expected {PICTURE.pattern}, got {raw.astext()}")
            shown = [
                nodes.image(uri=found[theme], alt=found["alt"], width=f"{found['width']}px", classes=[f"only-{theme}"])
                for theme in ("light", "dark")
            ]
            raw.replace_self(shown)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_transform(BothThemes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
