"""Reads preprocessor_config.json: checks that the file is for a ViTImageProcessor and asks for no other steps."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from vit_core.errors import ImageError
from vit_core.files.json import read_json
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import short

PREPROCESSOR_NAME = "preprocessor_config.json"
_VIT_NAMES = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor")
DEIT_NAMES = tuple(name.replace("ViT", "DeiT") for name in _VIT_NAMES)
# Options of the reference's other processors that are no options of this one, at the only value that changes nothing.
_FIXED = {"data_format": "channels_first", "input_data_format": None, "return_tensors": None, "default_to_square": True}
_FIXED |= {"use_fast": False}
# What the class of those names leaves unsaid.
DEIT_DEFAULTS: dict[str, Any] = {"size": 256, "resample": 3, "do_center_crop": True, "crop_size": 224}


def read_options(
    path: Path,
    processor: str,
    overrides: Mapping[str, Any],
    limits: Limits = LIMITS,
    within: bool = False,
) -> dict[str, Any]:
    """The options that a file holds for a ViTImageProcessor.

    Args:
        path: of the JSON file.
        processor: name of the class that reads it; a subclass reads files that name itself as well.
        overrides: options that the caller gives instead.
        limits: of the file's size.
        within: whether it was found in a folder by its name: then a link must not lead out of there.

    Raises:
        ImageError: it belongs to another processor, or asks for a crop that transformers does not make.
    """
    options = read_json(path, limit="config_bytes", error=ImageError, limits=limits, within=within)
    options = options.get("image_processor", options)  # the file of a multi-part processor
    if not isinstance(options, dict):
        raise ImageError(f"{path}: image_processor: expected an object, got {short(options)}.")
    options.pop("use_fast", None)  # who wrote it; a keyword asks for it
    # The earliest ViT files name no type at all.
    name = options.get("image_processor_type", options.get("feature_extractor_type"))
    if name in DEIT_NAMES:
        return {**DEIT_DEFAULTS, **options}
    if name is not None and name not in (*_VIT_NAMES, processor):
        raise ImageError(
            f"{path}: expected one of {', '.join(_VIT_NAMES + DEIT_NAMES)}, got image_processor_type {short(name)}."
        )
    if options.get("do_center_crop") and "do_center_crop" not in overrides:
        raise ImageError(
            f"{path}: do_center_crop: transformers' processor of this type does not crop, whatever the file says.\n"
            "Pass do_center_crop=True to crop, or False not to."
        )
    return options


def checked_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a file that are no options. They are kept, unless they would change the result: those are refused.

    Raises:
        ImageError: one asks for a step that there is none of.
    """
    asked = [name for name, value in extra.items() if (name.startswith("do_") or name == "reduce_labels") and value]
    if asked:
        raise ImageError(f"ViTImageProcessor: {', '.join(asked)}: no such step here; expected false or none.")
    for name, only in _FIXED.items():
        if extra.get(name) not in (only, None):
            raise ImageError(f"ViTImageProcessor: {name}: expected {only} as an option, got {short(extra[name])}.")
    # The class says its own name when it is written.
    ignored = {"image_processor_type", "feature_extractor_type", "use_fast"}
    unset = {"processor_class"} if extra.get("processor_class") is None else set()
    return {name: deepcopy(value) for name, value in extra.items() if name not in ignored | unset}
