"""Two runs of training that every backend goes by its own loop: fine-tuning, and pre-training of an autoencoder.

Weights, batches, mixing and masks are drawn by seed in NumPy, so that nothing but the loops can differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_core.config import patch_grid
from vit_core.images.files import open_image
from vit_core.images.processor import AutoImageProcessor
from vit_core.masking import drop_path_mask, noise
from vit_core.parameters import MODEL_CLASSES, draw
from vit_core.tensors import Array, digest
from vit_core.training import Draws, Optimisation, Schedule, TrainingBatch, mixed, soft_targets
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.models import digit_files, find

STEPS, BATCH, SEED = 200, 10, 0
# How far the losses of two backends may be apart, of the largest one, and the weights at the end, of the largest one.
# Rounding is fed back, so it grows with the steps; what was measured after 200 of them stands behind each rung.
LOSS_TOLERANCES = {"float64": 1e-10, "float32": 2e-5}  # 9e-16 and 1.8e-6
WEIGHT_TOLERANCES = {"float64": 1e-10, "float32": 1e-4}  # 3.3e-15 and 2.1e-6


class Run(NamedTuple):
    """One of the runs.

    Attributes:
        model: bundled one, of which the configuration and the processor are taken.
        cls: its class.
        rate: the highest learning rate.
        drop_path_rate: of the configuration.
        optimisation: everything else.
    """

    model: str
    cls: str
    rate: float
    drop_path_rate: float
    optimisation: Optimisation


RUNS = {
    "finetune": Run(
        "digits-vit",
        "ViTForImageClassification",
        1e-3,
        0.2,
        Optimisation(weight_decay=0.05, layer_decay=0.75, clip=1.0, average=0.99, accumulate=2),
    ),
    "pretrain": Run(
        "digits-vit-mae", "ViTMAEForPreTraining", 1e-3, 0.0, Optimisation(weight_decay=0.05, betas=(0.9, 0.95))
    ),
}


class Trained(NamedTuple):
    """What a run came to.

    Attributes:
        losses: of every step.
        weights: of the last step by canonical name, and the average of them as "average.NAME" where there is one.
        digest: of the weights it began with.
    """

    losses: list[float]
    weights: Mapping[str, Array]
    digest: str = ""


def trained(backend: str, name: str, dtype: str, steps: int = STEPS) -> Trained:
    """Goes through the first steps of a run.

    Args:
        backend: of `vitriad.backends.BACKENDS`.
        name: of the run.
        dtype: "float32" or "float64".
        steps: how many of `STEPS`.
    """
    run = RUNS[name]
    config = MODEL_CLASSES[run.cls].from_pretrained(find(run.model), drop_path_rate=run.drop_path_rate)
    tensors = {key: array.astype(dtype) for key, array in draw(config, run.cls, SEED).items()}
    model = model_class(run.cls, backend).from_tensors(config, tensors)
    step = import_module(f"{BACKENDS[backend].package}.training").TrainStep(model, run.optimisation)
    schedule, pixels, labels = Schedule(run.rate, STEPS, warmup=10), *_digits(run.model, dtype)
    losses = [
        float(step(_batch(run, config, pixels, labels, number), schedule(number)).loss) for number in range(steps)
    ]
    state = {key.removeprefix("model."): array for key, array in step.state().items()}
    kept = {key: array for key, array in state.items() if key in tensors or key.startswith("average.")}
    return Trained(losses, kept, digest(tensors))


def apart(one: Trained, other: Trained) -> tuple[list[float], dict[str, float]]:
    """How far two runs are apart: by step, of the largest loss; and by name at the end, of the largest weight.

    Biases of keys are left out: they change no output, so that their gradients are nothing but rounding, which AdamW
    makes full steps of.
    """
    largest = max(map(abs, one.losses))
    losses = [abs(first - second) / largest for first, second in zip(one.losses, other.losses, strict=True)]
    names = [name for name in one.weights if not name.endswith("key.bias")]
    scale = max(float(np.abs(one.weights[name]).max()) for name in names)
    weights = {name: float(np.abs(one.weights[name] - other.weights[name]).max()) / scale for name in names}
    return losses, weights


def file_of(folder: Path, backend: str, name: str, dtype: str) -> Path:
    """Where the process of a backend leaves the weights of a run."""
    return folder / f"{backend}-training.{name}.{dtype}.npz"


def compared(folder: Path, processes: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Two rows for every run, dtype and two backends: of the losses, and of the weight that is the furthest apart."""
    for one, two in combinations(processes, 2):
        for key in processes[one]["training"]:
            name, dtype = key.split()
            losses, weights = apart(*(_read(folder, processes, backend, name, dtype) for backend in (one, two)))
            worst = max(weights, key=lambda weight: weights[weight])
            common = {
                **{"check": "training", "case": f"{name}, {len(losses)} steps on the bundled digits"},
                **{"class": RUNS[name].cls, "backend": one, "against": two, "dtype": dtype, "first": None},
            }
            for what, error, rungs in (
                ("losses", max(losses), LOSS_TOLERANCES),
                (worst, weights[worst], WEIGHT_TOLERANCES),
            ):
                yield {
                    **common,
                    **{"error": error, "worst": what, "tolerance": rungs[dtype], "passed": error <= rungs[dtype]},
                    "errors": dict(enumerate(losses)) if what == "losses" else None,
                }


def _read(folder: Path, processes: Mapping[str, Mapping[str, Any]], backend: str, name: str, dtype: str) -> Trained:
    with np.load(file_of(folder, backend, name, dtype)) as stored:
        return Trained(processes[backend]["training"][f"{name} {dtype}"], dict(stored))


def dtypes_of(dtypes: Sequence[str]) -> list[str]:
    """Those of some dtypes in which the runs are compared, or float32: half precision parts in a few steps."""
    return [dtype for dtype in dtypes if dtype in LOSS_TOLERANCES] or ["float32"]


def _digits(model: str, dtype: str) -> tuple[Array, Array]:
    """The bundled digits as a model takes them, and what they show."""
    files = digit_files()
    processor = AutoImageProcessor.from_pretrained(find(model))
    pixels = processor([open_image(file) for file in files], return_tensors="np")["pixel_values"]
    return pixels.astype(dtype), np.array([int(file.name[0]) for file in files])


def _batch(run: Run, config: Any, pixels: Array, labels: Array, number: int) -> TrainingBatch:
    """The batch of a step: another order of the images, mixed anew or with another mask."""
    chosen = Draws(SEED, "order", number).order(len(labels))[:BATCH]
    if run.cls == "ViTMAEForPreTraining":
        rows, columns = patch_grid(config)
        return TrainingBatch(pixels[chosen], noise=noise(SEED, BATCH, rows * columns, number))
    targets = soft_targets(labels[chosen], config.num_labels, smoothing=0.1)
    left_out = drop_path_mask(SEED, BATCH, config.drop_path_rates, number)
    return TrainingBatch(*mixed(pixels[chosen], targets, SEED, number), drop_path_mask=left_out)
