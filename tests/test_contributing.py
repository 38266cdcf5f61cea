"""CONTRIBUTING is true: its links lead somewhere, its targets exist, its recipe for an activation works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from backends import INSTALLED

from vit_core.config import ACTIVATIONS
from vitriad.backends import BACKENDS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEP = re.compile(r"\| \[(\S+\.py)\]\(\S+\) \| `(\w+)` \| `(.+)` \|")  # file, table, line


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^    make ([\w-]+)", TEXT, flags=re.MULTILINE)
    assert len(named) >= 5
    patterns = {name: re.sub(r"(test-only-)\w+", r"\1%", name) for name in named}
    assert [name for name in named if f"\n{patterns[name]}:" not in makefile] == []


def carried_out(recipe: str, copy: Path) -> list[str]:
    """Takes every step of a recipe in a copy of the source; returns the files."""
    steps = STEP.findall(recipe)
    for file, table, line in steps:
        text = (copy / file).read_text(encoding="utf-8")
        new, times = re.subn(rf"^({table}\b.*[({{])$", rf"\1\n    {line}", text, flags=re.MULTILINE)
        assert times == 1, f"{file}: {table}"
        (copy / file).write_text(new, encoding="utf-8")
    return [file for file, _, _ in steps]


@pytest.mark.long
def test_the_recipe_for_an_activation_holds_in_every_backend(tmp_path):
    assert "softsign" not in ACTIVATIONS, "the recipe needs another example"
    recipe = TEXT.partition("### An activation")[2].partition("###")[0]
    packages = [backend.package for backend in BACKENDS.values()]
    for package in (*packages, "vit_core", "conversion", "vitriad"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    files = carried_out(recipe, tmp_path)
    assert {f"{package}/activations.py" for package in packages} < {*files}

    (command,) = re.findall(r"^    vitriad (parity .*)$", recipe, flags=re.MULTILINE)
    arguments = [argument.strip("'") for argument in command.split()]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "vitriad", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " oracle " in line]
    assert {(row[0], row[1], row[-1]) for row in rows} == {
        (check, backend, "ok") for check in ("forward", "gradients") for backend in INSTALLED
    }
