"""The options of an image processor: each is checked and brought into the form that preprocessor_config.json holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image

from vit_core.errors import ImageError
from vit_core.limits import LIMITS
from vit_core.plain_values import short
from vit_core.tensors import Array

Size = int | tuple[int, int] | list[int] | Mapping[str, int]
PerChannel = float | list[float] | tuple[float, ...] | Array
PILImageResampling = Image.Resampling

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SIZE_KEYS = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)


class ChannelDimension(StrEnum):
    """The layouts of an image, for those who prefer names to strings."""

    FIRST = "channels_first"
    LAST = "channels_last"
    NONE = "none"


def layout(name: str, value: object) -> str | None:
    """ "channels_first", "channels_last", "none" or None, given as such or as an enum member of that value."""
    word = getattr(value, "value", value)
    if word is not None and word not in [*ChannelDimension]:
        raise ImageError(f"{name}: expected one of {', '.join(ChannelDimension)} or None, got {short(value)}.")
    return None if word is None else str(word)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ImageError(f"{name}: expected true or false, got {short(value)}.")
    return value


def flag_or_none(name: str, value: Any) -> bool | None:
    """True, False or None."""
    return None if value is None else flag(name, value)


def size(name: str, value: Any) -> dict[str, int]:
    """Pixels by side: {"height": h, "width": w}; {"shortest_edge": s} and alike are kept, but cannot be resized to."""
    if isinstance(value, Mapping):
        sides = dict(value)
    elif isinstance(value, list | tuple) and len(value) == 2:
        sides = {"height": value[0], "width": value[1]}
    else:
        sides = {"height": value, "width": value}
    if set(sides) not in _SIZE_KEYS or not all(_is_side(side) for side in sides.values()):
        raise ImageError(
            f"{name}: expected an int, (height, width) or {{'height': h, 'width': w}} with whole numbers from 1 to "
            f"{LIMITS.image_side}, got {short(value)}."
        )
    return {key: int(side) for key, side in sides.items()}


def size_or_none(name: str, value: Any) -> dict[str, int] | None:
    """As `size`, or None."""
    return None if value is None else size(name, value)


def height_width(name: str, value: Any) -> tuple[int, int]:
    """The sides to resize to, or to cut out."""
    sides = size(name, value)
    if set(sides) != {"height", "width"}:
        raise ImageError(
            f"{name}: expected {{'height': h, 'width': w}}, got {sides}; other forms cannot be resized to."
        )
    return sides["height"], sides["width"]


def _is_side(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= LIMITS.image_side


def resample(name: str, value: Any) -> int:
    """The number of a Pillow filter."""
    known = {int(code): code.name.lower() for code in Image.Resampling}
    if isinstance(value, bool) or not isinstance(value, Integral) or value not in known:
        listed = ", ".join(f"{code} {known[code]}" for code in sorted(known))
        raise ImageError(f"{name}: expected a Pillow filter ({listed}), got {short(value)}.")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number; int stays int, for the same JSON."""
    # The largest float32 is a bound that NaN and huge ints of a file fail too.
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, int | float) or isinstance(plain, bool) or not abs(plain) <= _FLOAT32_MAX:
        raise ImageError(f"{name}: expected a finite number, got {short(value)}.")
    return plain


def numbers(name: str, value: Any) -> float | list[float]:
    """One number, or one per channel."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [number(name, item) for item in value]
    return number(name, value)


def colour_or_none(name: str, value: Any) -> list[int] | None:
    """[red, green, blue] in 0..255, or None."""
    if value is None:
        return None
    parts = list(value) if isinstance(value, list | tuple) else []
    if len(parts) != 3 or not all(isinstance(part, Integral) and 0 <= int(part) <= 255 for part in parts):
        raise ImageError(f"{name}: expected (red, green, blue) in 0..255, got {short(value)}.")
    return [int(part) for part in parts]


# The options that are always written to JSON …
OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "do_resize": flag,
    "size": size,
    "resample": resample,
    "do_rescale": flag,
    "rescale_factor": number,
    "do_normalize": flag,
    "image_mean": numbers,
    "image_std": numbers,
    "do_convert_rgb": flag_or_none,
}

# … and those that are off, None and unwritten until they are given.
RARE_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "do_center_crop": flag_or_none,
    "crop_size": size_or_none,
    "do_exif_transpose": flag_or_none,
    "alpha_background": colour_or_none,
    "compatible": flag_or_none,
}

CHECKS = OPTIONS | RARE_OPTIONS
