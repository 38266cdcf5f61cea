"""What a row of a table may hold: the names of a tensor, or of the tensor that it is a part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """One third of a tensor in which query, key and value follow one another on the first axis."""

    name: str
    third: int


Row = Sequence[str | Part]
