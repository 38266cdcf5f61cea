"""The README is true: its code runs as written, its targets exist, its tree is the tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from backends import INSTALLED

from vitriad.backends import BACKENDS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


CODE, *IMPORTS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
FIRST_LINES = [CODE.splitlines()[0], *map(str.strip, IMPORTS)]
HERE = [BACKENDS[name].package for name in INSTALLED]


@pytest.mark.every_day("vit_torch")
@pytest.mark.parametrize("first_line", [x for x in FIRST_LINES if x.split()[1] in HERE])
def test_the_quickstart_runs_as_written(tmp_path, first_line):
    """In every framework: only the import changes."""
    code = "\n".join([first_line, *CODE.splitlines()[1:]])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "my-vit").iterdir()}


def test_every_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^make (\w+)", TEXT, flags=re.MULTILINE)
    assert [target for target in named if f"\n{target}:" not in makefile] == []


def test_the_tree_and_the_links_are_there():
    (tree,) = re.findall(r"## The tree\n\n```\n(.*?)```", TEXT, flags=re.DOTALL)
    named = [line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', TEXT)
    assert len(pictures) == 2, "one for light pages and one for dark ones"
    assert [name for name in [*named, *links, *pictures] if not (ROOT / name).exists()] == []


def test_it_is_a_front_page():
    """Short, and every part of the book is one click away."""
    parts = {f"docs/{page.parent.name}/index.md" for page in (ROOT / "docs").glob("*/index.md")}
    assert len(parts) == 4
    assert parts - {*re.findall(r"\]\(([^)#]+)", TEXT)} == set()
    assert len(TEXT.splitlines()) < 150
