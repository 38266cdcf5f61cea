"""Values from users and files: which of them are numbers, and how errors show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def is_int(value: object) -> bool:
    """Whether it is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite float, or an int that a float holds exactly."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_int(value) and abs(value) <= 2**53  # type: ignore[arg-type]


def plain(value: Any) -> Any:
    """A NumPy scalar as a Python one; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def short(value: object) -> str:
    """A value in at most 80 characters of one line."""
    try:
        text = repr(value).replace("\n", " ")
    except ValueError:  # an int of thousands of digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def name_list(names: Sequence[str], most: int = 10) -> str:
    """The first names of a list for a message: escaped and shortened, since a file may have chosen them."""
    shown = [name if name.isprintable() and len(name) <= 160 else f"{name[:80]!r}…" for name in names[:most]]
    return (", ".join(shown) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")
