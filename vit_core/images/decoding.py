"""Images decoded by threads while a model computes: in order, each as pixel values or with why it cannot be used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from vit_core.errors import ImageError
from vit_core.images.files import image_pixels
from vit_core.images.pixel_budget import PixelBudget
from vit_core.images.sources import ImageSource
from vit_core.tensors import Array

Item = TypeVar("Item")
Made = TypeVar("Made")
Read = Callable[[str | bytes], Array]
Decoded = tuple[ImageSource, Array | ImageError]


def decoded(sources: Iterable[ImageSource], read: Read, ahead: int) -> Generator[Decoded, None, None]:
    """Every image as pixel values, or why it cannot be used, in order; the next ones are decoded meanwhile.

    Args:
        sources: the images.
        read: a file, or the bytes of one, as pixel values; called by several threads.
        ahead: how many images may be decoded before they are asked for; large pictures fewer (`PixelBudget`).
    """
    budget = PixelBudget()

    def one(source: ImageSource) -> Array | ImageError:
        try:
            opened = source.open()
            with budget.holding(image_pixels(opened)):
                return read(opened)
        except ImageError as problem:
            return ImageError(f"{source.name}: {problem}") if source.archive else problem

    return in_order(sources, one, ahead)


def in_order(
    items: Iterable[Item], work: Callable[[Item], Made], ahead: int
) -> Generator[tuple[Item, Made], None, None]:
    """Every item with what is made of it, in order; the next ones are in work meanwhile.

    Args:
        items: what there is to do.
        work: called by several threads.
        ahead: how many may be done before they are asked for.
    """
    left = iter(items)
    with ThreadPoolExecutor(_cores(), "decoding") as threads:
        queue: deque[tuple[Item, Future[Made]]] = deque()
        try:
            while True:
                queue.extend((each, threads.submit(work, each)) for each in islice(left, ahead - len(queue)))
                if not queue:
                    return
                item, future = queue.popleft()
                yield item, future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    """How many processors this process may use: more threads would only take turns with the model's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
