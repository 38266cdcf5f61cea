"""`vitriad probe`: how well simple classifiers tell the classes apart by features alone: k nearest and linear."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_core.errors import BackendError, InputError
from vit_core.files.json import read_json
from vit_core.installing import install_command
from vit_core.tensors import Array
from vit_core.training.data import split
from vit_core.training.metrics import wilson
from vitriad.drawing import INK, MARGIN, PAPER, coloured
from vitriad.feature_files import read_features, read_origin
from vitriad.printing import shown
from vitriad.search import chosen_column, nearest
from vitriad.viewing import check_picture, save_picture

_STRENGTHS = tuple(10.0**power for power in range(-3, 4))  # C of the linear probe, of which the best is taken


class Probe(NamedTuple):
    """What one classifier reached on images that it was not made with.

    Attributes:
        name: "k-NN (k=5)" or "linear (C=1)".
        accuracy: share of the test images that it gets right.
        interval: of 95 %, by Wilson's score.
        predicted: index of a class for each test image.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    predicted: Array


def run(arguments: Namespace) -> int:
    """Prints both accuracies, and draws the confusions if asked."""
    if find_spec("sklearn") is None:
        raise BackendError(f"probe: needs scikit-learn.\nInstall it with: {install_command('data')}")
    if arguments.out:
        check_picture(arguments.out, arguments.force)
    names, columns = read_features(arguments.features)
    column, origin = chosen_column(arguments.features, columns, arguments.column), read_origin(arguments.features)
    features = columns[column].astype(np.float64)
    labels = read_labels(names, arguments.labels)
    classes = sorted({*labels})
    true = np.array([classes.index(label) for label in labels])
    train, test = split(true, len(true), arguments.test_share, arguments.seed, classes)
    probes = [
        nearest_neighbours(features, true, train, test, arguments.neighbours),
        linear(features, true, train, test, arguments.seed),
    ]
    said: dict[str, Any] = {
        **{"model": origin and origin.model, "encoder": origin and origin.encoder, "column": column},
        **{"train": len(train), "test": len(test), "classes": classes, "seed": arguments.seed},
    }
    if arguments.json:
        found = [{"name": p.name, "accuracy": p.accuracy, "interval": p.interval} for p in probes]
        print(json.dumps({**said, "probes": found}))
    else:
        print(f"{column} of {shown(origin or 'a model that the file does not name')}")
        print(f"{len(train)} images to learn from, {len(test)} held out, {len(classes)} classes, seed {arguments.seed}")
        for probe in probes:
            low, high = probe.interval
            print(f"{probe.name:<16} {probe.accuracy:7.2%}   95 % interval {low:.2%} to {high:.2%}")
    if arguments.out:
        save_picture(confusion_picture(true[test], probes[-1], classes), arguments.out)
    return 0


def read_labels(names: Sequence[str], file: str | None) -> list[str]:
    """The class of every image: what a JSON file says by name, else the folder that the image is in.

    Raises:
        InputError: an image without a label, or fewer than two classes.
    """
    if file is None:
        labels = [Path(name).parent.name for name in names]
        hint = "Each class needs a folder of its own, or --labels a JSON file {name: class}."
    else:
        said = read_json(Path(file), limit="config_bytes", error=InputError)
        known = {str(name): str(label) for name, label in said.items()}
        short = {name.rpartition("/")[2]: label for name, label in known.items()}
        found = [known.get(name, short.get(name.rpartition("/")[2])) for name in names]
        if missing := [name for name, label in zip(names, found, strict=True) if label is None]:
            raise InputError(f"{file}: no label for {missing[0]} ({len(missing)} of {len(names)} images).")
        labels, hint = [str(label) for label in found], f"{file} names the classes."
    if len({*labels}) < 2:
        raise InputError(f"labels: all {len(labels)} images are of one class, {labels[0]!r}.\n{hint}")
    return labels


def nearest_neighbours(features: Array, true: Array, train: Array, test: Array, count: int) -> Probe:
    """The class that most of the nearest training images have, by cosine, each counted with its cosine."""
    rows, cosines = nearest(features[test], features[train], count)
    votes = np.zeros((len(test), int(true.max()) + 1))
    for column in range(rows.shape[1]):
        np.add.at(votes, (np.arange(len(test)), true[train][rows[:, column]]), np.exp(cosines[:, column] / 0.07))
    return _probe(f"k-NN (k={rows.shape[1]})", votes.argmax(axis=1), true[test])


def linear(features: Array, true: Array, train: Array, test: Array, seed: int) -> Probe:
    """Logistic regression on standardised features, as regularised as is best for a fifth of the training images."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = (features - mean) / np.where(deviation > 0, deviation, 1)
    order = np.random.default_rng(seed).permutation(train)
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]

    def fitted(rows: Array, strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=2000).fit(scaled[rows], true[rows])

    best = 1.0
    if len(held) and len({*true[rest].tolist()}) > 1:
        best = max(_STRENGTHS, key=lambda strength: fitted(rest, strength).score(scaled[held], true[held]))
    return _probe(f"linear (C={best:g})", fitted(train, best).predict(scaled[test]), true[test])


def _probe(name: str, predicted: Array, true: Array) -> Probe:
    right = int((predicted == true).sum())
    return Probe(name, right / len(true), wilson(right, len(true)), predicted)


def confusion_picture(true: Array, probe: Probe, classes: Sequence[str]) -> Image.Image:
    """How often images of each class (rows) were taken for each class (columns), as shares of the row."""
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (true, probe.predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = max(14, min(56, 900 // len(classes)))
    font = ImageFont.load_default(size=max(10, min(18, cell // 3 + 4)))
    left = int(max(font.getlength(name) for name in classes)) + 2 * MARGIN
    size = cell * len(classes)
    page = Image.new("RGB", (left + size + MARGIN, 64 + size + left), PAPER)
    pen = ImageDraw.Draw(page)
    title = f"{probe.name}: {probe.accuracy:.1%} right. Rows: true class; columns: predicted"
    pen.text((MARGIN, 24), title, INK, ImageFont.load_default(size=16), anchor="lm")
    page.paste(Image.fromarray(coloured(shares, 0, 1)).resize((size, size), Image.Resampling.NEAREST), (left, 56))
    for i, name in enumerate(classes):
        pen.text((left - 8, 56 + (i + 0.5) * cell), name, INK, font, anchor="rm")
        label = Image.new("RGB", (left, cell), PAPER)
        ImageDraw.Draw(label).text((left - 8, cell / 2), name, INK, font, anchor="rm")
        page.paste(label.rotate(90, expand=True), (left + i * cell, 56 + size))
        if cell >= 28:
            for j in np.flatnonzero(counts[i]).tolist():
                ink = (255, 255, 255) if shares[i, j] < 0.6 else (0, 0, 0)
                at = (left + (j + 0.5) * cell, 56 + (i + 0.5) * cell)
                pen.text(at, f"{counts[i, j]:.0f}", ink, font, anchor="mm")
    return page
