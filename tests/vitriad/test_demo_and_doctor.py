"""`vitriad demo` shows both models at work; `vitriad doctor` says what is installed."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

from vit_core.installing import install_command
from vitriad import doctor, models
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.cli import main


def test_demo_classifies_and_draws(capsys, tmp_path):
    assert main(["demo", "--output", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["file", "true", INSTALLED[0]]
    rows = [line.split() for line in lines[1:21]]
    assert [true == predicted for _, true, predicted, *_ in rows].count(True) >= 19
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {
        "digits.png",
        "mae-digits.png",
        "attention-digits.png",
        "alike-digits.png",
        *(file.name for file in models.digit_files()),
    }
    assert lines[-3] == f"reconstructions: {tmp_path / 'out' / 'mae-digits.png'}"
    assert lines[-1] == f"the most alike: {tmp_path / 'out' / 'alike-digits.png'}"
    with Image.open(tmp_path / "out" / "digits.png") as sheet:
        width, height = sheet.size
    assert width > 10 * 12 * 8 and height > 2 * 12 * 8  # scans of 8 x 8 pixels, each drawn as 12 x 12
    colours = np.asarray(Image.open(tmp_path / "out" / "mae-digits.png")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100


def test_demo_compares_backends(capsys, tmp_path, monkeypatch):
    """Two backends that compute the same: the first one, and it again under the name of another."""
    one, other = INSTALLED[0], next(name for name in reversed(BACKENDS) if name != INSTALLED[0])
    names = ("ViTForImageClassification", "ViTMAEForPreTraining", "ViTModel")
    twin = SimpleNamespace(**{BACKENDS[other].prefix + name: model_class(name, one) for name in names})
    monkeypatch.setitem(sys.modules, BACKENDS[other].package, twin)
    both = {BACKENDS[name].framework for name in (one, other)}
    monkeypatch.setattr("vitriad.auto.find_spec", lambda name: name in both or None)
    assert main(["demo", "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    first, second = (name for name in BACKENDS if name in (one, other))
    assert f"{first} and {second}: logits differ by at most 0.0e+00" in text
    assert text.count("mean squared error on removed patches") == 2


def test_doctor_reports_as_json(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert ["cpu" in str(found["backends"][name]["devices"]).lower() for name in INSTALLED] == [True] * len(INSTALLED)
    assert {"vitriad", "numpy", "pillow", "torch", "keras", "jax"} <= found["versions"].keys()
    assert found["python"] == sys.version.split()[0]
    assert "KERAS_BACKEND" in found["environment"]


def test_doctor_says_how_to_install_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert [f"not installed: {install_command(name)}" in text for name in ("torch", "tf", "flax")] == [True] * 3
    assert "KERAS_BACKEND  jax" in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (subprocess.TimeoutExpired("python", 120), "does not import within 120 seconds"),
        (subprocess.CalledProcessError(-11, "python", stderr="noise\n"), "ended with code -11"),
        (
            subprocess.CalledProcessError(1, "python", stderr="noise\nTraceback:\nImportError: no libcuda.so\nhint\n"),
            "ImportError: no libcuda.so hint",
        ),
        (
            subprocess.CalledProcessError(1, "python", stderr="vit_core.errors.BackendError: not in this release\n"),
            "not in this release",
        ),
    ],
)
def test_doctor_survives_frameworks_that_do_not_import(capsys, monkeypatch, error, expected):
    def run(*_, **__):
        raise error

    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor.subprocess, "run", run)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {state["problem"] for state in found["backends"].values()} == {expected}


@pytest.mark.parametrize(
    ("system", "program", "words"),
    [
        (
            ("Linux", "x86_64"),
            "nvidia-smi",
            {"torch": "not from the index of CPU", "tf": "[and-cuda]", "flax": "[cuda12]"},
        ),
        (("Darwin", "arm64"), None, {"torch": "MPS", "tf": "tensorflow-metal", "flax": "jax-metal"}),
        (("Linux", "x86_64"), None, {}),
    ],
)
def test_doctor_says_what_brings_the_gpu_that_a_framework_does_not_see(system, program, words, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name == program else None)
    monkeypatch.setattr(doctor.platform, "system", lambda: system[0])
    monkeypatch.setattr(doctor.platform, "machine", lambda: system[1])
    for backend in BACKENDS:
        said = doctor._idle(backend, ["/physical_device:CPU:0"]).get("idle", "")
        assert words.get(backend, "") in said and bool(said) == bool(words)
        assert doctor._idle(backend, ["cpu", "cuda:0"]) == {}
