"""An engine in a process of its own: `python -m vitriad.engines.worker WHAT INPUTS.npz OUTPUTS.npz`.

None of vitriad's backends may be imported here: what runs is what people get who have the engine alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from vit_core.files.npz import save_arrays
from vit_core.tensors import Array
from vitriad.engines import open_program


def main(asked: str, given: str, taken: str) -> None:
    """Runs a program on batches of inputs and writes its outputs."""
    what = json.loads(asked)
    run = open_program(Path(what["folder"]), what["to"], what["inputs"], what["outputs"], what["threads"])
    found: dict[str, Array] = {}
    with np.load(given) as arrays:
        for i in range(what["batches"]):
            outputs = run({name: arrays[f"{i} {name}"] for name in what["inputs"]})
            found |= {f"{i} {name}": output for name, output in zip(what["outputs"], outputs, strict=True)}
    if ours := {"vit_torch", "vit_tf", "vit_flax"} & {*sys.modules}:
        raise SystemExit(f"the program imported {', '.join(sorted(ours))}")
    save_arrays(taken, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
