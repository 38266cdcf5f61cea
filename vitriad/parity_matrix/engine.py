"""One engine's part of `vitriad parity`, in a process of its own: `python -m vitriad.parity_matrix.engine FORMAT DIR`.

Every case is exported from the format's usual backend here, and run by the engine in a process that has no backend. A
program has no loss, gradients or training, and computes in float32: what it cannot be asked is listed as such.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vit_core.files.npz import save_arrays
from vit_core.tensors import Array, digest
from vitriad.artefacts import Artefact
from vitriad.backends import BACKENDS
from vitriad.engines import ENGINES
from vitriad.parity_matrix.cases import Case
from vitriad.parity_matrix.worker import made, read_case
from vitriad.programs.certificate import run_alone
from vitriad.programs.exporting import FORMATS, settled

DTYPE = "float32"
# What the programs of a purpose are made for.
_SHOWS = {
    "logits": {"forward"},
    "reconstruction": {"forward"},
    "features": {"forward", "hidden"},
    "attentions": {"attentions"},
}
# Names that a program has for what the model calls otherwise, or does not return.
_NAMES = {"tokens": "last_hidden_state", "class_token": None, "patch_mean": None}


def main(to: str, folder: Path) -> None:
    """Does the jobs in a folder that programs can do."""
    jobs = json.loads((folder / "jobs.json").read_text())
    backend = writer(to)
    packages = ("numpy", ENGINES[to].distribution, *FORMATS[to].converters[backend])
    done: dict[str, Any] = {"pid": os.getpid(), "versions": {name: version(name) for name in packages}, "digests": {}}
    for job in jobs["cases"] if DTYPE in jobs["dtypes"] else ():
        tensors, inputs, _ = read_case(folder, job)
        exact = {name: array.astype(DTYPE) for name, array in tensors.items()}
        model = made(backend, job, exact)
        found: dict[str, Array] = {}
        for purpose, layers in _purposes(job["class"], model.config):
            if not _SHOWS[purpose] & {*jobs["checks"]}:
                continue
            found |= _computed(to, backend, model, purpose, layers, inputs)
        save_arrays(folder / f"{to}-{job['index']}-{DTYPE}.npz", found)
        done["digests"][f"{job['index']} {DTYPE}"] = digest(exact)
    (folder / f"{to}.json").write_text(json.dumps(done))


def writer(to: str) -> str:
    """The backend that usually writes programs of a format."""
    return next(iter(FORMATS[to].converters))


def not_asked(
    backends: Sequence[str],
    cases: Sequence[Case],
    dtypes: Sequence[str],
    checks: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What engines were not compared in: by check, backend and dtype, for how many of how many models."""
    asked = {(r["check"], r["backend"], r["dtype"], r["case"]) for r in rows if r["against"] == "oracle"}
    left = []
    for engine in (name for name in backends if name in ENGINES):
        for check in checks:
            for dtype in dtypes or (DTYPE,):
                missing = sum((check, engine, dtype, case.name) not in asked for case in cases)
                if missing:
                    left.append({"check": check, "backend": engine, "dtype": dtype, "models": missing})
    return left


def _purposes(cls: str, config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The programs that return what the model returns for the same inputs, and the layers whose states they give."""
    if cls == "ViTForImageClassification":
        yield "logits", ()
    if cls == "ViTForMaskedImageModeling" or (cls == "ViTMAEForPreTraining" and config.mask_ratio):
        yield "reconstruction", ()  # programs of features see all patches, as this model does not
    elif cls in ("ViTModel", "ViTForImageClassification") or (cls == "ViTMAEModel" and not config.mask_ratio):
        yield "features", tuple(range(config.num_hidden_layers + 1))
        yield "attentions", ()


def _computed(
    to: str, backend: str, model: Any, purpose: str, layers: tuple[int, ...], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """What one program returns, under the names of `parity_worker`."""
    program, inside = settled(model, purpose, layers, "batch", None, None, None)
    with tempfile.TemporaryDirectory(prefix="vitriad-parity-") as scratch:
        file = Path(scratch) / ENGINES[to].file
        import_module(f"{BACKENDS[backend].package}.exporting").export_program(inside, file, to, program)
        none_masked = np.zeros((len(inputs["pixel_values"]), program.patches(*program.example_size)), bool)
        given = {each.name: inputs.get(each.name, none_masked) for each in program.inputs}
        (arrays,) = run_alone(Artefact(Path(scratch), to, program, None, {}, {}, {}), [given])
    found = {}
    for name, array in zip(program.outputs, arrays, strict=True):
        first, _, number = name.rpartition("_")
        plain = f"{first}.{number}" if number.isdigit() else _NAMES.get(name, name)
        if plain is not None:
            found[f"o:{plain}"] = np.asarray(array, np.float64)
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
