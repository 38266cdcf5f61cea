"""How Sphinx builds the book: `make docs`."""

import os
import sys
import tomllib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # says nothing of what TensorFlow could also do
DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project, version = PROJECT["name"], PROJECT["version"]
release, html_title = version, f"{project} {version}"
author = copyright = "the authors of vitriad"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "building.api",
    "building.links",
    "building.pictures",
    "building.plain_text",
]
exclude_patterns = ["_build", "building", "examples"]

# Markdown: any heading can be linked to, as on code hosts; a link that leads nowhere is a warning, and so an error
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the changelog begins at its own second level
nitpicky = False  # types in signatures name classes of frameworks, whose books are not at hand

# The API, from docstrings
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # what docstrings write in backticks

# The pages: everything they need lies beside them, so they can be read and searched from a folder
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
