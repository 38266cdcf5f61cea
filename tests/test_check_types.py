"""What `make check` gives to type checkers is what stands on the pages, line for line."""

import re

import pytest
from check_types import PAGES, programs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: "/".join(page.parts[-2:]))
def test_every_line_of_every_snippet_is_read_where_it_stands(page):
    text = page.read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    found = [line for program in programs(text) for line in program.splitlines()]
    assert {line for snippet in snippets for line in snippet.splitlines()} <= {*found}
    lines = text.splitlines()
    whole = "".join(programs(text)[:1]).splitlines()
    at_home = [line == lines[number] for number, line in enumerate(whole) if line and "Any = ..." not in line]
    assert all(at_home) and bool(at_home) == bool(snippets)


def test_another_import_line_is_another_program():
    text = (
        "# Page\n\n<!-- given: x -->\n```python\nfrom a import B\nB(x)\n```\nor\n```python\nfrom c import D as B\n```\n"
    )
    first, other = programs(text)
    assert first.splitlines()[2:6] == ["from typing import Any; x: Any = ...", "", "from a import B", "B(x)"]
    assert other.splitlines() == ["", "", "", "", "from c import D as B", "B(x)"]
