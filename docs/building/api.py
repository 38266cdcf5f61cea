"""The reference of the API: docstrings, in the words that Sphinx reads; each package documents what is its own."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_type_hints

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

FIELD = re.compile(r"(Shapes|Dtypes|Units|Differs|Source): (?=\S)")
SECTION = re.compile(r"[A-Z]\w*:")


def is_left_out(app: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """What is vit_core's or conversion's is documented there, though others hand it on."""
    package, home = app.env.docname.rpartition("/")[2], str(getattr(member, "__module__", ""))
    shared = [each for each in ("vit_core", "conversion") if home.startswith(f"{each}.") and each != package]
    return True if shared else None


def indent(line: str) -> int:
    """How far a line is indented; that of an empty one is unknown, and large."""
    return len(line) - len(line.lstrip()) if line.strip() else 1000


def readable(lines: list[str]) -> list[str]:
    """A docstring of ours in Sphinx' words.

    Sections of one line, such as "Shapes: …", become fields; an example becomes code; what is listed, a line each,
    under an argument that ends in a colon becomes a list.
    """
    result: list[str] = []
    listed = None  # the indent of the items of the list that we are in
    in_field = False
    for number, line in enumerate(lines):
        after = next((each for each in lines[number + 1 :] if each.strip()), "")
        in_field = bool(line.strip()) and (in_field or bool(FIELD.match(line)))
        if listed is not None and indent(line) < listed:
            listed = None
        if listed is not None and line.strip():
            result.append(f"{' ' * listed}{'- ' if indent(line) == listed else '  '}{line.strip()}")
        elif line.rstrip() in ("Example:", "Examples:"):
            result.append("Example::")
            result += [""]
        elif 0 < indent(line) < 1000 and line.endswith(":") and 1000 > indent(after) > indent(line):
            listed = indent(after)
            result += [line, ""]
        elif in_field and indent(line) == 0 and not SECTION.match(line):
            result.append(f"    {line}")
        else:
            result.append(FIELD.sub(r":\1: ", line) if indent(line) == 0 else line)
    return result


def rewrite(app: Sphinx, kind: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon reads the docstring."""
    lines[:] = readable(lines)


def constructor(
    app: Sphinx, kind: str, name: str, member: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """The signature of a class, from `__init__`: Keras hides it, and the rules in our annotations are for us alone."""
    if kind != "class" or signature is None or not inspect.isfunction(member.__init__):
        return None
    try:
        types = get_type_hints(member.__init__)
    except NameError:  # of a type that is imported for type checkers alone
        return None
    found = inspect.signature(member.__init__)
    parameters = [each.replace(annotation=types.get(each.name, each.annotation)) for each in found.parameters.values()]
    shown = found.replace(parameters=parameters[1:], return_annotation=inspect.Signature.empty)
    return stringify_signature(shown, unqualified_typehints=True), None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", is_left_out)
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-process-signature", constructor)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
