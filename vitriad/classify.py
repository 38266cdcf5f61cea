"""`vitriad classify`: image files in, classes and scores out."""

from __future__ import annotations

import json
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from conversion.auto import architecture
from conversion.detecting import open_source
from conversion.processors import PREPROCESSOR_NAME, find_processor
from vit_core.config import PretrainedConfig, pair
from vit_core.errors import ImageError, InputError
from vit_core.images.decoding import decoded
from vit_core.images.files import open_image
from vit_core.images.processor import AutoImageProcessor, ViTImageProcessor
from vit_core.images.reading import pixel_values
from vit_core.images.sources import ImageSource, image_paths
from vit_core.limits import LIMITS, Limits
from vit_core.tensors import Array, to_numpy
from vitriad.artefacts import read_artefact
from vitriad.auto import load, model_class
from vitriad.engines import artefact_folder, check_engine
from vitriad.models import find
from vitriad.optimizing import optimized
from vitriad.printing import shown

BATCH = 16


def run(arguments: Namespace) -> int:
    """Prints one line per image; images that cannot be used are reported and passed over."""
    with warnings.catch_warnings():
        # Pillow warns from its own limit on; ours is checked before anything is decoded, and is the one that counts.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return _run(arguments)


def _run(arguments: Namespace) -> int:
    paths = list(image_paths(arguments.images))
    folder = find(arguments.model)
    check_engine(arguments.model, arguments.backend)
    if artefact_folder(folder):
        if arguments.optimize:
            raise InputError(f"classify: {arguments.model} is an exported program; --optimize is for checkpoints.")
        model = load_program(folder, arguments.backend, arguments.threads, arguments.machine_code)
    elif arguments.threads or arguments.machine_code:
        raise InputError(
            f"classify: --threads and --machine-code are for exported programs, {arguments.model} is none."
        )
    else:
        model = load_classifier(folder, arguments.backend, config=arguments.config, revision=arguments.revision)
        model = optimized(model, arguments.optimize)
    processor = load_processor(arguments.processor, folder, model.config, arguments.revision)
    width = max(len(shown(path)) for path in paths)
    status = 0
    for path, scores in _scores(paths, model, processor):
        if isinstance(scores, ImageError):
            tqdm.write(f"vitriad: skipped: {scores}", file=sys.stderr)  # not into the progress bar
            status = 3
            if arguments.json:
                tqdm.write(json.dumps({"path": path, "error": str(scores)}), file=sys.stdout)
            continue
        best = np.argsort(-scores, kind="stable")[: arguments.top_k]
        top = [{"label": model.config.id2label[i], "score": float(scores[i])} for i in best.tolist()]
        line = json.dumps({"path": path, **top[0], "top": top}) if arguments.json else _line(path, width, top)
        tqdm.write(line, file=sys.stdout)
    return status


def load_classifier(folder: str | Path, backend: str, **hub_options: Any) -> Any:
    """The classifier of a checkpoint, ready to predict; hub options as for `vit_core.hub.download.resolve`.

    Raises:
        InputError: the checkpoint holds no trained classifier.
    """
    config, name, _ = architecture(folder, **hub_options)
    if problem := why_no_classifier(config, name):
        raise InputError(f"classify: {folder}: {problem}.\nGive a checkpoint of a ViTForImageClassification.")
    same = {**hub_options, "revision": config.hub_commit or hub_options.get("revision")}
    model, loading = model_class(name, backend).from_pretrained(folder, output_loading_info=True, **same)
    if loading["missing_keys"]:
        raise InputError(f"classify: {folder}: its classifier was never trained: the weights are not in the files.")
    if model.framework == "pt":
        model.requires_grad_(False)  # torch keeps no graph then
    return model


def load_program(folder: str | Path, backend: str, threads: int | None = None, machine_code: bool = False) -> Any:
    """An exported program that classifies.

    Raises:
        InputError: it computes something else.
    """
    exported = load(folder, backend, threads=threads, machine_code=machine_code)
    if exported.artefact.program.purpose != "logits":
        raise InputError(f"classify: {folder}: a program of {exported.artefact.program.purpose}, not of logits.")
    if exported.artefact.program.inputs[0].dtype == "string":
        raise InputError(
            f"classify: {folder}: a program that opens files itself, so that no processor is at work.\n"
            "Call it with their content: vitriad.load(folder)(images=[file.read_bytes()])."
        )
    return exported


def load_processor(
    given: str | None, folder: str | Path, config: PretrainedConfig, revision: str | None = None
) -> ViTImageProcessor:
    """The image processor of a checkpoint, whoever wrote it.

    Args:
        given: in place of the checkpoint's: folder, JSON file or "owner/name".
        config: of the model.
        revision: of the checkpoint.

    Raises:
        InputError: nothing tells how images are prepared for it.
    """
    if given is not None:
        processor: ViTImageProcessor = AutoImageProcessor.from_pretrained(given)
        return processor
    if exported := artefact_folder(folder):
        known = read_artefact(exported, verify=False).input_processor
        if known is None:
            raise InputError(f"{folder}: no image processor in vitriad.json.\nPass --processor with one.")
        return known
    found = find_processor(open_source(folder, revision=config.hub_commit or revision, verify=False), config)
    if found.processor is None:
        raise InputError(
            f"{folder}: no {PREPROCESSOR_NAME} there, and {found.said}.\n"
            "Pass --processor with the file or folder of one, made by "
            "ViTImageProcessor(size=..., image_mean=..., image_std=...).save_pretrained(folder)."
        )
    return found.processor


def predict(model: Any, pixel_values: Array) -> Array:
    """Logits (batch, classes) for processed images (batch, channels, height, width)."""
    return to_numpy(model(pixel_values=pixel_values).logits)


def read_pixels(
    path: str | Path | bytes,
    processor: ViTImageProcessor,
    config: PretrainedConfig,
    *,
    size: tuple[int, int] | None = None,
    expected: tuple[int, int] | None = None,
    limits: Limits = LIMITS,
) -> Array:
    """One image file, or the bytes of one, as the model takes it: (channels, height, width).

    Args:
        size: (height, width) to resize to in place of the processor's size; nothing is cropped then.
        expected: (height, width) that the image has to have in the end, in place of the model's.
        limits: as for `open_image`.

    A grayscale model gets the luminance of colour images. An RGB model gets three equal channels of grayscale ones,
    unless its processor says do_convert_rgb=False.

    Raises:
        ImageError: the file cannot be read, or has another number of channels than the model.
    """
    image = open_image(path, limits=limits)
    name = "the image" if isinstance(path, bytes) else path
    try:
        wanted = size or expected or pair(config.image_size)
        return pixel_values(image, processor, config.num_channels, size=size, expected=wanted)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory for it.") from None


def why_no_classifier(config: PretrainedConfig, name: str) -> str:
    """Why a model of this configuration and class is no classifier; "" of one that is."""
    if name != "ViTForImageClassification":
        return f"a {name} does not classify"
    if config.num_labels == 0:
        return "num_labels is 0, so it gives features instead of classes"
    if config.num_labels == 1 or config.problem_type == "regression":
        return "a regression model gives numbers instead of classes"
    return ""


def _scores(paths: list[str], model: Any, processor: ViTImageProcessor) -> Iterator[tuple[str, Array | ImageError]]:
    """Path and class probabilities (classes,) of every image, or why it cannot be used, in order."""
    images = decoded(map(ImageSource, paths), lambda path: read_pixels(path, processor, model.config), 2 * BATCH)
    hidden = len(paths) <= BATCH or not sys.stderr.isatty()
    with tqdm(total=len(paths), unit="image", disable=hidden) as progress, closing(images):
        while chunk := [*islice(images, BATCH)]:
            scores = iter(_probabilities_of([each for _, each in chunk if not isinstance(each, ImageError)], model))
            for source, each in chunk:
                yield source.name, each if isinstance(each, ImageError) else next(scores)
            progress.update(len(chunk))


def _probabilities_of(pixels: list[Array], model: Any) -> Iterable[Array]:
    return probabilities(predict(model, np.stack(pixels)), model.config.problem_type) if pixels else ()


def probabilities(logits: Array, problem_type: str | None = None) -> Array:
    """Softmax over the classes, or the sigmoid of each where an image has several: (batch, classes), float64."""
    logits = logits.astype(np.float64)
    if problem_type == "multi_label_classification":
        return np.exp(-np.logaddexp(0, -logits))  # the sigmoid of each
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _line(path: str, width: int, top: list[dict[str, Any]]) -> str:
    return "  ".join([shown(path).ljust(width), *(f"{shown(entry['label'])} {entry['score']:6.1%}" for entry in top)])
