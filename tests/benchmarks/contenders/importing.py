"""Imports, each in an interpreter that has imported nothing else: ours beside what they stand on."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.contenders import Contender, Group
from benchmarks.contenders.forward import Calls

CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def importing(names: str, folder: Path, tiny: bool) -> Calls:
    def run() -> float:
        command = [sys.executable, "-c", CODE.format(names)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    return {"import": run}


PAIRS = {
    "vit_core": "numpy",
    "conversion": "numpy",
    "vit_torch": "torch",
    "vit_tf": "tensorflow, keras",
    "vit_flax": "jax, flax.linen",
}
GROUPS = {
    "importing": Group(
        "Imports",
        {
            **{name: Contender(partial(importing, name), "floor") for name in dict.fromkeys(PAIRS.values())},
            **{name: Contender(partial(importing, name), "ours", of) for name, of in PAIRS.items()},
        },
    )
}
