"""The table of exported programs in the book: from certificates, with a line for all that can be written."""

import json

import docs_tables
import pytest
from docs_tables import DOCS, cells_of

from vitriad.programs.exporting import FORMATS

PAGE = (DOCS / "guides" / "export.md").read_text()


@pytest.fixture(name="script")
def imported_script():
    with docs_tables.script("programs_table") as module:
        yield module


def program(folder, worst, precision="float32", **fields):
    """What an export leaves."""
    folder.mkdir()
    said = {"format": "onnx", "image_size": None, "preprocessing": None, "model": "ViTModel", "outputs": "features"}
    versions = dict.fromkeys(("vitriad", "tensorflow", "tf2onnx"), "1")
    (folder / "vitriad.json").write_text(json.dumps({**said, "versions": versions, **fields}))
    (folder / "certificate.json").write_text(json.dumps({"worst": worst, "precision": precision}))


def test_it_has_the_worst_of_every_cell(script, tmp_path):
    program(tmp_path / "one", 1e-7)
    program(tmp_path / "two", 2e-7)
    program(tmp_path / "reduced", 1e-2, "bfloat16")
    program(tmp_path / "pixels", 3e-7, preprocessing="nhwc", model="ViTForImageClassification", outputs="logits")
    lines = script.table([*script.programs(tmp_path)]).splitlines()
    found = {
        tuple(cells[:3]): dict(zip(script.columns(), cells[3:], strict=True)) for cells in map(cells_of, lines[2:-2])
    }
    assert found["`onnx`", "tf", "any"]["ViTModel, features"] == "2.0e-07"
    assert found["`onnx`", "tf", "any"][script.UINT8] == "3.0e-07"
    assert {*found["`onnx`", "flax", "any"].values()} == {"refused"}
    assert {*found["`litert`", "tf", "fixed"].values()} == {"-"}
    assert "jax2onnx" in lines[-1]


def test_the_page_has_a_figure_for_everything_that_is_tested(script):
    rows = [
        cells_of(line) for line in PAGE.partition(script.START)[2].partition(script.END)[0].splitlines() if "`" in line
    ]
    rows = [row for row in rows if len(row) > 3]
    writers = [(f"`{to}`", backend) for to, known in FORMATS.items() for backend in known.converters]
    assert [(*writer, sizes) for writer in writers for sizes in ("any", "fixed")] == [tuple(row[:3]) for row in rows]
    missing = [row for row in rows if "-" in row and row[0] != "`aoti`"]  # of which three are compiled
    assert missing == []
    assert all(float(cell) <= 1e-5 for row in rows for cell in row[3:] if cell not in ("refused", "-"))
