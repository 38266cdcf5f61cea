"""The faults that `make mutate` plants still find the lines that they change."""

from pathlib import Path

import faults
import faults_beside
import faults_of_options
import pytest

ROOT = Path(__file__).parent.parent
EDITS = [
    (name, edit)
    for module in (faults, faults_beside, faults_of_options)
    for table in vars(module).values()
    if isinstance(table, dict)
    for name, edits in table.items()
    if isinstance(edits, tuple)
    for edit in edits
    if isinstance(edit, faults.Edit)
]


def test_faults_are_there():
    assert len(EDITS) > 100


@pytest.mark.parametrize(("name", "edit"), EDITS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_fault_changes_stands_there_once(name, edit):
    assert (ROOT / edit.file).read_text().count(edit.old) == 1, f"{name}: {edit.file}"
