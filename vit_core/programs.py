"""Models as programs for other engines: what such a program takes, what it returns, and at which sizes.

A program has one purpose. Axis words: batch, channels, height, width, patches, tokens (class token,
registers, patches), hidden, heads, classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_core.config import PretrainedConfig, pair, patch_grid
from vit_core.errors import InputError
from vit_core.images.options import height_width
from vit_core.images.processor import ViTImageProcessor
from vit_core.masking import num_kept
from vit_core.parameters import BASE_CLASSES
from vit_core.tensors import Array

# Purpose -> the classes that serve it; those with a head give features and attentions through the encoder inside.
PURPOSES: dict[str, tuple[str, ...]] = {
    "logits": ("ViTForImageClassification",),
    "features": BASE_CLASSES,
    "reconstruction": ("ViTMAEForPreTraining", "ViTForMaskedImageModeling"),
    "attentions": BASE_CLASSES,
}
DTYPES = ("float32", "bfloat16", "float16")  # of the weights of a program, and of what it computes in
INT8 = ("dynamic", "static", "weights")
LAYOUTS = ("nhwc", "nchw")  # of images, by their axes: batch, height, width, channels
FILES = ("bytes", "base64")  # forms of image files
FILTERS = (1, 2, 3)  # PIL's numbers of those that a program may resize opened files with: Lanczos, bilinear, bicubic

_MAE_HEAD = "ViTMAEForPreTraining"


class Pixels(NamedTuple):
    """The part of an image processor that a program does itself, as a table: so it gives the processor's very bits.

    Attributes:
        layout: "nhwc" or "nchw": of the uint8 images that it takes, (batch, height, width, channels) or (batch,
            channels, height, width); or the form of the image files that it opens and resizes, "bytes" or "base64".
        table: (channels, 256), float32: the pixel value of every number that a channel can have.
        resample: PIL's number of the filter with which it resizes files.
    """

    layout: str
    table: Array
    resample: int = 0

    @property
    def opens_files(self) -> bool:
        """Whether it takes image files."""
        return self.layout in FILES


class Input(NamedTuple):
    """One argument of a program: its dtype and shape; an axis of any length is named."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Program(NamedTuple):
    """What is exported of a model.

    Attributes:
        model: canonical name of the class that computes it.
        config: of that model.
        purpose: "logits" of a classifier; "features": class token, mean of the patches, all tokens, and hidden states
            of chosen layers; "reconstruction" of a masked autoencoder, or of a masked image model; "attentions" of
            every layer.
        size: (height, width) of the images; None for any size of at least one patch.
        layers: of a program of features: which hidden states to return as well; 0 is what enters the first layer.
        pixels: what it does to uint8 images; None where it takes pixel values.
        has_pooler: whether a ViTModel has its pooler.
        dtype: one of DTYPES: of its weights and of what it computes in. Inputs and outputs are float32 all the same.
        int8: how the matrices of its layers are 8-bit integers, one of INT8, or None. "weights": they alone, computed
            with in `dtype`; "dynamic": what they are multiplied with as well, scaled anew in every call; "static": the
            same, with scales from calibration images.
    """

    model: str
    config: PretrainedConfig
    purpose: str
    size: tuple[int, int] | None
    layers: tuple[int, ...] = ()
    pixels: Pixels | None = None
    has_pooler: bool = False
    dtype: str = "float32"
    int8: str | None = None

    @property
    def precision(self) -> str:
        """Its dtype and its integers in words, such as "float32" or "int8 weights"."""
        return self.dtype if self.int8 is None else f"int8 {self.int8}"

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it takes, in order."""
        channels = self.config.num_channels
        height, width = self.size or ("height", "width")
        patches = "patches" if self.size is None else self.patches(*self.size)
        if self.pixels is None:
            first = Input("pixel_values", "float32", ("batch", channels, height, width))
        elif self.pixels.opens_files:
            first = Input("images", "string", ("batch",))
        elif self.pixels.layout == "nchw":
            first = Input("images", "uint8", ("batch", channels, height, width))
        else:
            first = Input("images", "uint8", ("batch", height, width, channels))
        if self.purpose != "reconstruction":
            return (first,)
        name, dtype = ("noise", "float32") if self.model == _MAE_HEAD else ("bool_masked_pos", "bool")
        return first, Input(name, dtype, ("batch", patches))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it returns, in order."""
        if self.purpose == "logits":
            return ("logits",)
        if self.purpose == "attentions":
            return tuple(f"attentions_{i}" for i in range(self.config.num_hidden_layers))
        if self.purpose == "reconstruction":
            return ("logits", "mask") if self.model == _MAE_HEAD else ("reconstruction",)
        pooled = ("pooler_output",) if self.has_pooler else ()
        return ("class_token", "patch_mean", "tokens", *pooled, *(f"hidden_states_{i}" for i in self.layers))

    def patches(self, height: int, width: int) -> int:
        """How many patches an image of a size has."""
        return int(np.prod(patch_grid(self.config, (height, width))))

    @property
    def example_size(self) -> tuple[int, int]:
        """(height, width) to trace with: of a program for any size one that no part of the model has in store."""
        if self.size is not None:
            return self.size
        rows, columns = patch_grid(self.config)
        height, width = pair(self.config.patch_size)
        return (rows + 1) * height, (columns + 2) * width

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the model's call, beside its inputs. A masked autoencoder's encoder sees every patch."""
        is_other = self.size != pair(self.config.image_size)
        options: dict[str, Any] = {"interpolate_pos_encoding": is_other, "return_dict": True}
        if self.purpose == "attentions":
            options["output_attentions"] = True
        if self.layers:
            options["output_hidden_states"] = True
        if self.model == "ViTMAEModel":
            options["mask_ratio"] = 0.0
        return options

    def selected(self, output: Mapping[str, Any], mean: Callable[[Any], Any]) -> tuple[Any, ...]:
        """What it returns, in the order of `outputs`, of what the model returns.

        Args:
            output: of the model, in any framework.
            mean: (batch, patches, hidden) -> (batch, hidden), the mean over the patches.
        """
        if self.purpose == "attentions":
            return tuple(output["attentions"])
        if self.purpose != "features":
            return tuple(output[name] for name in self.outputs)
        tokens = output["last_hidden_state"]
        pooled = (output["pooler_output"],) if self.has_pooler else ()
        states = tuple(output["hidden_states"][i] for i in self.layers)
        patches = tokens[:, self.config.num_prefix_tokens :]
        return (tokens[:, 0], mean(patches), tokens, *pooled, *states)


def settle(
    model: str,
    config: PretrainedConfig,
    *,
    purpose: str | None,
    size: tuple[int, int] | None,
    layers: Sequence[int] = (),
    pixels: Pixels | None = None,
    has_pooler: bool = False,
    dtype: str = "float32",
    int8: str | None = None,
) -> Program:
    """The program of a model, once it is known that there can be one; `purpose` None means what the class is for.

    Args:
        model: canonical name of the class at hand. Programs of features and attentions are those of its encoder.
        layers: counted from the end where negative.

    Raises:
        InputError: a purpose, a size or a layer that the model does not have, or no such precision.
    """
    _check_precision(dtype, int8)
    if purpose is None:
        purpose = next(name for name, classes in PURPOSES.items() if model in classes)
    if purpose not in PURPOSES:
        raise InputError(f"outputs: expected one of {', '.join(PURPOSES)}, got {purpose!r}.")
    base = next(name for name in BASE_CLASSES if name.startswith("ViTMAE") == (config.model_type == "vit_mae"))
    chosen = base if purpose in ("features", "attentions") else model
    if chosen not in PURPOSES[purpose]:
        raise InputError(
            f"outputs: {purpose}: expected a model of the class {' or '.join(PURPOSES[purpose])}, got a {model}."
        )
    if purpose == "features" and not config.use_class_token:
        raise InputError("outputs: features: one of them is the class token, which the model has not.")
    if layers and purpose != "features":
        raise InputError(f"layers: only for outputs='features', got {purpose!r}.")
    count = config.num_hidden_layers
    if wrong := [layer for layer in layers if not -count - 1 <= layer <= count]:
        raise InputError(f"layers: expected 0 to {count}, or from the end -1 to {-count - 1}, got {wrong[0]}.")
    if size is not None and any(side < patch for side, patch in zip(size, pair(config.patch_size), strict=True)):
        raise InputError(f"image_size: expected at least one patch of {pair(config.patch_size)}, got {size}.")
    if chosen == _MAE_HEAD and config.mask_ratio == 0:
        raise InputError("outputs: reconstruction: mask_ratio is 0, so that nothing is hidden and no noise is taken.")
    if size is not None and chosen == _MAE_HEAD:
        rows, columns = patch_grid(config, size)
        patches = rows * columns
        if num_kept(patches, config.mask_ratio) == patches:
            raise InputError(f"mask_ratio: {config.mask_ratio} hides none of the {patches} patches of {size}.")
    numbered = tuple(layer % (count + 1) for layer in layers)
    has_pooler = has_pooler and purpose == "features"
    return Program(chosen, config, purpose, size, numbered, pixels, has_pooler, dtype, int8)


def _check_precision(dtype: str, int8: str | None) -> None:
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}.")
    if int8 is not None and int8 not in INT8:
        raise InputError(f"int8: expected one of {', '.join(INT8)}, got {int8!r}.")
    if int8 is not None and dtype != "float32":
        raise InputError(f"int8: its other numbers are float32, got dtype={dtype!r}: give one of the two.")


class Spared(NamedTuple):
    """Which layers stay in float32 in a program of 8-bit integers, because measurement shows that they hurt most.

    Attributes:
        ends: the first and the last layer of a stack of at least three.
        second: of every layer the second matrix of the MLP, whose input has a few very large values.
    """

    ends: bool = False
    second: bool = False


def quantised(names: Iterable[str], spared: Spared) -> list[str]:
    """The modules whose matrices become integers, by canonical name: in layers alone, never embeddings or heads.

    Args:
        names: of the weights of a model.
        spared: which layers stay as they are.
    """
    places = {name: place for name in names if (place := _place(name)) is not None}
    ends = {stack: max(i for other, i in places.values() if other == stack) for stack, _ in places.values()}
    chosen = []
    for name, (stack, i) in places.items():
        module = name.removesuffix(".weight")
        is_end = spared.ends and ends[stack] > 1 and i in (0, ends[stack])
        is_second = spared.second and module.endswith(f".{i}.output.dense")
        if not (is_end or is_second):
            chosen.append(module)
    return chosen


def _place(name: str) -> tuple[str, int] | None:
    """The stack of layers and the number of the layer that a matrix is in; None for other weights."""
    parts = name.split(".")
    if parts[-1] != "weight" or parts[-2] not in ("query", "key", "value", "dense"):
        return None
    for i, part in enumerate(parts[:-1]):
        if part in ("layer", "decoder_layers") and parts[i + 1].isdecimal():
            return part, int(parts[i + 1])
    return None


def pixels_of(processor: ViTImageProcessor, channels: int, layout: str, size: tuple[int, int] | None = None) -> Pixels:
    """What a program does to uint8 images, or to image files, in place of an image processor.

    Args:
        channels: of the model's images.
        layout: see `Pixels`.
        size: (height, width) of the model's images, to which files are resized.

    Raises:
        InputError: an unknown layout, or steps that a program does not do to files.
    """
    if layout not in (*LAYOUTS, *FILES):
        raise InputError(f"preprocessing: expected one of {', '.join((*LAYOUTS, *FILES))}, got {layout!r}.")
    numbers = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
    steps: dict[str, Any] = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_first"}
    table = processor.preprocess(numbers, return_tensors="np", **steps)["pixel_values"][0, :, 0]
    resample = resample_of("preprocessing", processor, channels, size) if layout in FILES else 0
    return Pixels(layout, np.ascontiguousarray(table, np.float32), resample)


def resample_of(what: str, processor: ViTImageProcessor, channels: int, size: tuple[int, int] | None) -> int:
    """PIL's number of the filter with which a program resizes the image files that it opens itself.

    Args:
        what: whose files, for the error.

    Raises:
        InputError: the processor does not resize to the size alone, with a filter that programs have.
    """
    if channels not in (1, 3):
        raise InputError(f"{what}: files are decoded to 1 or 3 channels, the model has {channels}.")
    wrong = [name for name in ("do_center_crop", "do_exif_transpose") if getattr(processor, name, False)]
    if processor.do_resize and processor.resample not in FILTERS:
        wrong.append(f"resample={processor.resample}")
    if size is None or not processor.do_resize or height_width("size", processor.size) != size:
        wrong.append(f"a size other than the model's {size or 'any'}")
    if wrong:
        raise InputError(
            f"{what}: image_processor: {', '.join(wrong)}: not for files that TensorFlow opens.\n"
            "Export for pixels, and open and resize the files with the processor."
        )
    return int(processor.resample)
