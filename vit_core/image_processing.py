"""Pictures in, the numbers a ViT model expects out.

    vit_core.open_image -> ViTImageProcessor: resize -> rescale -> normalize -> BatchFeature

Numerics and `preprocessor_config.json` are those of transformers 4.57.6's Pillow and NumPy processor, bit for bit and
byte for byte; each departure is marked `Differs:`. Inside this file a picture is always (height, width, channels).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from vit_core.batch_feature import BatchFeature
from vit_core.errors import ImageError
from vit_core.jsonfile import json_text, read_json
from vit_core.limits import LIMITS
from vit_core.tensors import framework_of, to_numpy

Array = np.ndarray[Any, np.dtype[Any]]
Size = int | tuple[int, int] | list[int] | Mapping[str, int]
PerChannel = float | list[float] | tuple[float, ...] | Array

PREPROCESSOR_NAME = "preprocessor_config.json"

_logger = logging.getLogger("vitriad")
_LAYOUTS = ("channels_first", "channels_last", "none")
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INFERRED_CHANNELS = (1, 3)  # the channel counts that a layout is inferred from
_SIZE_KEYS = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)
_TYPE_NAMES = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor")


class ViTImageProcessor:
    """Turns images into `pixel_values`: resize, then rescale, then normalize, each of which can be switched off.

    Args:
        do_resize: stretch to `size`; the aspect ratio is not kept.
        size: pixels: s for a square, (height, width), or {"height": h, "width": w}; 224 where None. The keys
            shortest_edge, longest_edge, max_height, max_width are stored but cannot be resized to.
        resample: Pillow filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
        do_rescale: multiply by `rescale_factor`.
        rescale_factor: 1/255 takes 0..255 to 0..1.
        do_normalize: subtract `image_mean`, divide by `image_std`.
        image_mean: one number, or one per channel; 0.5 for each of three where None.
        image_std: likewise.
        do_convert_rgb: convert PIL images of other modes to RGB; arrays are taken as they are.
        **kwargs: kept in the dict `extra`, readable as attributes, without effect, written back to JSON.

    Raises:
        ImageError: an option is invalid, or asks for a step that does not exist here (such as do_pad=True).
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    is_fast: ClassVar[bool] = False

    do_resize: bool
    size: dict[str, int]
    resample: int
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: float | list[float]
    image_std: float | list[float]
    do_convert_rgb: bool | None

    def __init__(
        self,
        /,  # a file may have a key "self"
        do_resize: bool = True,
        size: Size | None = None,
        resample: int = Image.Resampling.BILINEAR,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: PerChannel | None = None,
        image_std: PerChannel | None = None,
        do_convert_rgb: bool | None = None,
        **kwargs: Any,
    ) -> None:
        options = {
            "do_resize": do_resize,
            "size": 224 if size is None else size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": [0.5, 0.5, 0.5] if image_mean is None else image_mean,
            "image_std": [0.5, 0.5, 0.5] if image_std is None else image_std,
            "do_convert_rgb": do_convert_rgb,
        }
        for name, value in options.items():
            setattr(self, name, value)
        self.extra = _checked_extra(kwargs)

    def __setattr__(self, name: str, value: Any) -> None:  # options are checked whenever they are set
        if name in vars(self).get("extra", {}):
            self.extra[name] = value
        else:
            super().__setattr__(name, _OPTIONS[name](name, value) if name in _OPTIONS else value)

    def __getattr__(self, name: str) -> Any:  # only asked for names that are nowhere else: extra keys shadow nothing
        extra = vars(self).get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        """As `preprocess`."""
        return self.preprocess(images, **kwargs)

    def preprocess(
        self,
        images: Any,
        do_resize: bool | None = None,
        size: Size | None = None,
        resample: int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: PerChannel | None = None,
        image_std: PerChannel | None = None,
        return_tensors: object = None,
        data_format: object = "channels_first",
        input_data_format: object = None,
        do_convert_rgb: bool | None = None,
    ) -> BatchFeature:
        """Pixel values of one image or many.

        Args:
            images: a PIL image, an array or tensor of one image or a batch, or a list of these (nested or mixed).
                Numbers are 0..255; for 0..1 pass do_rescale=False.
            return_tensors: "np", "pt", "tf" or "jax"; a list of NumPy arrays where None.
            data_format: layout of the result: "channels_first", "channels_last", "none" for (height, width), or None
                to keep the input's.
            input_data_format: the same words, for arrays. Where None, the axis of 1 or 3 channels in the first array
                decides for all; channels first if both ends qualify. PIL images need no layout.

        Every other option overrides the processor's own for this call where not None.

        Returns:
            BatchFeature with `pixel_values`, in the order of `images`.

        Shapes: (channels, height, width) each; stacked along a new first axis with `return_tensors`.
        Dtypes: float32, but float16 and float64 arrays keep theirs when neither resized nor rescaled, and resizing
            alone gives uint8 for whole numbers.
        Raises:
            ImageError: an image or option cannot be used.
            InputError: unknown `return_tensors`.
        Differs: the reference refuses data_format=None and "none", which its documentation promises, reads a PIL
            image of height 1 or 3 as channels first, clips PIL images of 16 and 32 bits, and lets NaN, empty, bool and
            object arrays pass.
        """
        given = {
            "do_resize": do_resize,
            "size": size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            "do_convert_rgb": do_convert_rgb,
        }
        options = {
            name: _OPTIONS[name](name, getattr(self, name) if value is None else value) for name, value in given.items()
        }
        wanted, layout = _layout("data_format", data_format), _layout("input_data_format", input_data_format)
        pixel_values = _pixel_values(images, options, wanted, layout)
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)

    def resize(
        self,
        image: Any,
        size: Size,
        resample: int = Image.Resampling.BILINEAR,
        data_format: object = None,
        input_data_format: object = None,
    ) -> Array:
        """One image stretched to `size`; layouts as for `preprocess`, the input's where `data_format` is None.

        Dtypes: uint8 for whole numbers in 0..255, float32 for numbers in 0..1.
        """
        return _apply(lambda picture: _resize(picture, size, resample), image, data_format, input_data_format)

    def rescale(self, image: Any, scale: float, data_format: object = None, input_data_format: object = None) -> Array:
        """One image times `scale`, float32; layouts as for `resize`."""
        return _apply(lambda picture: _rescale(picture, scale), image, data_format, input_data_format)

    def normalize(
        self,
        image: Any,
        mean: PerChannel,
        std: PerChannel,
        data_format: object = None,
        input_data_format: object = None,
    ) -> Array:
        """One image as (image - mean) / std per channel; integers become float32; layouts as for `resize`."""
        return _apply(lambda picture: _normalize(picture, mean, std), image, data_format, input_data_format)

    def center_crop(
        self, image: Any, size: Size, data_format: object = None, input_data_format: object = None
    ) -> Array:
        """The middle of one image, with zeros around it where it is smaller than `size`; layouts as for `resize`."""
        return _apply(lambda picture: _center_crop(picture, size), image, data_format, input_data_format)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """The processor stored in a folder, a JSON file or a hub repository.

        Args:
            pretrained_model_name_or_path: folder holding preprocessor_config.json, a JSON file, or "owner/name".
            return_unused_kwargs: as for `from_dict`.
            **kwargs: hub options (`vit_core.hub.HUB_OPTIONS`), and options that override those of the file.

        Raises:
            MissingFileError: no such file, folder or repository.
            ImageError: the file belongs to another processor, or an option in it cannot be used.
        """
        from vit_core.hub import HUB_OPTIONS, resolve

        hub_options = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
        overrides = {name: value for name, value in kwargs.items() if name not in HUB_OPTIONS}
        path = Path(pretrained_model_name_or_path)
        if path.suffix != ".json":
            folder = resolve(pretrained_model_name_or_path, [PREPROCESSOR_NAME], **hub_options)
            path = folder / PREPROCESSOR_NAME
        return cls.from_dict(_read_options(path, cls), return_unused_kwargs=return_unused_kwargs, **overrides)

    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """The processor with the options in a dict, overridden by keywords.

        Args:
            image_processor_dict: options, as in preprocessor_config.json.
            return_unused_kwargs: return (processor, keywords that are no options) instead of refusing such keywords.
            **kwargs: options that override those of the dict.
        """
        known = {*_OPTIONS, *image_processor_dict}
        unused = {name: value for name, value in kwargs.items() if name not in known}
        if unused and not return_unused_kwargs:
            raise ImageError(f"{cls.__name__}: no option called {', '.join(map(repr, unused))}.")
        overrides = {name: value for name, value in kwargs.items() if name in known}
        processor = cls(**{**image_processor_dict, **overrides})
        return (processor, unused) if return_unused_kwargs else processor

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """The processor stored in one JSON file."""
        return cls(**_read_options(Path(json_file), cls))

    def to_dict(self) -> dict[str, Any]:
        """Every option and extra key as plain data, and `image_processor_type`, in a new dict."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        return deepcopy({**self.extra, **options, "image_processor_type": type(self).__name__})

    def to_json_string(self) -> str:
        """The text of preprocessor_config.json."""
        return json_text(self.to_dict())

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Writes the text of preprocessor_config.json to a file of any name."""
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, save_directory: str | Path) -> list[str]:
        """Writes preprocessor_config.json into a folder, made where missing; returns the paths written."""
        folder = Path(save_directory)
        if folder.is_file():
            raise ImageError(f"{folder}: expected a folder to save into, got a file.")
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / PREPROCESSOR_NAME)
        return [str(folder / PREPROCESSOR_NAME)]

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, ViTImageProcessor) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


class ViTFeatureExtractor(ViTImageProcessor):
    """The former name of ViTImageProcessor; the same in everything but its FutureWarning."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        warnings.warn("ViTFeatureExtractor is deprecated: use ViTImageProcessor.", FutureWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


class AutoImageProcessor:
    """Finds the processor that a stored preprocessor_config.json names."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path, *, use_fast: bool | None = None, **kwargs: Any
    ) -> Any:
        """As `ViTImageProcessor.from_pretrained`, under any of the names that class has had; it is the only one here.

        Raises:
            ImageError: the file names another processor, or `use_fast` asks for torchvision's numerics.
        """
        if use_fast:
            raise ImageError("use_fast=True: expected False or None; the one processor here has Pillow's numerics.")
        return ViTImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


# Options


def _read_options(path: Path, cls: type[ViTImageProcessor]) -> dict[str, Any]:
    options = read_json(path, limit=LIMITS.config_bytes, error=ImageError)
    options = options.get("image_processor", options)  # the file of a multi-part processor
    if not isinstance(options, dict):
        raise ImageError(f"{path}: image_processor: expected an object, got {_seen(options)}.")
    # The earliest ViT files name no type at all.
    name = options.get("image_processor_type", options.get("feature_extractor_type"))
    if name is not None and name not in (*_TYPE_NAMES, cls.__name__):
        raise ImageError(f"{path}: expected one of {', '.join(_TYPE_NAMES)}, got image_processor_type {_seen(name)}.")
    return options


def _checked_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    asked = [name for name, value in extra.items() if (name.startswith("do_") or name == "reduce_labels") and value]
    if asked:
        raise ImageError(f"ViTImageProcessor: {', '.join(asked)}: no such step here; expected false or none.")
    ignored = {"image_processor_type", "feature_extractor_type"}  # the class says its own name when it is written
    unset = {"processor_class"} if extra.get("processor_class") is None else set()
    return {name: deepcopy(value) for name, value in extra.items() if name not in ignored | unset}


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ImageError(f"{name}: expected true or false, got {_seen(value)}.")
    return value


def _flag_or_none(name: str, value: Any) -> bool | None:
    return None if value is None else _flag(name, value)


def _size(name: str, value: Any) -> dict[str, int]:
    if isinstance(value, Mapping):
        sides = dict(value)
    elif isinstance(value, list | tuple) and len(value) == 2:
        sides = {"height": value[0], "width": value[1]}
    else:
        sides = {"height": value, "width": value}
    if set(sides) not in _SIZE_KEYS or not all(_is_side(side) for side in sides.values()):
        raise ImageError(
            f"{name}: expected an int, (height, width) or {{'height': h, 'width': w}} with whole numbers from 1 to "
            f"{LIMITS.image_side}, got {_seen(value)}."
        )
    return {key: int(side) for key, side in sides.items()}


def _is_side(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= LIMITS.image_side


def _resample(name: str, value: Any) -> int:
    known = {int(code): code.name.lower() for code in Image.Resampling}
    if isinstance(value, bool) or not isinstance(value, Integral) or value not in known:
        listed = ", ".join(f"{code} {known[code]}" for code in sorted(known))
        raise ImageError(f"{name}: expected a Pillow filter ({listed}), got {_seen(value)}.")
    return int(value)


def _number(name: str, value: Any) -> float:
    # The largest float32 is a bound that NaN and huge ints of a file fail too; int stays int, for the same JSON.
    number = value.item() if isinstance(value, np.generic) else value
    if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= _FLOAT32_MAX:
        raise ImageError(f"{name}: expected a finite number, got {_seen(value)}.")
    return number


def _numbers(name: str, value: Any) -> float | list[float]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_number(name, item) for item in value]
    return _number(name, value)


def _seen(value: object) -> str:
    return repr(value)[:80]


# How each option is checked and brought into the form that JSON holds.
_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "do_resize": _flag,
    "size": _size,
    "resample": _resample,
    "do_rescale": _flag,
    "rescale_factor": _number,
    "do_normalize": _flag,
    "image_mean": _numbers,
    "image_std": _numbers,
    "do_convert_rgb": _flag_or_none,
}


# Images to pictures: arrays of (height, width, channels)


def _pixel_values(images: Any, options: Mapping[str, Any], wanted: str | None, given: str | None) -> list[Array]:
    flat = list(_each_image(images, rank=2 if given == "none" else 3))
    if not flat:
        raise ImageError("preprocess: expected at least one image, got none.")
    layout = given
    is_gray = np.size(options["image_mean"]) == np.size(options["image_std"]) == 1
    pixel_values = []
    for index, image in enumerate(flat):
        try:
            picture, found = _picture(image, layout, options["do_convert_rgb"], is_gray=is_gray)
            if layout is None and not isinstance(image, Image.Image):
                layout = found  # the first array speaks for all
            if given is None:
                _check_inferred(picture, found)
            if index == 0 and options["do_rescale"]:
                _warn_if_scaled(picture)
            pixel_values.append(_arranged(_processed(picture, options), wanted or found))
        except ImageError as error:
            raise ImageError(f"image {index} of {len(flat)}: {error}") from None
    return pixel_values


def _apply(step: Callable[[Array], Array], image: Any, data_format: object, input_data_format: object) -> Array:
    wanted = _layout("data_format", data_format)
    picture, found = _picture(image, _layout("input_data_format", input_data_format), do_convert_rgb=None)
    return _arranged(step(picture), wanted or found)


def _layout(name: str, value: object) -> str | None:
    word = getattr(value, "value", value)  # an enum member stands for its value
    if word is not None and word not in _LAYOUTS:
        raise ImageError(f"{name}: expected one of {', '.join(_LAYOUTS)} or None, got {_seen(value)}.")
    return None if word is None else str(word)


def _each_image(images: Any, rank: int) -> Iterator[Any]:
    if isinstance(images, list | tuple):
        for item in images:
            yield from _each_image(item, rank)
    elif framework_of(images) is not None and len(images.shape) == rank + 1:
        yield from to_numpy(images)
    else:
        yield images


def _picture(image: Any, layout: str | None, do_convert_rgb: bool | None, is_gray: bool = False) -> tuple[Array, str]:
    """The (height, width, channels) array of one image, and the layout it came in.

    Differs: a processor with one mean and one std takes gray PIL images (mode L) as one channel.
    """
    if isinstance(image, Image.Image):
        if is_gray and image.mode == "L" and not do_convert_rgb:
            return _check_not_empty(np.array(image)[:, :, None]), "channels_last"
        return _decoded(image, do_convert_rgb), "channels_last"
    array = _array(image)
    layout = layout or _inferred_layout(array.shape)
    if layout == "none" and array.ndim == 2:
        return array[:, :, None], layout
    if layout == "none" or array.ndim != 3:
        axes = {"channels_first": "(channels, height, width)", "channels_last": "(height, width, channels)"}
        raise ImageError(
            f"expected {axes.get(layout, '(height, width)')} for {layout}, got shape {array.shape}.\n"
            "All arrays of a call have one layout; pass it as input_data_format."
        )
    return (np.moveaxis(array, 0, -1) if layout == "channels_first" else array), layout


def _decoded(image: Image.Image, do_convert_rgb: bool | None) -> Array:
    if image.mode != "RGB" and not do_convert_rgb:
        raise ImageError(
            f"expected a PIL image of mode RGB, got mode {image.mode}.\n"
            "Pass do_convert_rgb=True, or an array with input_data_format to keep its channels."
        )
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # Pillow would clip to 255
        raise ImageError(f"expected 8 bits a channel, got a PIL image of mode {image.mode}.\nScale it to 0..255 first.")
    try:
        array = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow reads the file only now
        raise ImageError(f"the PIL image cannot be decoded: {error}.") from error
    return _check_not_empty(array)


def _array(image: Any) -> Array:
    if isinstance(image, str | bytes | bytearray | PathLike):
        raise ImageError(
            f"expected an image, got {type(image).__name__}; no files or URLs are opened here.\n"
            "Open a file with vit_core.open_image(path)."
        )
    if framework_of(image) is None:
        raise ImageError(
            f"expected a PIL image, NumPy array or tensor of torch, TensorFlow or JAX, got {type(image).__name__}."
        )
    array = to_numpy(image)
    if array.dtype.kind not in "uif":  # unsigned, int, float
        raise ImageError(f"expected uint8 or float numbers, got dtype {array.dtype}.\nConvert with .astype(np.uint8).")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("expected finite numbers, got NaN or infinity.")
    return _check_not_empty(array)


def _check_not_empty(array: Array) -> Array:
    if array.size == 0:
        raise ImageError(f"expected at least one pixel, got shape {array.shape}.")
    return array


def _inferred_layout(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        raise ImageError(
            f"expected (channels, height, width) or (height, width, channels), got shape {shape}.\n"
            "Pass input_data_format='none' for an image of (height, width)."
        )
    first, last = shape[0] in _INFERRED_CHANNELS, shape[2] in _INFERRED_CHANNELS
    if not first and not last:
        raise ImageError(f"expected 1 or 3 channels first or last, got shape {shape}.\nPass input_data_format.")
    if first and last:
        _logger.warning("Shape %s is read as channels first; pass input_data_format to say which it is.", shape)
    return "channels_first" if first else "channels_last"


def _check_inferred(picture: Array, layout: str) -> None:
    if picture.shape[2] not in _INFERRED_CHANNELS:
        raise ImageError(
            f"expected 1 or 3 channels, got {picture.shape[2]} when read as {layout} like the first array.\n"
            "Use one layout for all, or pass input_data_format."
        )


def _warn_if_scaled(picture: Array) -> None:
    if picture.dtype != np.uint8 and picture.min() >= 0 and picture.max() <= 1:
        _logger.warning("The first image holds 0..1 already and is rescaled again; pass do_rescale=False.")


def _arranged(picture: Array, layout: str) -> Array:
    if layout == "channels_first":
        return np.moveaxis(picture, -1, 0)
    if layout == "channels_last":
        return picture
    if picture.shape[2] != 1:
        raise ImageError(f"data_format 'none': expected 1 channel, got {picture.shape[2]}.")
    return picture[:, :, 0]


# Steps on a picture


def _processed(picture: Array, options: Mapping[str, Any]) -> Array:
    if options["do_resize"]:
        picture = _resize(picture, options["size"], options["resample"])
    if options["do_rescale"]:
        picture = _rescale(picture, options["rescale_factor"])
    if options["do_normalize"]:
        picture = _normalize(picture, options["image_mean"], options["image_std"])
    return picture


def _resize(picture: Array, size: Any, resample: Any) -> Array:
    """Pillow's 8-bit resize. Numbers in 0..1 are cut to 8 bits and come back in 0..1, as in the reference."""
    height, width = _height_width(size)
    channels = picture.shape[2]
    if channels > 4:
        raise ImageError(f"resize: expected 1 to 4 channels, got {channels}.\nPass do_resize=False for more.")
    pixels, is_unit = _eight_bit(picture)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    resized = np.array(image.resize((width, height), _resample("resample", resample)))
    resized = resized.reshape(height, width, channels)
    return _rescale(resized, 1 / 255) if is_unit else resized


def _height_width(size: Any) -> tuple[int, int]:
    sides = _size("size", size)
    if set(sides) != {"height", "width"}:
        raise ImageError(f"size: expected {{'height': h, 'width': w}}, got {sides}; other forms cannot be resized to.")
    return sides["height"], sides["width"]


def _eight_bit(picture: Array) -> tuple[Array, bool]:
    """The picture as uint8, and whether it was 0..1 and therefore multiplied by 255.

    Whole numbers are taken as 0..255 even if all are 0 or 1; fractions are cut, not rounded: both as in the reference.
    """
    if picture.dtype == np.uint8:
        return picture, False
    low, high = picture.min(), picture.max()
    if low >= 0 and high <= 255 and np.isclose(picture, picture.astype(int), rtol=1e-5, atol=1e-8).all():
        return picture.astype(np.uint8), False
    if low >= 0 and high <= 1:
        return _rescale(picture, 255).astype(np.uint8), True
    raise ImageError(
        f"resize: expected numbers in 0..1 or whole numbers in 0..255, got {low:g} to {high:g}.\n"
        "Bring the image into one of these ranges, or pass do_resize=False."
    )


def _rescale(picture: Array, scale: Any) -> Array:
    return (picture.astype(np.float64) * _number("rescale_factor", scale)).astype(np.float32)


def _normalize(picture: Array, mean: Any, std: Any) -> Array:
    if picture.dtype.kind != "f":
        picture = picture.astype(np.float32)
    centre = _per_channel("image_mean", mean, picture)
    spread = _per_channel("image_std", std, picture)
    if not spread.all():
        raise ImageError(f"image_std: expected numbers other than 0 (as {picture.dtype}), got {_seen(std)}.")
    return (picture - centre) / spread  # two roundings: multiplying by 1 / std would differ in the last bit


def _per_channel(name: str, value: Any, picture: Array) -> Array:
    numbers = _numbers(name, value)
    channels = picture.shape[2]
    if isinstance(numbers, list) and len(numbers) != channels:
        raise ImageError(f"{name}: expected one number, or one for each of {channels} channels, got {len(numbers)}.")
    return np.broadcast_to(np.array(numbers, dtype=picture.dtype), (channels,))


def _center_crop(picture: Array, size: Any) -> Array:
    height, width = _height_width(size)
    cropped = np.zeros((height, width, picture.shape[2]), picture.dtype)
    (rows, to_rows), (columns, to_columns) = _centred(picture.shape[0], height), _centred(picture.shape[1], width)
    cropped[to_rows, to_columns] = picture[rows, columns]
    return cropped


def _centred(side: int, wanted: int) -> tuple[slice, slice]:
    """Which part of a side is kept, and where it goes in the wanted side; an odd remainder is cut or padded as Source.

    Source: transformers 4.57.6, center_crop: floor of half when cutting, ceiling of half when padding.
    """
    if wanted <= side:
        start = (side - wanted) // 2
        return slice(start, start + wanted), slice(0, wanted)
    start = (wanted - side + 1) // 2
    return slice(0, side), slice(start, start + side)
