"""The faults that `make mutate` plants still find the lines that they change."""

from pathlib import Path
from time import sleep

import faults
import faults_beside
import faults_of_options
import mutate
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


def test_a_run_in_parts_keeps_what_it_has_found(tmp_path):
    file = tmp_path / "kept.json"
    assert mutate.Kept(file).once("fault", lambda: mutate.Verdict(True, "1e-01", "2026-01-01")) == [
        True,
        "1e-01",
        "2026-01-01",
    ]
    again = mutate.Kept(file)
    assert again.once("fault", pytest.fail) == [True, "1e-01", "2026-01-01"]
    assert again.once("other", lambda: ("2026-01-02",)) == ["2026-01-02"]
    assert [*mutate.Kept(file).found] == ["fault", "other"] and [*tmp_path.iterdir()] == [file]


def test_a_run_that_is_stopped_ends_at_once_and_goes_on(tmp_path, monkeypatch, capsys):
    table = {f"fault {i}": (faults.Edit("vit_core/x.py", str(i), "new", "no tests"),) for i in range(60)}
    file, begun = tmp_path / "kept.json", []

    def planted(edit, root):
        begun.append(edit.old)
        if edit.old == "3":
            raise KeyboardInterrupt
        sleep(0.01)
        return mutate.Verdict(edit.old != "7", "1e-01", "2026-01-01")

    monkeypatch.setattr(mutate, "check_sound", lambda tests, root: ("2026-01-01",))
    monkeypatch.setattr(mutate, "planted", planted)
    with pytest.raises(KeyboardInterrupt):
        mutate.rows_of(table, mutate.Kept(file))
    assert len(begun) < 40
    first = len(mutate.Kept(file).found) - 1  # but for the sound tests
    monkeypatch.setattr(
        mutate, "planted", lambda edit, root: begun.append(edit) or mutate.Verdict(edit.old != "7", "x", "2026-01-02")
    )
    begun.clear()
    lines, survivors = mutate.rows_of(table, mutate.Kept(file))
    assert (len(begun), survivors) == (60 - first, 1) and lines[-1].endswith(": 60 faults, 59 caught.")
    assert lines[2] == "| fault 0 |  |  |  | vit_core/x.py, 1e-01 | 2026-01-01 |"
    assert lines[5] == "| fault 3 |  |  |  | vit_core/x.py, x | 2026-01-02 |" and lines[2] in capsys.readouterr().out
