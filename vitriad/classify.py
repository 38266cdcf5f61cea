"""`vitriad classify`: image files in, classes and scores out."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vit_core.config import PretrainedConfig
from vit_core.errors import ImageError, InputError
from vit_core.image_files import open_image
from vit_core.image_processing import AutoImageProcessor, ViTImageProcessor
from vit_core.tensors import to_numpy
from vitriad.auto import model_class, read_architecture
from vitriad.models import find

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 16


def run(arguments: Namespace) -> int:
    """Prints one line per image; images that cannot be used are reported and passed over."""
    folder = find(arguments.model)
    model = load_classifier(folder, arguments.backend)
    processor = AutoImageProcessor.from_pretrained(folder)
    width = max(map(len, arguments.images))
    shown = 0
    for path, scores in _scores(arguments.images, model, processor):
        best = np.argsort(-scores, kind="stable")[: arguments.top_k]
        top = [{"label": model.config.id2label[i], "score": float(scores[i])} for i in best.tolist()]
        line = _json_line(path, top) if arguments.json else _human_line(path.ljust(width), top)
        tqdm.write(line, file=sys.stdout)  # not into the progress bar
        shown += 1
    return 0 if shown == len(arguments.images) else 3


def load_classifier(folder: str | Path, backend: str) -> Any:
    """The classifier of a checkpoint, ready to predict.

    Raises:
        InputError: the checkpoint holds no trained classifier.
    """
    config, name = read_architecture(folder)
    if problem := _why_no_classifier(config, name):
        raise InputError(f"classify: {folder}: {problem}.\nGive a checkpoint of a ViTForImageClassification.")
    model, loading = model_class(name, backend).from_pretrained(folder, output_loading_info=True)
    if loading["missing_keys"]:
        raise InputError(f"classify: {folder}: its classifier was never trained: the weights are not in the files.")
    if model.framework == "pt":
        model.requires_grad_(False)  # torch keeps no graph then
    return model


def predict(model: Any, pixel_values: Array) -> Array:
    """Logits (batch, classes) for processed images (batch, channels, height, width)."""
    return to_numpy(model(pixel_values=pixel_values).logits)


def read_pixels(path: str | Path, processor: ViTImageProcessor, config: PretrainedConfig) -> Array:
    """One image file as the model takes it: (channels, height, width).

    A grayscale model gets the luminance of colour images. An RGB model gets three equal channels of grayscale ones,
    unless its processor says do_convert_rgb=False.

    Raises:
        ImageError: the file cannot be read, or has another number of channels than the model.
    """
    image = open_image(path)
    if config.num_channels == 1:
        keeps = image.mode.startswith(("I", "F"))  # more than 8 bits: the processor says what it thinks of them
        gray = np.asarray(image if keeps else image.convert("L"))
        return processor(gray, input_data_format="none")["pixel_values"][0]
    convert = True if processor.do_convert_rgb is None else None
    pixels: Array = processor(image, do_convert_rgb=convert)["pixel_values"][0]
    if len(pixels) != config.num_channels:
        raise ImageError(f"expected {config.num_channels} channels, got {len(pixels)}")
    return pixels


def _why_no_classifier(config: PretrainedConfig, name: str) -> str:
    if name != "ViTForImageClassification":
        return f"a {name} does not classify"
    if config.num_labels == 0:
        return "num_labels is 0, so it gives features instead of classes"
    if config.num_labels == 1 or config.problem_type == "regression":
        return "a regression model gives numbers instead of classes"
    return ""


def _scores(paths: list[str], model: Any, processor: ViTImageProcessor) -> Iterator[tuple[str, Array]]:
    """Path and class probabilities (classes,) of every image that can be read, in order."""
    hidden = len(paths) <= BATCH or not sys.stderr.isatty()
    with tqdm(total=len(paths), unit="image", disable=hidden) as progress:
        for start in range(0, len(paths), BATCH):
            chunk = paths[start : start + BATCH]
            if readable := list(_readable(chunk, model, processor)):
                readable_paths, pixels = zip(*readable, strict=True)
                logits = predict(model, np.stack(pixels))
                yield from zip(readable_paths, probabilities(logits, model.config.problem_type), strict=True)
            progress.update(len(chunk))


def _readable(paths: list[str], model: Any, processor: ViTImageProcessor) -> Iterator[tuple[str, Array]]:
    for path in paths:
        try:
            yield path, read_pixels(path, processor, model.config)
        except ImageError as error:
            tqdm.write(f"vitriad: skipped: {error}", file=sys.stderr)


def probabilities(logits: Array, problem_type: str | None = None) -> Array:
    """Softmax over the classes, or the sigmoid of each where an image has several: (batch, classes), float64."""
    logits = logits.astype(np.float64)
    if problem_type == "multi_label_classification":
        return np.exp(-np.logaddexp(0, -logits))  # the sigmoid of each
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _json_line(path: str, top: list[dict[str, Any]]) -> str:
    return json.dumps({"path": path, **top[0], "top": top})


def _human_line(path: str, top: list[dict[str, Any]]) -> str:
    return "  ".join([path, *(f"{entry['label']} {entry['score']:6.1%}" for entry in top)])
