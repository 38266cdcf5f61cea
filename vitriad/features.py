"""Features of images: `Embedder` turns images into named arrays, with any backend or exported program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_core.config import pair
from vit_core.errors import InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.tensors import Array, to_numpy
from vitriad.auto import load
from vitriad.classify import load_processor, read_pixels
from vitriad.engines import artefact_folder, check_engine
from vitriad.identity import Origin, encoder_digest
from vitriad.models import find
from vitriad.optimizing import optimized
from vitriad.viewing import load_encoder, processed_size

KINDS = ("class_token", "patch_mean", "patch_tokens")
_IN_PROGRAMS = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")  # of an image processor


class Embedder:
    """The features of images: a dict of NumPy arrays in, a dict of NumPy arrays out, without state between calls.

    It can be pickled and sent to another process, which loads the model once; Ray Data takes it as an actor.

    Example:
        >>> embedder = Embedder("digits-vit", features=("class_token", "patch_mean"), layers=(-1, 2))
        >>> found = embedder({"path": np.array(["one.png", "two.png"])})
        >>> found["class_token"].shape, found["layer_2.patch_mean"].shape
        ((2, 48), (2, 48))

    Args:
        model: what `vitriad.load` takes: of a checkpoint the encoder is used; of exported programs those of features.
        backend: as for `vitriad.load`.
        features: some of "class_token" and "patch_mean", (batch, hidden), and "patch_tokens", (batch, patches, hidden).
        layers: which hidden states to take them from: 0 is what enters the first layer, the number of layers what the
            last one gives, before the final norm; -1 is the output of the model, after it (which
            is the norm of the mean with `use_mean_pooling` alone: the tokens and `patch_mean` are then without).
        processor: how images are prepared, in place of the checkpoint's: an image processor, or where to read one.
        dtype: "float32" or "float16", of what is returned.
        **options: as for `vitriad.load`, such as `revision`, `config` and `optimize`; of an exported program `threads`.

    Attributes:
        names: the keys of what a call returns.
        optimize: whether, or in which dtype, the model is optimised; None where that was not asked for.
        pixel_dtype: of `pixel_values`: uint8 of a program that normalises them itself, else float32.
        size: (height, width) of the images, as the processor gives them. Where it is not the model's, positions are
            resized.

    Raises:
        InputError: a feature or layer that there is not, a program of something else, or a processor that gives images
            of many sizes.
    """

    def __init__(
        self,
        model: str | Path,
        backend: str = "auto",
        *,
        features: Sequence[str] = ("class_token",),
        layers: Sequence[int] = (-1,),
        processor: ViTImageProcessor | str | None = None,
        dtype: str = "float32",
        **options: Any,
    ) -> None:
        self.features, self.layers, self.dtype = tuple(features), tuple(layers), dtype
        _check("features", self.features, KINDS)
        if dtype not in ("float32", "float16"):
            raise InputError(f"dtype: expected float32 or float16, got {dtype!r}.")
        self._made_of, self.optimize = (model, backend, options), options.get("optimize")
        self._open()
        if isinstance(processor, ViTImageProcessor):
            self.processor = processor
        else:
            self.processor = load_processor(processor, find(model), self.config, options.get("revision"))
        self.size = processed_size(self.processor, self.config)
        states = range(self.config.num_hidden_layers + 1) if self._states is None else self._states
        _check("layers", self.layers, (-1, *states))
        if "class_token" in self.features and not self.config.use_class_token:
            raise InputError(f"features: {model} has no class token; ask for patch_mean or patch_tokens.")

    def _open(self) -> None:
        """Loads the model. `_states`: of an exported program the layers whose hidden states it returns."""
        name, backend, options = self._made_of
        self._states: tuple[int, ...] | None = None
        self.pixel_dtype = np.dtype(np.float32)
        if artefact_folder(find(name)):
            self.model = load(find(name), backend, **options)
            program = self.model.artefact.program
            if program.purpose != "features":
                raise InputError(f"{name}: a program of {program.purpose}; export one with outputs='features'.")
            self._states = program.layers
            self.pixel_dtype = np.dtype(program.inputs[0].dtype)
        else:
            check_engine(name, backend)
            plain = {key: value for key, value in options.items() if key != "optimize"}
            self.model = optimized(load_encoder(name, backend, **plain), self.optimize)
        self.config = self.model.config

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("model", "config", "_states")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of what a call returns, in order: the feature, behind "layer_N." where it is not of the output."""
        return tuple(_key(layer, feature) for layer in self.layers for feature in self.features)

    def origin(self) -> Origin:
        """Which model the features are of, and how images are prepared for it."""
        name, processor = str(self._made_of[0]), self.processor.to_dict()
        artefact = getattr(self.model, "artefact", None)
        if artefact is None:
            return Origin(name, encoder_digest(self.model), processor, self.names, self.config.hub_commit)
        if artefact.program.pixels is not None:  # it does these itself
            processor |= {key: value for key, value in artefact.processor.to_dict().items() if key in _IN_PROGRAMS}
        made_from = artefact.source.get("encoder_sha256") or artefact.source["weights_sha256"]  # of older releases
        return Origin(name, made_from, processor, self.names)

    def read(self, path: str | Path | bytes) -> Array:
        """An image file, or the bytes of one, as pixel values (channels, height, width).

        Raises:
            ImageError: it cannot be used.
        """
        return read_pixels(path, self.processor, self.config, expected=self.size)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """The features of a batch.

        Args:
            batch: "pixel_values", (batch, channels, height, width), as `read` gives them, or "path", a name for each
                image. What else it holds is handed on.

        Raises:
            InputError: neither of them is there.
            ImageError: a file cannot be used.
        """
        others = {name: value for name, value in batch.items() if name != "pixel_values"}
        if "pixel_values" in batch:
            pixels = np.asarray(batch["pixel_values"], self.pixel_dtype)
        elif "path" in batch:
            pixels = np.stack([self.read(str(path)) for path in batch["path"]])
        else:
            raise InputError(f"Embedder: expected pixel_values or path, got {', '.join(batch) or 'nothing'}.")
        return {**others, **self._found(pixels)}

    def _found(self, pixels: Array) -> dict[str, Array]:
        found = features_of(self.model, pixels, self.features, self.layers, self._states)
        return {name: array.astype(self.dtype) for name, array in found.items()}


def features_of(
    model: Any,
    pixels: Array,
    features: Sequence[str],
    layers: Sequence[int] = (-1,),
    states: Sequence[int] | None = None,
) -> dict[str, Array]:
    """Features of pixel values (batch, channels, height, width), by name.

    Args:
        model: an encoder, or an exported program of features.
        pixels: as the model takes them.
        features: some of `KINDS`.
        layers: which hidden states to take them from.
        states: of a program the layers whose hidden states it returns; None for an encoder.
    """
    if states is not None:
        output = model(pixels)
        known = dict(zip(states, output.hidden_states or (), strict=True))
        last = output.tokens
    else:
        options: dict[str, Any] = {"mask_ratio": 0.0} if model.config.model_type == "vit_mae" else {}
        options["output_hidden_states"] = tuple(layers) != (-1,)
        options["interpolate_pos_encoding"] = pixels.shape[2:] != pair(model.config.image_size)
        output = model(pixel_values=pixels, return_dict=True, **options)
        known = dict(enumerate(output.hidden_states or ()))
        last = output.last_hidden_state
    found = {}
    for layer in layers:
        tokens = to_numpy(last if layer == -1 else known[layer])
        for feature in features:
            found[_key(layer, feature)] = _taken(tokens, feature, model.config.num_prefix_tokens)
    return found


def _check(name: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    """Raises unless something is asked for, and all of it is known."""
    if wrong := [each for each in asked if each not in known] or (not asked and ["nothing"]):
        said = ", ".join(map(str, known))
        raise InputError(f"{name}: expected some of {said}, got {', '.join(map(str, wrong))}.")


def _key(layer: int, feature: str) -> str:
    return feature if layer == -1 else f"layer_{layer}.{feature}"


def _taken(tokens: Array, feature: str, first: int) -> Array:
    """One feature of (batch, tokens, hidden), whose patches begin at `first`; the mean is taken in float32 at least."""
    if feature == "class_token":
        return tokens[:, 0]
    if feature == "patch_tokens":
        return tokens[:, first:]
    mean: Array = tokens[:, first:].mean(axis=1, dtype=np.float32)
    return mean
