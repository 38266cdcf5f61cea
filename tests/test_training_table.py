"""The results of training in the book: from what runs measured, for every row that is trained."""

import json
from pathlib import Path

import docs_tables
import numpy as np
import pytest
from docs_tables import DOCS, cells_of

from vitriad.options import make_parser

PAGE = (DOCS / "guides" / "training.md").read_text()


@pytest.fixture(name="script")
def imported_script():
    with docs_tables.script("training_table") as module:
        yield module


def test_a_row_is_what_its_runs_measured_last(script, tmp_path):
    row = script.Row("shapes", "12 shapes", "finetune shapes", ("torch", "flax"), (0, 1))
    for (out, _), right in zip(row.runs(), (70, 80, 90, 100), strict=True):
        (tmp_path / out).mkdir(parents=True)
        lines = [{"epoch": epoch, "accuracy": share, "held_out": 100} for epoch, share in ((1, 1.0), (2, right / 100))]
        (tmp_path / out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    one = row._replace(seeds=(1,), backends=("torch",))
    lines = script.table(tmp_path, [row, row._replace(what=""), one]).splitlines()[2:]
    assert [cells_of(line) for line in lines] == [
        ["12 shapes", "100", "80.00% (70.00% to 90.00%)", "", "90.00% (80.00% to 100.00%)"],
        ["12 shapes", "100", "90.00% ± 5.96%", "", ""],
    ]


def test_every_run_is_a_command_and_begins_with_what_there_is(script):
    folders = set()
    for row in script.rows(Path("dinov2")):
        for out, words in row.runs():
            arguments = make_parser().parse_args(words)
            assert arguments.model in (None, "dinov2") or arguments.model.removesuffix("/last") in folders
            folders.add(out)
            assert arguments.out == out


def test_images_are_taken_from_every_class(script, tmp_path):
    labels = np.arange(40) % 10
    pixels = np.arange(40, dtype=np.uint8)[:, None, None]
    script._save(tmp_path / "few.npz", pixels, labels, 2)
    with np.load(tmp_path / "few.npz") as few:
        np.testing.assert_array_equal(few["images"][:, 0, 0], np.arange(20))
        np.testing.assert_array_equal(few["labels"], labels[:20])


def test_the_page_has_every_row_and_the_backends_are_alike(script):
    text = PAGE.partition(script.START)[2].partition(script.END)[0]
    found = {row[0]: row[2:] for row in map(cells_of, text.strip().splitlines()[2:])}
    assert [*found] == [row.what for row in script.rows(Path("dinov2")) if row.what]
    share = {what: [float(cell.partition("%")[0]) for cell in cells if cell] for what, cells in found.items()}
    assert all(max(each) - min(each) < 1 for each in share.values())
    assert min(share["1,438 digits: from scratch"]) >= 98.5
