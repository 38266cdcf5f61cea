"""What importing costs, and what it leaves alone: the neutral packages load no framework, a backend only its own."""

import shutil
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest
from backends import INSTALLED

from vit_core.errors import BackendError
from vitriad.backends import BACKENDS

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "jaxlib", "flax", "optax")
NEUTRAL = ("vit_core", "conversion", "vitriad")
LAZY = ("huggingface_hub", "tqdm", "h5py", "msgpack", "matplotlib", "transformers")
# What a backend cannot do without: its own time and modules are counted beyond these.
OWN = {"torch": "import torch", "tf": "import tensorflow, keras", "flax": "import jax, flax.linen"}
FORMATS = {"torch": "pt", "tf": "tf", "flax": "jax"}


def child(code):
    """What a fresh interpreter prints, as words."""
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@cache
def loaded(names, statement):
    """Those of `names` that `statement` imports."""
    return child(f"import sys\n{statement}\nprint(*[name for name in {names!r} if name in sys.modules])")


@pytest.mark.parametrize("package", NEUTRAL)
def test_neutral_packages_load_no_framework(package):
    assert loaded(FRAMEWORKS, f"from {package} import *") == []  # all its names, which are imported on first use
    assert loaded(LAZY, f"import {package}" if package == "vitriad" else f"from {package} import *") == []


def test_every_module_of_the_core_loads_no_framework():
    walk = "import pkgutil, importlib, vit_core\nnames = [m.name for m in pkgutil.iter_modules(vit_core.__path__)]\n"
    each = "for name in names: importlib.import_module(f'vit_core.{name}')"
    assert loaded(FRAMEWORKS + LAZY, walk + each) == []


@pytest.mark.every_day("sys]", "keras", "import vit_torch", "pt")
@pytest.mark.parametrize(
    "statement",
    [
        "sys.modules['torch'] = sys",
        "import types; sys.modules['keras'] = types.ModuleType('keras')",
        *(f"import {BACKENDS[name].package}" for name in INSTALLED),
        *(f"import vit_core.tensors as t, numpy; t.from_numpy(numpy.ones(1), '{FORMATS[x]}')" for x in INSTALLED),
    ],
)
def test_the_detector_can_fail(statement):
    assert loaded(FRAMEWORKS, statement) != []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_loads_its_own_framework_only_or_says_what_to_install(backend):
    package = BACKENDS[backend].package
    if backend in INSTALLED:
        here = f"print(*[name for name in {FRAMEWORKS!r} if name in sys.modules], sep=',')"
        needed, after = child(f"import sys\n{OWN[backend]}\n{here}\nimport {package}\n{here}")
        assert BACKENDS[backend].framework in needed.split(",") and after == needed
        return
    with pytest.raises(BackendError, match=rf"pip install .*\[{backend}\]'"):
        import_module(package)


@pytest.mark.parametrize("hidden", ["torch", "tensorflow", "jax", "flax"])
def test_the_core_works_where_a_framework_is_broken(hidden):
    statement = f"sys.modules[{hidden!r}] = None\nimport vit_core\nprint(vit_core.ViTConfig().hidden_size)"
    assert child(f"import sys\n{statement}") == ["768"]


def cost(statement, before=""):
    """Seconds of processor time that `statement` takes: waiting for a busy machine is not counted."""
    clock = "time.process_time()"
    return float(child(f"{before}\nimport time\nstart = {clock}\n{statement}\nprint({clock} - start)")[0])


def share(statement, needed):
    """Processor time that imports take, as a share of what it needs, which is imported before."""
    clock, statements = "time.process_time()", f"{needed}\nmiddle = time.process_time()\n{statement}"
    took = f"({clock} - middle) / (middle - start)"
    return float(child(f"import time\nstart = {clock}\n{statements}\nprint({took})")[0])


NEEDS = "import numpy, PIL.Image, PIL.ImageOps, ml_dtypes, json, logging, urllib.parse, inspect, hashlib, tempfile"
NEUTRAL_NAMES = "from vit_core import *; from conversion import *"
PACKAGES = [
    pytest.param(NEEDS, "from vit_core import *", id="-vit_core"),
    *(
        pytest.param(f"{OWN[x]}; {NEUTRAL_NAMES}", f"import {BACKENDS[x].package}", id=f"-{BACKENDS[x].package}")
        for x in INSTALLED
    ),
]


@pytest.fixture
def _bytecode(tmp_path, monkeypatch):
    """Python keeps what it compiles, as it does for users: of a copy of our packages, so that ours stay as they are."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    for package in (*NEUTRAL, *(BACKENDS[name].package for name in INSTALLED)):
        source = Path(find_spec(package).origin).parent
        shutil.copytree(source, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert child("import vit_core; print(vit_core.__path__[0])") == [str(tmp_path / "vit_core")]


@pytest.mark.every_day("-vit_core]", "-vit_torch]")
@pytest.mark.usefixtures("_bytecode")
@pytest.mark.parametrize(("before", "statement"), PACKAGES)
def test_importing_costs_a_third_of_what_it_needs_at_most(before, statement):
    """Both are measured in one process: how fast the machine is, and how busy, cancels out."""
    ratios = (share(statement, before) for _ in range(20))  # the first one compiles
    tried = [*takewhile(lambda ratio: ratio >= 1 / 3, ratios)]
    assert len(tried) < 20, f"{statement} took {min(tried):.2f} of the time of what it needs, at best"


def test_the_clock_can_fail():
    assert cost("while time.process_time() - start <= 0.2: pass") > 0.2
