"""The table of docs/guides/scaling.md is what `--dry-run` reckons."""

import runpy
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "scaling.md"


def test_the_table_is_what_the_code_reckons():
    made = runpy.run_path(str(PAGE.parents[1] / "scaling_table.py"))
    assert made["page"]() == PAGE.read_text(encoding="utf-8")
    assert made["table"]().count("\n") == 7
