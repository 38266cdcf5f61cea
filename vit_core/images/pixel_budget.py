"""Limits how many pixels threads work on at once, so that a few large pictures take no more memory than many small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

PIXELS_IN_WORK = 64_000_000  # decoded, they take 256 MB as RGB


class PixelBudget:
    """Lets threads work on pictures up to a total number of pixels; a picture larger than that is worked on alone.

    Args:
        pixels: at most, of all pictures in work.
    """

    def __init__(self, pixels: int = PIXELS_IN_WORK) -> None:
        self._pixels, self._in_work = pixels, 0
        self._turn, self._room = Lock(), Condition()

    @contextmanager
    def holding(self, pixels: int) -> Iterator[None]:
        """Waits until there is room, and holds it inside the block; first come, first served."""
        with self._turn, self._room:
            self._room.wait_for(lambda: self._in_work == 0 or self._in_work + pixels <= self._pixels)
            self._in_work += pixels
        try:
            yield
        finally:
            with self._room:
                self._in_work -= pixels
                self._room.notify_all()
