"""One backend of `vitriad parity`, in a process of its own: `python -m vitriad.parity_matrix.worker BACKEND DIR`.

Reads what DIR/jobs.json asks for and writes DIR/BACKEND.json and arrays beside it. The parent compares.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vit_core.files.npz import save_arrays
from vit_core.images.files import open_image
from vit_core.images.processor import AutoImageProcessor
from vit_core.parameters import MODEL_CLASSES
from vit_core.tensors import Array, digest, to_numpy
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.models import digit_files, find
from vitriad.parity_matrix import training as parity_training

Tensors = Mapping[str, Array]

_FORMATS = {"torch": "pt", "tf": "tf", "flax": "jax"}  # what the image processor calls their tensors


def main(backend: str, folder: Path) -> None:
    """Does the jobs in a folder."""
    jobs = json.loads((folder / "jobs.json").read_text())
    parity = import_module(f"{BACKENDS[backend].package}.parity")
    done: dict[str, Any] = {
        "pid": os.getpid(),
        "versions": {name: version(name) for name in ("numpy", *parity.FRAMEWORKS)},
        "digests": {},
    }
    for job in jobs["cases"]:
        for dtype in jobs["dtypes"]:
            with _wide(backend, dtype):
                done["digests"][f"{job['index']} {dtype}"] = _case(
                    backend, parity, folder, job, dtype, jobs["gradients"]
                )
    if jobs["training"]:
        done["training"], digests = _training(backend, folder, jobs["training"])
        done["digests"] |= digests
    if jobs["preprocessing"]:
        done["preprocessing"] = _preprocessing(backend)
    (folder / f"{backend}.json").write_text(json.dumps(done))


def _wide(backend: str, dtype: str) -> Any:
    """JAX rounds to float32 unless told not to."""
    return import_module("jax").enable_x64(dtype == "float64") if backend == "flax" else nullcontext()


def _case(backend: str, parity: Any, folder: Path, job: Mapping[str, Any], dtype: str, wants_gradients: bool) -> str:
    """Runs one model; returns a digest of the weights that it really had."""
    tensors, inputs, weights = read_case(folder, job)
    exact = {name: array.astype(_numpy_dtype(dtype)) for name, array in tensors.items()}
    model = made(backend, job, exact)
    inputs["pixel_values"] = inputs["pixel_values"].astype(np.float64 if dtype == "float64" else np.float32)
    found: dict[str, Array] = {}
    for name, output in parity.outputs(model, inputs).items():
        parts = {f"{name}.{i}": part for i, part in enumerate(output)} if isinstance(output, tuple) else {name: output}
        found |= {f"o:{key}": np.asarray(part, np.float64) for key, part in parts.items()}
    if wants_gradients:
        _, gradients = parity.gradients(model, inputs, weights)
        found |= {f"g:{name}": np.asarray(gradient, np.float64) for name, gradient in gradients.items()}
    save_arrays(folder / f"{backend}-{job['index']}-{dtype}.npz", found)
    return digest(exact)


def read_case(folder: Path, job: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """The tensors, the inputs, and the weights of outputs that the parent wrote for a case."""
    with np.load(folder / f"{job['index']}.npz") as stored:
        arrays = {name: stored[name] for name in stored}

    def of_kind(letter: str) -> dict[str, Array]:
        return {name[2:]: array for name, array in arrays.items() if name.startswith(f"{letter}:")}

    return of_kind("t"), of_kind("i"), of_kind("w")


def made(backend: str, job: Mapping[str, Any], tensors: Tensors) -> Any:
    """The model of a case."""
    config = MODEL_CLASSES[job["class"]].from_dict(job["config"])
    return model_class(job["class"], backend).from_tensors(config, tensors, **job["options"])


def _numpy_dtype(name: str) -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)


def _training(backend: str, folder: Path, asked: Mapping[str, Any]) -> tuple[dict[str, list[float]], dict[str, str]]:
    """The losses of every run and dtype, and digests of the weights that they began with."""
    losses, digests = {}, {}
    for dtype in asked["dtypes"]:
        for name in parity_training.RUNS:
            with _wide(backend, dtype):
                run = parity_training.trained(backend, name, dtype, asked["steps"])
            weights: Any = run.weights
            save_arrays(parity_training.file_of(folder, backend, name, dtype), weights)
            losses[f"{name} {dtype}"], digests[f"training {name} {dtype}"] = run.losses, run.digest
    return losses, digests


def _preprocessing(backend: str) -> str:
    """A digest of the pixels of real images, taken through this framework's tensors."""
    processor = AutoImageProcessor.from_pretrained(find("digits-vit"))
    pictures = [open_image(file) for file in digit_files()]
    return digest({"pixels": to_numpy(processor(pictures, return_tensors=_FORMATS[backend])["pixel_values"])})


def roundtrip(backend: str, folder: Path, step: int) -> None:
    """Loads what the step before saved, and saves it for the next."""
    for job in json.loads((folder / "jobs.json").read_text())["cases"]:
        source, target = (folder / f"round-{job['index']}-{number}" for number in (step, step + 1))
        model_class(job["class"], backend).from_pretrained(source, **job["options"]).save_pretrained(target)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        roundtrip(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]))
