"""`vitriad compare`: two models, or one model in two backends, on the same images: where and how far they part."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from conversion.auto import architecture
from vit_core.errors import InputError
from vit_core.images.sources import image_paths
from vit_core.likeness import TOP, best, cosines, divergences, in_common
from vit_core.tensors import Array, to_numpy
from vitriad.backends import backend_name
from vitriad.classify import load_classifier, load_processor, predict, probabilities
from vitriad.drawing import FRAME, INK, MARGIN, PAPER
from vitriad.identity import encoder_digest
from vitriad.models import find
from vitriad.printing import print_table, shown
from vitriad.viewing import check_picture, is_resized, load_encoder, processed_size, read_images, save_picture


class Side(NamedTuple):
    """One of the two: a checkpoint in a backend.

    Attributes:
        name: as it was typed, "model" or "model@backend".
        path: of the checkpoint.
        backend: "auto", or what was asked for.
        classifies: whether the checkpoint is a classifier.
    """

    name: str
    path: str | Path
    backend: str
    classifies: bool


class Seen(NamedTuple):
    """What one side makes of all images.

    Attributes:
        states: (layers + 2, images, hidden), float64: the class token as it enters the first layer, after each, and in
            the output.
        scores: (images, classes), probabilities; None where it does not classify.
        labels: of the classes.
        encoder: the digest of weights and configuration; two of one model are equal.
    """

    states: Array
    scores: Array | None
    labels: Sequence[str]
    encoder: str = ""


def run(arguments: Namespace) -> int:
    """Prints how alike the two are, and draws the curve of their cosines if asked; 3 if images were skipped."""
    if arguments.out:
        check_picture(arguments.out, arguments.force)
    paths = list(image_paths(arguments.images))
    sides = [side(name) for name in (arguments.first, arguments.second)]
    first, names = look(sides[0], paths, arguments.processor)
    second, others = look(sides[1], paths, arguments.processor)
    if names != others:
        raise InputError(
            f"compare: {sides[0].name} can use {len(names)} of the images, {sides[1].name} {len(others)}.\n"
            "Leave out what one of them cannot use."
        )
    found = compared(first, second)
    if arguments.json:
        said = {"first": sides[0].name, "second": sides[1].name, "encoders": [first.encoder, second.encoder]}
        print(json.dumps({**said, "images": len(names), **found}))
    else:
        is_same = first.encoder == second.encoder
        _print(sides, f"{len(names)} images, {'one encoder' if is_same else 'two encoders'}", found)
    if arguments.out:
        save_picture(_picture(sides, found), arguments.out)
    return 0 if len(names) == len(paths) else 3


def side(text: str) -> Side:
    """A side from "model" or "model@backend".

    Raises:
        InputError: no such backend.
    """
    model, has_backend, backend = text.rpartition("@")
    if not has_backend or Path(text).exists():
        model, backend = text, "auto"
    path = find(model)
    _, cls, _ = architecture(path)
    return Side(text, path, backend_name(backend), cls == "ViTForImageClassification")


def look(side: Side, paths: Sequence[str], given: str | None) -> tuple[Seen, list[str]]:
    """What a side makes of images, and the names of those that it can use."""
    encoder = load_encoder(side.path, side.backend)
    config = encoder.config
    processor = load_processor(given, side.path, config)
    names, pixels = zip(*read_images(paths, processor, config, expected=processed_size(processor, config)), strict=True)
    options: dict[str, Any] = {"mask_ratio": 0.0} if config.model_type == "vit_mae" else {}
    states = []
    for each in pixels:
        options["interpolate_pos_encoding"] = is_resized(config, each)
        output = encoder(pixel_values=each[None], output_hidden_states=True, return_dict=True, **options)
        tokens = [*output.hidden_states, output.last_hidden_state]
        states.append(np.stack([to_numpy(layer)[0, 0].astype(np.float64) for layer in tokens]))
    scores: Array | None = None
    labels: list[str] = []
    if side.classifies:
        model = load_classifier(side.path, side.backend)
        scores = np.concatenate([probabilities(predict(model, each[None]), config.problem_type) for each in pixels])
        labels = [model.config.id2label[i] for i in range(scores.shape[1])]
    return Seen(np.stack(states, axis=1), scores, labels, encoder_digest(encoder)), [*names]


def compared(first: Seen, second: Seen) -> dict[str, Any]:
    """How alike two models are on the same images.

    Returns:
        "cosines": of the class token's hidden states at every depth, the mean over the images: of the states themselves
            where both have as many numbers; else "similarity", of the images' distances to one another (linear CKA),
            which needs no common coordinates.
        "parts_at": the first depth at which the mean cosine is below 0.99, or the similarity; None if there is none.
        "top1", "top5": share of images on which they agree, and the mean share of common classes among the best five;
            where both classify, by label.
        "kl": mean Kullback-Leibler divergence, where their labels are the same.
    """
    same_width = first.states.shape[2] == second.states.shape[2]
    depths = min(len(first.states), len(second.states))
    rows = np.linspace(0, len(first.states) - 1, depths).round().astype(int)
    others = np.linspace(0, len(second.states) - 1, depths).round().astype(int)
    pairs = [(first.states[one], second.states[two]) for one, two in zip(rows, others, strict=True)]
    measure = _mean_cosine if same_width else _cka
    curve = [measure(*pair) for pair in pairs]
    found: dict[str, Any] = {"measure": "cosine" if same_width else "similarity", "curve": curve}
    found["parts_at"] = next((depth for depth, value in enumerate(curve) if not value >= 0.99), None)
    if first.scores is not None and second.scores is not None:
        numbers = {label: i for i, label in enumerate(dict.fromkeys([*first.labels, *second.labels]))}
        tops = [
            _best(scores, [numbers[label] for label in side.labels])
            for scores, side in ((first.scores, first), (second.scores, second))
        ]
        for name, count in (("top1", 1), (f"top{TOP}", TOP)):
            found[name] = float(in_common(*(top[:, :count] for top in tops)).mean())
        if [*first.labels] == [*second.labels]:
            logits = (np.log(np.maximum(scores, 1e-30)) for scores in (second.scores, first.scores))
            found["kl"] = float(divergences(*logits).mean())
    return found


def _mean_cosine(one: Array, two: Array) -> float:
    return float(cosines(one, two).mean())


def _cka(one: Array, two: Array) -> float:
    """Linear CKA of two sets of rows. Source: Kornblith et al., Similarity of neural network representations, 2019."""
    one, two = one - one.mean(axis=0), two - two.mean(axis=0)
    shared = float((np.square(one.T @ two)).sum())
    own = float(np.linalg.norm(one.T @ one) * np.linalg.norm(two.T @ two))
    return shared / own if own > 0 else 1.0


def _best(scores: Array, numbers: Sequence[int]) -> Array:
    """The numbers of the labels of the best classes of every image."""
    order = best(scores, TOP)
    found: Array = np.where(order < 0, -1, np.asarray(numbers)[order])
    return found


def _print(sides: Sequence[Side], what: str, found: Mapping[str, Any]) -> None:
    print(f"{shown(sides[0].name)} and {shown(sides[1].name)}, {what}")
    depths = [str(depth) for depth in range(len(found["curve"]) - 1)]
    rows = [(depth, f"{value:.6f}") for depth, value in zip([*depths, "output"], found["curve"], strict=True)]
    print_table([("after layer", found["measure"]), *rows])
    parts = found["parts_at"]
    print("nowhere below 0.99" if parts is None else f"below 0.99 first after layer {[*depths, 'output'][parts]}")
    for name, said in (("top1", "same best class"), (f"top{TOP}", f"common classes among the best {TOP}")):
        if name in found:
            print(f"{said}: {found[name]:.1%}")
    if "kl" in found:
        print(f"Kullback-Leibler divergence: {found['kl']:.2e}")


def _picture(sides: Sequence[Side], found: Mapping[str, Any]) -> Image.Image:
    """The curve over the depth, from the lowest value (0 at most) to 1."""
    curve, width, height, left, top = found["curve"], 640, 320, 72, 72
    page = Image.new("RGB", (left + width + 2 * MARGIN, top + height + 72), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=15)
    title = f"{sides[0].name}  and  {sides[1].name}: {found['measure']} of the class token"
    pen.text((MARGIN, 28), title, INK, ImageFont.load_default(size=17), anchor="lm")
    low = min(0.0, *curve)

    def at(depth: int, value: float) -> tuple[float, float]:
        return left + width * depth / max(1, len(curve) - 1), top + height * (1 - (value - low) / (1 - low))

    for value in (low, (1 + low) / 2, 1.0):
        pen.line((*at(0, value), *at(len(curve) - 1, value)), (205, 205, 200))
        pen.text((left - 10, at(0, value)[1]), f"{value:.2f}", INK, font, anchor="rm")
    pen.line([at(depth, value) for depth, value in enumerate(curve)], FRAME, width=3)
    for depth, value in enumerate(curve):
        x, y = at(depth, value)
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), INK)
        if len(curve) <= 16 or depth % 4 == 0:
            pen.text((x, top + height + 18), str(depth) if depth < len(curve) - 1 else "output", INK, font, anchor="mm")
    pen.text(
        (left + width / 2, top + height + 48), "after layer (0: what enters the first one)", INK, font, anchor="mm"
    )
    return page
