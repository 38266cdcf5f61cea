"""The image processor of a checkpoint: its own, else what another program's files say, else what its models are known
to want. What none of these says is left open, and why is said.

Source: keras-hub 0.26.0, image converters; timm 1.0.31, pretrained_cfg; the evaluation scripts of vision_transformer,
DeiT, DINO, DINOv2 and MAE; torchvision 0.28, the transforms of its weights.
Differs: the programs' own evaluation also crops; here the whole image is resized, as ViTImageProcessor does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from conversion.detect import Source
from vit_core.config import PretrainedConfig, pair
from vit_core.errors import ImageError
from vit_core.files.json import read_json
from vit_core.limits import LIMITS, Limits

if TYPE_CHECKING:
    from vit_core.images.processor import ViTImageProcessor

Fields = dict[str, Any]

PREPROCESSOR_NAME = "preprocessor_config.json"
_CONVERTERS = ("image_converter.json", "preprocessor.json")  # of keras-hub; the second holds the first

_BILINEAR, _BICUBIC = 2, 3  # as Pillow numbers its filters
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": _BILINEAR, "bicubic": _BICUBIC, "box": 4, "hamming": 5}
_KERAS_FILTERS = {"nearest": 0, "bilinear": _BILINEAR, "bicubic": _BICUBIC, "lanczos3": 1}
_HALVES: Fields = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IMAGENET: Fields = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_LARGE = 384  # pixels; torchvision's models from this size on were trained with bicubic images
# Starts of the file names under which DeiT, DINO, DINOv2 and MAE were published.
_PUBLISHED = ("deit_", "dino_", "dinov2_", "mae_")


class Found(NamedTuple):
    """The image processor of a checkpoint.

    Attributes:
        processor: None where nothing tells.
        said: where it is from, or why there is none; empty for the checkpoint's own.
    """

    processor: ViTImageProcessor | None
    said: str


def find_processor(source: Source, config: PretrainedConfig, limits: Limits = LIMITS) -> Found:
    """The image processor of an opened checkpoint.

    Args:
        config: of the model; it has the size of the images.
        limits: bounds on the size of JSON files.

    Raises:
        ImageError: a file that says so is there and cannot be used.
        UnsafeFileError: it is a link out of the checkpoint.
    """
    from vit_core.images.processor import ViTImageProcessor  # Pillow, which conversion needs here alone

    if beside := source.beside(PREPROCESSOR_NAME):
        own: Any = ViTImageProcessor.from_pretrained(beside.parent, limits=limits)
        return Found(own, "")
    options, said = _options(source, config, limits)
    if options is None:
        return Found(None, said)
    height, width = pair(config.image_size)
    return Found(ViTImageProcessor(**{**options, "size": {"height": height, "width": width}}), said)


def for_timm(processor: ViTImageProcessor | None) -> Fields:
    """What timm's pretrained_cfg says of the preparation of images; nothing where it cannot be said there."""
    if processor is None or not (processor.do_normalize and processor.do_rescale and processor.do_resize):
        return {}
    if abs(255 * processor.rescale_factor - 1) > 1e-6 or not isinstance(processor.image_mean, list):
        return {}
    names = {number: name for name, number in FILTERS.items()}
    said = {"mean": processor.image_mean, "std": processor.image_std, "interpolation": names[processor.resample]}
    return {**said, "crop_pct": 1.0}  # the whole image, of which timm would leave out the margin


def _options(source: Source, config: Any, limits: Limits) -> tuple[Fields | None, str]:
    """Options of a processor and where they are from, or None and why."""
    if source.dialect.name == "keras_hub":
        for name in _CONVERTERS:
            if path := source.beside(name):
                return _of_keras(path, config, limits)
    known, said = _known(source, config)
    if known is None:
        return None, "nothing tells how images for it are prepared"
    if config.num_channels != 3:
        return None, f"{said} are for three channels, and it has {config.num_channels}"
    return known, said


def _known(source: Source, config: Any) -> tuple[Fields | None, str]:
    """What the models of a dialect, or of a family within it, are known to want."""
    name, data = source.dialect.name, source.config or {}
    if name == "google":
        return {**_HALVES, "resample": _BILINEAR}, "mean and deviation of Google's models"
    if name == "torchvision":
        filter_ = _BICUBIC if min(pair(config.image_size)) >= _LARGE else _BILINEAR
        return {**_IMAGENET, "resample": filter_}, "mean and deviation of torchvision's models"
    said = data.get("pretrained_cfg")
    if name == "timm" and isinstance(said, dict) and said.get("mean") and said.get("std"):
        options = {"image_mean": said["mean"], "image_std": said["std"]}
        return {**options, "resample": FILTERS.get(str(said.get("interpolation")), _BICUBIC)}, "config.json of timm"
    if name == "mae" or (name == "timm" and (family := _family(source))):
        of = "MAE" if name == "mae" else family
        return {**_IMAGENET, "resample": _BICUBIC}, f"mean and deviation of {of}"
    return None, ""


def _family(source: Source) -> str | None:
    """Whose model in timm's names it is, by tensors that only this program's have, or by its published name."""
    file, names = source.weights.files[0], [*source.weights]
    ends = {name.rpartition(".")[2] for name in names}
    if "dist_token" in ends or "gamma_1" in ends:
        return "DeiT"
    if "mask_token" in ends and "gamma" in ends:
        return "DINOv2"
    if {"teacher", "student"} & {*file.metadata.get("weights", "").split(".")}:
        return "DINO"
    if any(name.endswith("head.0.running_mean") for name in names):
        return "MAE"
    start = next((start for start in _PUBLISHED if file.path.name.startswith(start)), None)
    return f"the {start.rstrip('_')} release" if start else None


def _of_keras(path: Path, config: Any, limits: Limits) -> tuple[Fields | None, str]:
    """The arithmetic of a converter of keras-hub, pixel * scale + offset, as mean and deviation."""
    data = read_json(path, limit="config_bytes", error=ImageError, limits=limits, within=True).get("config")
    if isinstance(data, dict) and isinstance(inner := data.get("image_converter"), Mapping):
        data = inner.get("config")
    if not isinstance(data, dict):
        raise ImageError(f"{path}: expected the configuration of an image converter.")
    resample = _KERAS_FILTERS.get(str(data.get("interpolation", "bilinear")))
    if resample is None:
        return None, f"{path.name}: no processor here resizes by {str(data['interpolation'])[:80]!r}"
    scales = _numbers(path, "scale", data.get("scale"), 1.0, config.num_channels)
    offsets = _numbers(path, "offset", data.get("offset"), 0.0, config.num_channels)
    if not all(scale > 0 for scale in scales):
        raise ImageError(f"{path}: scale: expected numbers above 0, got {str(data.get('scale'))[:80]}.")
    deviations = [1 / (255 * scale) for scale in scales]
    means = [-offset * deviation for offset, deviation in zip(offsets, deviations, strict=True)]
    options: Fields = {"image_mean": _short(means), "image_std": _short(deviations), "resample": resample}
    crops = data.get("crop_to_aspect_ratio", True) or data.get("pad_to_aspect_ratio", False)
    return options, path.name + (", which keeps the aspect ratio; here images are stretched" if crops else "")


def _numbers(path: Path, name: str, value: object, default: float, channels: int) -> list[float]:
    """One number for each channel."""
    values: list[Any] = value if isinstance(value, list) else [default if value is None else value] * channels
    if len(values) != channels or not all(isinstance(each, int | float) and abs(each) < 1e6 for each in values):
        raise ImageError(f"{path}: {name}: expected a number, or {channels} of them, got {str(value)[:80]}.")
    return [float(each) for each in values]


def _short(values: list[float]) -> list[float]:
    """Without the noise of a division: 0.5, not 0.5000000000000001."""
    return [round(value, 12) + 0.0 for value in values]
