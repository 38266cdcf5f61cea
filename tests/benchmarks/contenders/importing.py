"""Imports, each in an interpreter that has imported nothing else: ours beside what they stand on.

Names of vit_core and conversion are imported on first use, so there is a row for the package and one for all its names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.contenders import Contender, Group
from benchmarks.contenders.forward import Calls

CODE = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
ROOT = Path(__file__).parents[3]
OURS = ("vit_core", "conversion", "vit_torch", "vit_tf", "vit_flax", "vitriad")


def runner(folder: Path) -> Callable[[list[str]], str]:
    """Runs Python with arguments, beside a copy of our packages, and returns what it prints.

    Python keeps what it compiles of the copy, as pip has it for all installed packages.
    """
    folder = Path(mkdtemp(dir=folder))  # since contenders start together
    for package in OURS:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(folder)
    options = {"capture_output": True, "text": True, "check": True, "env": environment, "cwd": folder}
    return lambda arguments: subprocess.run([sys.executable, *arguments], **options).stdout


def importing(statement: str, folder: Path, tiny: bool) -> Calls:
    python = runner(folder)

    def run() -> float:
        return float(python(["-c", CODE.format(statement)]))

    run()  # compiles
    return {"import": run}


FLOORS = {
    "numpy": "import numpy",
    "torch": "import torch",
    "tensorflow, keras": "import tensorflow, keras",
    "jax, flax.linen": "import jax, flax.linen",
}
ROWS = {  # what, statement, floor
    "vit_core": ("import vit_core", "numpy"),
    "vit_core, all its names": ("from vit_core import *", "numpy"),
    "conversion": ("import conversion", "numpy"),
    "conversion, all its names": ("from conversion import *", "numpy"),
    "vit_torch": ("import vit_torch", "torch"),
    "vit_tf": ("import vit_tf", "tensorflow, keras"),
    "vit_flax": ("import vit_flax", "jax, flax.linen"),
}
GROUPS = {
    "importing": Group(
        "Imports",
        {
            **{name: Contender(partial(importing, statement), "floor") for name, statement in FLOORS.items()},
            **{name: Contender(partial(importing, statement), "ours", of) for name, (statement, of) in ROWS.items()},
        },
    )
}
