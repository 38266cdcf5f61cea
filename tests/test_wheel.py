"""The built wheel, with one extra, in an environment of its own."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from vitriad.models import digit_files

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(1200)
def test_wheel_with_torch_alone_classifies_a_digit(tmp_path):
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    roots = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {"conversion", "vit_core", "vit_flax", "vit_tf", "vit_torch", "vitriad"}
    assert {name for name in roots if not name.endswith(".dist-info")} == packages

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel}[torch]", cwd=tmp_path)
    digit = digit_files()[7]
    answer = run(python.with_name("vitriad"), "classify", digit, "--json", "--backend", "torch", cwd=tmp_path)
    assert json.loads(answer)["label"] == digit.name[0]
    installed = {entry["name"] for entry in json.loads(run(python, "-m", "pip", "list", "--format=json", cwd=tmp_path))}
    assert {"tensorflow", "keras", "jax", "flax", "scikit-learn"} & installed == set()
