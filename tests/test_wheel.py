"""The built wheel, in environments of its own: what is in it, and what a copy says of itself."""

import json
import shutil
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def pip(python: Path, *words: object) -> str:
    """What pip of this environment prints, for another one."""
    return run(sys.executable, "-m", "pip", f"--python={python}", *words, cwd=python.parent)


def installed(folder: Path, *wish: object) -> Path:
    """The Python of a new environment in which pip has installed what is wished.

    Nothing is compiled before it is imported: for the whole of torch that takes four times as long as unpacking it.
    """
    python = folder / "env" / "bin" / "python"
    venv.create(folder / "env", with_pip=False)
    pip(python, "install", "-q", "--no-compile", *wish)
    return python


def copied(folder: Path, *wish: object) -> Path:
    """The same for a copy of vitriad without its dependencies."""
    return installed(folder, "--no-deps", *wish)


def hint(python: Path) -> str:
    """What the copy of an environment says to type for torch; its package is not imported, which needs NumPy."""
    code = (
        "import importlib.util, os, runpy\n"
        "(folder,) = importlib.util.find_spec('vit_core').submodule_search_locations\n"
        "print(runpy.run_path(os.path.join(folder, 'installing.py'))['install_command']('torch'))"
    )
    return run(python, "-I", "-c", code, cwd=python.parent).strip()


def test_a_built_copy_says_how_to_add_an_extra_as_pip_installed_it(wheel, tmp_path):
    page = tmp_path / "index" / "vitriad"
    page.mkdir(parents=True)
    (page / "index.html").write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>', encoding="utf-8")
    from_index = copied(tmp_path / "1", f"--index-url={page.parent.as_uri()}/", "vitriad")
    assert hint(from_index) == "pip install 'vitriad[torch]'"
    moved = Path(shutil.copy(wheel, tmp_path))
    from_file = copied(tmp_path / "2", moved)
    assert hint(from_file) == f"pip install '{moved}[torch]'"
    moved.unlink()
    assert hint(from_file) == "pip install 'torch>=2.10'"


@pytest.mark.long
def test_a_copy_of_a_source_tree_says_how_to_add_an_extra_as_pip_installed_it(tmp_path):
    tree = tmp_path / "my tree"
    ignored = shutil.ignore_patterns(".*", "tests", "docs", "__pycache__", "dist")
    shutil.copytree(ROOT, tree, ignore=ignored)
    assert hint(copied(tmp_path / "1", "-e", tree)) == f"pip install -e '{tree}[torch]'"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", tree)
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all")):
        run(*git, *words, cwd=tree)
    commit = run(*git, "rev-parse", "HEAD", cwd=tree).strip()
    url = f"git+{tree.as_uri()}"
    assert hint(copied(tmp_path / "2", url)) == f"pip install 'vitriad[torch] @ {url}@{commit}'"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_wheel_with_torch_alone_classifies_a_digit(wheel, tmp_path):
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {f"vitriad/deployments/{file}" for file in ("Dockerfile", "kubernetes.yaml", "vertex.sh")} <= {*names}
    packages = {"conversion", "vit_core", "vit_flax", "vit_tf", "vit_torch", "vitriad"}
    assert {name for name in roots if not name.endswith(".dist-info")} == packages

    python = installed(tmp_path, "-c", ROOT / "constraints.txt", f"{wheel}[torch]")
    digit = digit_files()[7]
    answer = run(python.with_name("vitriad"), "classify", digit, "--json", "--backend", "torch", cwd=tmp_path)
    assert json.loads(answer)["label"] == digit.name[0]
    listed = {entry["name"] for entry in json.loads(pip(python, "list", "--format=json"))}
    assert {"tensorflow", "keras", "jax", "flax", "scikit-learn"} & listed == set()
