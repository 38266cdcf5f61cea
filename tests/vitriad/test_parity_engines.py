"""`vitriad parity` with engines: programs are compared in what they can be asked, and listed in what they cannot."""

import json
import subprocess
import sys

import pytest
from backends import INSTALLED

from vitriad import engines, parity
from vitriad.cli import main
from vitriad.parity_matrix import cases as parity_cases

GIVEN = {  # class -> what its programs return
    "ViTForImageClassification": {"forward", "hidden", "attentions"},
    "ViTMAEForPreTraining": {"forward"},
    "ViTMAEModel": {"forward", "hidden", "attentions"},
}
# The engine whose programs are the quickest to write; `make test-programs` runs the others, and the whole matrix.
TO = "stablehlo" if "flax" in INSTALLED else "onnx"
OTHERS = [name for name in ("onnx", "openvino", "pt2", "litert", "savedmodel") if name != TO]
CHECKS = ("forward", "hidden", "attentions", "gradients", "roundtrip")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """One model of a class."""
    chosen = [case for case in parity_cases.sweep() if case.name.endswith("plain")]
    cases = [case for case in chosen if case.cls in GIVEN and case.cls != "ViTMAEModel"]
    every_patch = parity_cases.every_patch()[:1]
    monkeypatch.setattr(parity_cases, "sweep", lambda: cases)
    monkeypatch.setattr(parity_cases, "every_patch", lambda: every_patch)


@pytest.mark.programs
@pytest.mark.parametrize("to", [TO, *OTHERS])
def test_engines_are_in_the_matrix_and_the_report(to, tmp_path, capsys):
    words = ["parity", "--backends", f"torch,{to}", "--checks", ",".join(CHECKS), "--dtype", "float64,float32"]
    files = [tmp_path / "found.json", tmp_path / "found.html"]
    assert main([*words, "--json", str(files[0]), "--html", str(files[1])]) == 0
    found = json.loads(files[0].read_text())
    rows = [row for row in found["rows"] if to in (row["backend"], row["against"])]
    assert {row["dtype"] for row in rows} == {"float32"} and all(row["passed"] for row in rows)
    for against in ("oracle", to):
        mine = [row for row in rows if row["against"] == against]
        assert {cls: {row["check"] for row in mine if row["class"] == cls} for cls in GIVEN} == GIVEN
    left = {(row["check"], row["dtype"]): row["models"] for row in found["not_for_programs"]}
    assert left == {
        **{(check, "float64"): 3 for check in CHECKS},
        **{(check, "float32"): 1 for check in ("hidden", "attentions")},
        **{(check, "float32"): 3 for check in ("gradients", "roundtrip")},
    }
    assert {*found["processes"][to]["versions"]} > {"numpy"}
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gradients", to, "float32", "3", "not", "for", "programs"] in printed
    assert "<h2>Not for programs</h2>" in files[1].read_text()


BROKEN = """
import sys
import vitriad.parity_matrix.engine as engine
sound = engine.made
def changed(backend, job, tensors):
    name = next(n for n in tensors if n.endswith('encoder.layer.1.intermediate.dense.bias'))
    return sound(backend, job, {**tensors, name: tensors[name] + tensors[name].dtype.type(1e-2)})
engine.made = changed
engine.main(sys.argv[1], engine.Path(sys.argv[2]))
"""


@pytest.mark.long
def test_a_program_that_departs_is_found(monkeypatch, capsys):
    run, cases = subprocess.run, parity_cases.sweep()[:1]

    def broken(command, **options):
        is_engine = command[2] == "vitriad.parity_matrix.engine"
        return run([sys.executable, "-c", BROKEN, *command[3:]] if is_engine else command, **options)

    monkeypatch.setattr(parity.subprocess, "run", broken)
    monkeypatch.setattr(parity_cases, "sweep", lambda: cases)
    monkeypatch.setattr(parity_cases, "every_patch", lambda: [])
    assert main(["parity", "--backends", TO, "--dtype", "float32", "--checks", "hidden"]) == 1
    assert f"cause: {TO} departs, from layer 1 on, first in its MLP" in capsys.readouterr().out


def test_engines_compute_in_float32(monkeypatch, capsys):
    assert main(["parity", "--backends", "onnx", "--dtype", "float64"]) == 1
    assert "programs compute in float32: add --dtype float32" in capsys.readouterr().err
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert main(["parity", "--backends", "openvino"]) == 1
    assert "openvino, which is not installed" in capsys.readouterr().err
