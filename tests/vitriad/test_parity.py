"""`vitriad parity`: it passes where backends agree, and fails, naming the layer, where one does not."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_models  # noqa: F401  # has XLA compile quickly, in child processes too
from backends import INSTALLED

from vit_core.images.files import open_image
from vit_core.images.processor import AutoImageProcessor
from vit_core.parameters import MODEL_CLASSES
from vitriad import models, parity
from vitriad.cli import main
from vitriad.parity_matrix import cases as parity_cases
from vitriad.parity_matrix import training as parity_training
from vitriad.parity_matrix.causes import causes
from vitriad.parity_matrix.report import page

pytestmark = pytest.mark.timeout(1200)  # a run of every backend takes a minute or two of a machine of one's own


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One run of every installed backend, as the command writes it; XLA compiles quickly. Half a minute: not every day.

    One model of each class, of either size in turn: all ten run in `make parity`.
    """
    cases = parity_cases.sweep()
    assert [case.cls for case in cases[::2]] == [case.cls for case in cases[1::2]] == [*MODEL_CLASSES]
    folder = tmp_path_factory.mktemp("parity")
    files = {name: str(folder / f"found.{name}") for name in ("json", "html")}
    words = ["parity", "--backends", ",".join(INSTALLED), "--dtype", "float32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity_training, "STEPS", 8)  # of 200, which tests/parity/ goes through
        patch.setattr(parity_cases, "sweep", lambda: sorted(cases[::4] + cases[3::4], key=cases.index))
        assert main([*words, *(word for name in files for word in (f"--{name}", files[name]))]) == 0
    return json.loads(Path(files["json"]).read_text()), Path(files["html"]).read_text()


@pytest.mark.long
def test_every_backend_class_and_check_is_there(found):
    rows = found[0]["rows"]
    assert found[0]["passed"] and found[0]["same_weights"]
    for backend in INSTALLED:
        mine = [row for row in rows if row["backend"] == backend and row["against"] == "oracle"]
        assert {row["class"] for row in mine} == {*MODEL_CLASSES}
        assert {row["check"] for row in mine} == {"forward", "hidden", "attentions", "loss", "gradients"}
    assert {row["check"] for row in rows} >= {"preprocessing", "roundtrip"}
    pairs = len(INSTALLED) * (len(INSTALLED) - 1) // 2
    trained = [row for row in rows if row["check"] == "training"]
    assert len(trained) == 4 * pairs and all(len(row["errors"] or range(8)) == 8 for row in trained)
    assert all(0 <= row["error"] <= row["tolerance"] for row in rows)


@pytest.mark.long
def test_every_backend_had_a_process_of_its_own(found):
    processes = found[0]["processes"]
    assert [*processes] == INSTALLED
    pids = {process["pid"] for process in processes.values()}
    assert len(pids) == len(INSTALLED) and os.getpid() not in pids
    for backend, process in processes.items():
        frameworks = {"torch": {"torch"}, "tf": {"tensorflow", "keras"}, "flax": {"jax", "flax"}}[backend]
        assert process["versions"].keys() == frameworks | {"numpy"}


@pytest.mark.long
def test_the_report_is_one_file_that_refers_to_nothing(found):
    text = found[1]
    assert not re.findall(r"(?:src|href|url)\s*[=(]|@import|<script", text)
    for word in (*MODEL_CLASSES, *INSTALLED, "the same", "float32", *found[0]["processes"][INSTALLED[0]]["versions"]):
        assert word in text
    assert text.count("<svg") >= 1 and text.count("<svg") == text.count("</svg>")


@pytest.mark.long
def test_xla_as_users_have_it_computes_the_same(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # of small_models.py
    few = parity_cases.sweep()[::8]  # an encoder, and an autoencoder
    monkeypatch.setattr(parity_cases, "sweep", lambda: few)
    words = ["--backends", INSTALLED[-1], "--dtype", "float32", "--checks", "forward,gradients"]
    assert main(["parity", *words]) == 0


BROKEN = """
import sys
import vitriad.parity_matrix.worker as worker
{patch}
if len(sys.argv) > 3: worker.roundtrip(sys.argv[1], worker.Path(sys.argv[2]), int(sys.argv[3]))
else: worker.main(sys.argv[1], worker.Path(sys.argv[2]))
"""
PATCHES = {
    "another bias in the second layer": (
        "sound = worker.model_class\n"
        "class Changed:\n"
        "    def __init__(self, cls): self.cls = cls\n"
        "    def from_tensors(self, config, tensors, **options):\n"
        "        name = next(n for n in tensors if n.endswith('encoder.layer.1.intermediate.dense.bias'))\n"
        "        changed = {**tensors, name: tensors[name] + tensors[name].dtype.type(1e-3)}\n"
        "        return self.cls.from_tensors(config, changed, **options)\n"
        "worker.model_class = lambda *words: Changed(sound(*words))",
        "departs, from layer 1 on, first in its MLP (2 of 2 models, float64)",
    ),
    "other weights": (
        "sound = worker.digest\nworker.digest = lambda tensors: sound(tensors)[::-1]",
        "did not have the same weights",
    ),
}


@pytest.mark.every_day("bias")
@pytest.mark.parametrize("what", PATCHES if len(INSTALLED) > 1 else [*PATCHES][:1])
def test_a_backend_that_is_broken_is_found(what, monkeypatch, capsys):
    patch, message = PATCHES[what]
    monkeypatch.setattr(parity.subprocess, "run", broken_by(patch))
    few = parity_cases.sweep()[3::6]  # a classifier, and an autoencoder
    monkeypatch.setattr(parity_cases, "sweep", lambda: few)
    words = [
        "--backends",
        ",".join({INSTALLED[0]: 1, INSTALLED[-1]: 1}),
        "--dtype",
        "float64",
        "--checks",
        "forward,hidden",
    ]
    assert main(["parity", *words]) == 1
    assert message in capsys.readouterr().out


def broken_by(patch, backends=INSTALLED[-1:]):
    """`subprocess.run` with the worker of some backends patched."""
    run = subprocess.run

    def broken(command, **options):
        if command[3] in backends:
            command = [sys.executable, "-c", BROKEN.format(patch=patch), *command[3:]]
        return run(command, **options)

    return broken


@pytest.mark.long
def test_half_precision_is_held_to_what_it_measures():
    checks = ["forward", "hidden", "attentions", "loss"]
    cases = parity_cases.sweep()[1::2]  # the wider ones, which round worst
    found = parity.compare(cases, INSTALLED, ["bfloat16", "float16"], checks)
    assert found["passed"]
    for dtype in ("bfloat16", "float16"):
        for check in checks:
            mine = [r for r in found["rows"] if (r["dtype"], r["check"], r["against"]) == (dtype, check, "oracle")]
            worst = max(row["error"] for row in mine)  # a rung far above it would find blunders only
            assert worst < parity.TOLERANCES[dtype][check] < 5 * worst, (dtype, check, worst)


@pytest.mark.long
def test_a_small_fault_is_found_in_half_precision_too(monkeypatch, capsys):
    patch, _ = PATCHES["another bias in the second layer"]
    monkeypatch.setattr(parity.subprocess, "run", broken_by(patch.replace("1e-3", "1e-1")))
    few = parity_cases.sweep()[3::6]
    monkeypatch.setattr(parity_cases, "sweep", lambda: few)
    words = ["--backends", INSTALLED[-1], "--dtype", "float16", "--checks", "hidden"]
    assert main(["parity", *words]) == 1  # 4e-2 of scale
    assert "first hidden_states.2, worst hidden_states." in capsys.readouterr().out


def row(check, backend, case="a", dtype="float32", **fields):
    fields = {"against": "oracle", "passed": False, "first": None, "worst": "x", **fields}
    return {"check": check, "backend": backend, "case": case, "dtype": dtype, **fields}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (
            [row("hidden", "tf", first="hidden_states.0")],
            "tf alone departs, first in the embeddings (1 of 1 models, float32)",
        ),
        (
            [row("attentions", "tf", first="attentions.2"), row("hidden", "tf", first="hidden_states.3")],
            "tf alone departs, from layer 2 on, first in its attention (1 of 1 models, float32)",
        ),
        (
            [row("hidden", "tf", case, first=f"hidden_states.{k}") for case, k in (("a", 5), ("b", 2))],
            "tf alone departs, from layer 1 on, first in its MLP of b (2 of 2 models, float32)",
        ),
        (
            [row("forward", "tf", dtype=d, first="logits") for d in ("float64", "float32")] + [row("loss", "tf")],
            "tf alone departs, first in logits (1 of 1 models, float64 and float32)",
        ),
        (
            [row("gradients", b, first="cls_token") for b in ("torch", "tf")],
            "torch and tf depart alike, first in the gradient of cls_token (1 of 1 models, float32)",
        ),
        ([row("hidden", "tf", passed=True)], None),
        (
            [row("training", "torch", against="tf", worst="losses")],
            "training: torch and tf part, most in losses",
        ),
        ([row("preprocessing", "tf", against="torch")], "preprocessing: tf gives other bits than torch"),
    ],
)
def test_every_cause_is_one_line(rows, line):
    found = causes(rows, ["torch", "tf"], lambda backend, case, dtype, layer: [f"MLP of {case}"])
    assert found == ([] if line is None else [line])


SWAPPED = """
sound = worker.model_class
class Changed:
    def __init__(self, cls): self.cls = cls
    def from_tensors(self, config, tensors, **options):
        turn = [1, 0, *range(2, config.num_labels)]
        turned = {n: t[turn] if n.startswith('classifier.') else t for n, t in tensors.items()}
        return self.cls.from_tensors(config, turned, **options)
worker.model_class = lambda *words: Changed(sound(*words))
"""


def test_two_rows_of_a_head_exchanged_show_in_the_class_and_not_in_the_cosine(monkeypatch, tmp_path, capsys):
    (case,) = (
        case for case in parity_cases.sweep()[:4] if case.cls == "ViTForImageClassification" and "plain" in case.name
    )
    tensors = {**case.tensors, "classifier.bias": np.float64([106, 105, 98, 98, 98])}  # the first two are best
    monkeypatch.setattr(parity.subprocess, "run", broken_by(SWAPPED, INSTALLED))
    monkeypatch.setattr(parity_cases, "sweep", lambda: [replace(case, tensors=tensors)])
    words = ["--backends", ",".join(INSTALLED), "--dtype", "float64", "--checks", "forward"]
    file = tmp_path / "found.json"
    assert main(["parity", *words, "--json", str(file)]) == 1
    exact = replace(case, tensors=tensors).expected()["logits"]
    np.testing.assert_array_less(exact[:, 2:].max(axis=1), exact[:, :2].min(axis=1))  # so all images change
    shares = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    worst = ((shares[:, 0] - shares[:, 1]) * (exact[:, 0] - exact[:, 1])).max()
    rows = json.loads(file.read_text())["rows"]
    for row in rows:
        assert row["cosine"] > 0.99 and row["top5"] == 1
        assert row["top1"] == (0 if row["against"] == "oracle" else 1), row
        np.testing.assert_allclose(row["kl"], worst if row["against"] == "oracle" else 0, rtol=1e-9, atol=1e-12)
    assert {row["backend"] for row in rows} == {*INSTALLED}
    assert re.search(r"FAIL +0\.99\d+ +0\.0% +100\.0% +\d", capsys.readouterr().out)


def test_the_user_s_images_are_what_is_compared_on(tmp_path):
    files = [str(file) for file in models.digit_files()[::5]]
    words = ["--backends", INSTALLED[0], "--dtype", "float32", "--checks", "forward,hidden", "--images", *files]
    file = tmp_path / "found.json"
    assert main(["parity", "digits-vit", *words, "--json", str(file)]) == 0
    head, states = json.loads(file.read_text())["rows"]
    assert (head["top1"], head["top5"]) == (1, 1) and 0 <= head["kl"] < 1e-9 and 1 - head["cosine"] < 1e-9
    assert states["top1"] is None and states["kl"] is None and 1 - states["cosine"] < 1e-9
    (case,) = parity_cases.checkpoint("digits-vit", files)
    prepared = AutoImageProcessor.from_pretrained(models.find("digits-vit"))([open_image(file) for file in files])
    np.testing.assert_array_equal(case.inputs["pixel_values"], prepared["pixel_values"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "x.png"], "random models see random numbers"),
        (["digits-vit", "--images", "nowhere.png"], "nowhere.png"),
        (["digits-vit", "--processor", "digits-vit"], "--images names some"),
    ],
)
def test_images_that_nothing_sees_are_refused(words, message, capsys):
    assert main(["parity", *words, "--backends", INSTALLED[0]]) == 1
    assert message in capsys.readouterr().err


def test_a_process_that_fails_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(parity.sys, "executable", "/bin/false")
    assert main(["parity", "--backends", INSTALLED[0], "--checks", "forward"]) == 1
    assert f"the process of {INSTALLED[0]} failed with 1" in capsys.readouterr().err


@pytest.mark.every_day("torch")
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_checkpoint(backend, capsys):
    assert main(["parity", "digits-vit", "--backends", backend, "--checks", "forward,gradients,loss"]) == 0
    assert re.search(rf"gradients +{backend} +oracle +float32 +1 ", capsys.readouterr().out)


def test_a_preset():
    (case,) = parity_cases.preset("vit-tiny-patch16-224")
    assert case.config.hidden_size == 192 and len(case.directions()) <= 2 * parity_cases._MOST


@pytest.mark.parametrize(
    "words",
    [
        ["--backends", "mxnet"],
        ["--dtype", "int8"],
        ["--checks", "none"],
        ["--checks", ""],
        ["digits-vit", "--preset", "x"],
    ],
)
def test_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["parity", *words])
    assert caught.value.code == 2
    assert "expected some of" in (text := capsys.readouterr().err) or "not allowed with" in text


@pytest.mark.long
def test_the_page_shows_what_departs(found):
    row = {**found[0]["rows"][0], "passed": False, "error": float("inf"), "first": "<hidden>"}
    text = page({**found[0], "passed": False, "rows": [*found[0]["rows"], row], "causes": ["tf alone departs"]})
    assert "tf alone departs" in text
    assert "not the same" in text and "What departs" in text and "&lt;hidden&gt;" in text and "<hidden>" not in text


def test_the_oracle_s_derivatives_are_those_of_differences():
    case = parity_cases.sweep()[1]
    weights = case.weights(case.expected())
    name, way = next(iter(case.directions().items()))

    def number(step):
        outputs = case.expected({**case.tensors, name: case.tensors[name] + step * way})
        return sum((weight * outputs[output]).sum() for output, weight in weights.items())

    slope = (number(1e-5) - number(-1e-5)) / 2e-5
    np.testing.assert_allclose(case.derivatives(weights)[name], slope, rtol=1e-6)
