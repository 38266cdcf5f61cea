"""What the page asks of a model: classes in every backend, attention and features, what an autoencoder paints."""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conversion.auto import architecture
from vit_core.config import PretrainedConfig, pair, patch_grid
from vit_core.errors import InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.limits import Limits
from vit_core.tensors import Array
from vitriad import explain
from vitriad.artefacts import ExportedModel, read_artefact
from vitriad.attend import look
from vitriad.auto import available_backends, load
from vitriad.classify import (
    load_classifier,
    load_processor,
    load_program,
    predict,
    probabilities,
    read_pixels,
    why_no_classifier,
)
from vitriad.drawing import coloured
from vitriad.engines import artefact_folder, check_engine
from vitriad.models import find
from vitriad.printing import shown
from vitriad.reconstruct import drawn_masking, load_autoencoder, note_on_pixels, pictures, reconstruct
from vitriad.viewing import load_encoder, photograph, processed_size

TOP = 5  # classes to show
TITLES = {"torch": "PyTorch", "tf": "TensorFlow", "flax": "JAX"}  # of backends; formats are called as they are


@dataclass(frozen=True)
class Player:
    """A model as the page plays with it.

    Attributes:
        name: as it was typed.
        config: of the model.
        processor: prepares images for it.
        size: (height, width) of the images, as the processor gives them.
        kind: "classifier", "autoencoder", or "encoder" of one that only has features.
        answering: title -> the classifier or the autoencoder in each backend; of an exported program in its engine.
        looking: the encoder, called for attention and features; None where a program gives neither.
        compiled: shares of hidden patches for which every backend has compiled what it compiles.
    """

    name: str
    config: Any
    processor: ViTImageProcessor
    size: tuple[int, int]
    kind: str
    answering: Mapping[str, Any]
    looking: Any = None
    compiled: set[float] = field(default_factory=set)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches."""
        return patch_grid(self.config, self.size)

    def about(self) -> dict[str, Any]:
        """What the page has to know before it has an image."""
        name = Path(self.name).name if Path(self.name).exists() else self.name
        about = {"name": shown(name), "kind": self.kind, "grid": self.grid, "size": self.size}
        if self.kind == "autoencoder":
            about["mask_ratio"] = self.config.mask_ratio
        return {**about, "backends": [*self.answering]}

    def read(self, content: bytes, limits: Limits) -> Array:
        """The bytes of an image file as pixel values (channels, height, width).

        Raises:
            ImageError: they cannot be used.
        """
        return read_pixels(content, self.processor, self.config, expected=self.size, limits=limits)

    def seen(self, pixels: Array) -> dict[str, Any]:
        """What the model makes of an image: `classes` of a classifier, `maps` and `features` where it shows them."""
        found: dict[str, Any] = {"picture": _picture(photograph(pixels, self.processor))}
        if self.kind == "classifier":
            found["classes"] = self._classes(pixels)
        if self.looking is not None:
            attentions, tokens = _looked(self.looking, pixels)
            found["maps"] = _maps(attentions, self.grid, self.config) if attentions else None
            found["features"] = None if tokens is None else _colours(tokens, self.grid, self.config)
        return found

    def _classes(self, pixels: Array) -> dict[str, Any]:
        """The best classes of each backend, and how far the backends are apart."""
        milliseconds, logits = _timed([partial(predict, model, pixels[None]) for model in self.answering.values()])
        scores = [probabilities(each, self.config.problem_type)[0] for each in logits]
        best = np.unique([np.argsort(-each, kind="stable")[:TOP] for each in scores])
        order = sorted(best.tolist(), key=lambda index: -scores[0][index])
        labels = self.config.id2label
        rows = [{"label": shown(labels[i]), "scores": [float(each[i]) for each in scores]} for i in order]
        return {"milliseconds": milliseconds, "rows": rows, "difference": _difference(logits)}

    def painted(self, pixels: Array, masking: Mapping[str, Any]) -> dict[str, Any]:
        """What the autoencoder paints into the patches that `masking` hides from it, in its first backend."""
        model = next(iter(self.answering.values()))
        painted, removed, _ = reconstruct(model, pixels[None], **masking)
        image, _, *drawn = pictures(pixels, painted[0], removed[0], self.config, self.processor)
        return {
            "pictures": dict(zip(("image", "painted", "pasted"), map(_picture, (image, *drawn)), strict=True)),
            "removed": removed[0].astype(int).tolist(),
            "note": note_on_pixels(self.config),
        }

    def compared(self, pixels: Array, masking: Mapping[str, Any]) -> dict[str, Any]:
        """The time and the loss of that in every backend, and how far their paintings are apart.

        It takes seconds where a framework compiles a program, which is no part of the time.
        """
        jobs = [partial(reconstruct, model, pixels[None], **masking) for model in self.answering.values()]
        if masking["mask_ratio"] not in self.compiled:
            _timed(jobs)
            self.compiled.add(masking["mask_ratio"])
        milliseconds, found = _timed(jobs)
        losses, difference = [loss for *_, loss in found], _difference([painted for painted, *_ in found])
        return {"milliseconds": milliseconds, "losses": losses, "difference": difference}

    def masking(self, seed: str, ratio: str, removed: str) -> dict[str, Any]:
        """Which patches to hide, from the texts of a query; arguments as for `drawn_masking`."""
        return drawn_masking(self.config, seed, ratio, removed)


def _looked(model: Any, pixels: Array) -> tuple[Sequence[Array], Array | None]:
    """Attentions and tokens of an encoder; of an exported program what it returns of them."""
    if not isinstance(model, ExportedModel):
        return look(model, pixels)
    output: Any = model(pixels[None])
    if model.artefact.program.purpose == "attentions":
        return output.attentions, None
    return (), output.tokens


def _maps(attentions: Sequence[Array], grid: tuple[int, int], config: PretrainedConfig) -> dict[str, Any]:
    """Maps of attention as one picture, below one another, a pixel for each patch, every map with a scale of its own.

    The first is the rollout. Then come, for every layer, the mean of its heads and each head. `peaks` are the row and
    the column of the highest value of each.
    """
    heads = explain.class_maps(attentions, grid, config=config)[:, 0]  # (layers, heads, rows, columns)
    layers = np.concatenate([heads.mean(axis=1, keepdims=True), heads], axis=1)
    maps = [explain.rollout(attentions, grid, config=config)[0], *layers.reshape(-1, *grid)]
    peaks = [[int(index) for index in np.unravel_index(each.argmax(), grid)] for each in maps]
    strip = _picture(np.concatenate([coloured(each) for each in maps]))
    return {"layers": heads.shape[0], "heads": heads.shape[1], "strip": strip, "peaks": peaks}


def _colours(tokens: Array, grid: tuple[int, int], config: PretrainedConfig) -> str:
    """The features of an image's patches as a picture, a pixel for each patch."""
    return _picture((explain.patch_pca(tokens, grid, config=config)[0] * 255).round().astype(np.uint8))


def _picture(pixels: Array) -> str:
    """An image (height, width, 3), uint8, as the URL of a PNG file."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _timed(jobs: Iterable[Callable[[], Any]]) -> tuple[list[float], list[Any]]:
    """The milliseconds that jobs take one after another, and what they return."""
    found, times = [], [time.perf_counter()]
    for job in jobs:
        found.append(job())
        times.append(time.perf_counter())
    return [(after - before) * 1000 for before, after in pairwise(times)], found


def _difference(arrays: Sequence[Array]) -> float | None:
    """The largest difference between any two of some arrays; None of one alone."""
    return max((float(np.abs(one - other).max()) for one, other in combinations(arrays, 2)), default=None)


# --- opening ---------------------------------------------------------------------------------------------------------


def open_player(name: str, backend: str = "auto", processor: str | None = None, **options: Any) -> Player:
    """A model, loaded in several backends and called once in each, so that the first image meets no compiler.

    Args:
        name: what `vitriad.load` takes.
        backend: "auto" for all that are installed; of an exported program its format, or "auto".
        processor: as for `vitriad.classify.load_processor`.
        **options: as for `vitriad.load`: revision of a checkpoint, threads and machine_code of a program.

    Raises:
        InputError: a program of something that the page cannot show.
    """
    is_program = artefact_folder(find(name)) is not None
    player = (_program if is_program else _checkpoint)(name, backend, processor, **options)
    blank = np.zeros((*player.size, player.config.num_channels), np.uint8)
    pixels = player.processor(blank, input_data_format="channels_last")["pixel_values"][0]
    player.seen(pixels)
    if player.kind == "autoencoder":
        player.compared(pixels, player.masking("", "", ""))
    return player


def _checkpoint(name: str, backend: str, processor: str | None, **options: Any) -> Player:
    check_engine(name, backend)
    if wrong := [each for each in ("threads", "machine_code") if options.pop(each, None)]:
        raise InputError(f"play: {name} is a checkpoint; {wrong[0]} is for exported programs.")
    path = find(name)
    config, cls, _ = architecture(path, **options)
    kind, opened = _kind(config, cls)
    answering: dict[str, Any] = {}
    first = ""
    for each in available_backends(cls) if backend == "auto" else (backend,):
        first = first or each
        if opened is None:  # an encoder is called in one backend
            break
        _say(name, TITLES[each])
        answering[TITLES[each]] = opened(path, each, **options)
    _say(name, f"{TITLES[first]}, for its attention")
    looking = load_encoder(path, first, **options)
    prepared = load_processor(processor, path, config, options.get("revision"))
    size = processed_size(prepared, config) if opened is None else pair(config.image_size)
    return Player(name, config, prepared, size, kind, answering, looking)


def _kind(config: PretrainedConfig, cls: str) -> tuple[str, Callable[..., Any] | None]:
    """What the page does with models of a class, and what loads one that answers."""
    if cls == "ViTMAEForPreTraining":
        return "autoencoder", load_autoencoder
    return ("encoder", None) if why_no_classifier(config, cls) else ("classifier", load_classifier)


def _program(name: str, backend: str, processor: str | None, **options: Any) -> Player:
    folder = Path(find(name))
    if options.pop("revision", None):
        raise InputError(f"play: {name} is an exported program; --revision is for checkpoints.")
    said = read_artefact(artefact_folder(folder) or folder, verify=False).program
    if said.purpose == "reconstruction" or said.inputs[0].dtype == "string":
        kind = "that opens files itself" if said.purpose != "reconstruction" else "of reconstruction"
        raise InputError(f"play: {name}: a program {kind}, which the page cannot show.\nGive the checkpoint.")
    is_classifier = said.purpose == "logits"
    _say(name, "its engine")
    program = (load_program if is_classifier else load)(folder, backend, **options)
    prepared = load_processor(processor, folder, program.config)
    size = said.size or processed_size(prepared, program.config)
    about = (name, program.config, prepared, size)
    if is_classifier:
        return Player(*about, "classifier", {program.artefact.to: program})
    return Player(*about, "encoder", {}, program)


def _say(name: str, where: str) -> None:
    """Loading takes its time: the first call of a framework most of all."""
    print(f"vitriad: loading {name} in {where}", file=sys.stderr)
