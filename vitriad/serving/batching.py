"""Requests that are answered together: a bounded queue before a model, and batches of what fits together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_core.errors import VitError
from vit_core.tensors import Array
from vitriad.web import Refusal

Arrays = Mapping[str, Array]
Run = Callable[[Any, Arrays], Arrays]  # a kind of work, and the rows for it -> as many rows of what it found
logger = logging.getLogger("vitriad.serve")


@dataclass(frozen=True)
class BatchLimits:
    """How requests are put together.

    Attributes:
        rows: images of a batch, at most; a request may not have more.
        delay_seconds: that the oldest request waits for others that are on their way, at most; for nobody else.
        waiting: images in the queue, at most.
        sizes: numbers of images that the model is called with, in order; smaller batches are filled up. Empty: all.
    """

    rows: int = 32
    delay_seconds: float = 0.005
    waiting: int = 128
    sizes: Sequence[int] = ()


@dataclass(eq=False)
class _Item:
    """A request that waits. `group`: what it has to have in common with others in its batch."""

    kind: Hashable
    arrays: Arrays
    group: Hashable
    answer: asyncio.Future[Arrays]
    rows: int
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """The queue before one model, whose calls are made one after another in a thread of its own.

    A batch begins with the request that has waited longest, so nobody starves; then come others of the same kind and
    shapes. It is run as soon as the model is free and it is full, nobody is on the way, or `delay_seconds` are over.
    If a call fails, its requests are run again one by one: a bad one harms no neighbour.

    Args:
        run: calls the model.
        limits: on batches and on the queue.
        watch: is told the images and the seconds of each call.
    """

    def __init__(self, run: Run, limits: BatchLimits, watch: Callable[[int, float], None] = lambda *_: None) -> None:
        self.limits, self._run, self._watch = limits, run, watch
        self._thread = ThreadPoolExecutor(1, "model")
        self._queue: deque[_Item] = deque()
        self._on_the_way = 0
        self._seconds = 0.0  # of an image, lately
        self._working: asyncio.Task[None] | None = None  # while there is something to do
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return sum(item.rows for item in self._queue)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Marks a request as on its way to the queue while the block is run."""
        self._on_the_way += 1
        try:
            yield
        finally:
            self._on_the_way -= 1
            self._changed.set()

    def check_room(self, rows: int = 1) -> None:
        """Raises Refusal if so many images may not enter the queue."""
        if rows > self.limits.rows:
            raise Refusal(413, f"Expected at most {self.limits.rows} images, got {rows}.", "too_many_images")
        waiting = self.waiting
        if waiting + rows > self.limits.waiting:
            seconds = min(max(1, math.ceil(waiting * self._seconds)), 60)
            raise Refusal(429, "The model is busy. Try again later.", retry_after=str(seconds))

    async def submit(self, kind: Hashable, arrays: Arrays) -> Arrays:
        """What the model makes of some rows. If the caller is cancelled before its batch is begun, they are not run.

        Args:
            kind: of work.
            arrays: by name, (rows, …) each.

        Raises:
            Refusal: the queue is full, or the model failed.
            VitError: what the model says about these rows.
        """
        rows = len(next(iter(arrays.values())))
        self.check_room(rows)
        shapes = tuple((name, array.shape[1:], array.dtype.str) for name, array in arrays.items())
        item = _Item(kind, arrays, (kind, shapes), asyncio.get_running_loop().create_future(), rows)
        self._queue.append(item)
        self._changed.set()
        if self._working is None:
            self._working = asyncio.ensure_future(self._work())
        try:
            return await item.answer
        finally:
            if item in self._queue:  # given up
                self._queue.remove(item)
                self._changed.set()

    async def _work(self) -> None:
        """Runs batches until nobody waits."""
        try:
            while self._queue:
                await self._gathered()
                if batch := self._next():
                    job = asyncio.get_running_loop().run_in_executor(self._thread, self._answers, batch)
                    for item, answer in zip(batch, await job, strict=True):
                        _give(item, answer)
        finally:
            self._working = None

    async def _gathered(self) -> None:
        """Returns when the next batch is to be run."""
        while self._queue and self._on_the_way:
            first = self._queue[0]
            left = first.since + self.limits.delay_seconds - time.monotonic()
            fitting = sum(item.rows for item in self._queue if item.group == first.group)
            if left <= 0 or fitting >= self.limits.rows:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    def _next(self) -> list[_Item]:
        """The next batch, taken from the queue."""
        batch: list[_Item] = []
        rows = 0
        for item in self._queue:
            if not batch or (item.group == batch[0].group and rows + item.rows <= self.limits.rows):
                batch.append(item)
                rows += item.rows
        for item in batch:
            self._queue.remove(item)
        return batch

    def _answers(self, batch: Sequence[_Item]) -> Sequence[Arrays | Exception]:
        """What the model makes of each request of a batch, or why it fails; in the thread of the model."""
        try:
            return self._called(batch)
        except Exception as problem:
            if len(batch) == 1:
                return [problem]
        return [self._answers([item])[0] for item in batch]

    def _called(self, batch: Sequence[_Item]) -> Sequence[Arrays]:
        begun = time.perf_counter()
        names, rows = batch[0].arrays, sum(item.rows for item in batch)
        size = next((each for each in self.limits.sizes if each >= rows), rows)
        together = {name: _filled([item.arrays[name] for item in batch], size) for name in names}
        found = self._run(batch[0].kind, together)
        seconds = time.perf_counter() - begun
        self._seconds = seconds / rows
        self._watch(rows, seconds)
        ends = np.cumsum([item.rows for item in batch])
        return [
            {name: array[end - item.rows : end] for name, array in found.items()}
            for item, end in zip(batch, ends.tolist(), strict=True)
        ]


def _filled(arrays: Sequence[Array], size: int) -> Array:
    """Arrays of rows as one, its last row repeated up to a size."""
    missing = size - sum(map(len, arrays))
    together = [*arrays, np.repeat(arrays[-1][-1:], missing, axis=0)] if missing else arrays
    return np.concatenate(together) if len(together) > 1 else together[0]


def _give(item: _Item, answer: Arrays | Exception) -> None:
    """Hands an answer to whoever waits for it; what is no fault of the request is logged, and told without its text."""
    if isinstance(answer, Exception) and not isinstance(answer, VitError | Refusal):
        logger.error("the model failed", exc_info=answer)
        answer = Refusal(500, "The model failed.", "model_failed")
    if item.answer.done():  # nobody waits any more
        return
    if isinstance(answer, Exception):
        item.answer.set_exception(answer)
    else:
        item.answer.set_result(answer)


def sizes_up_to(rows: int) -> list[int]:
    """Powers of two, and the number itself: sizes of batches for what compiles a program for each."""
    return [*(2**power for power in range(rows.bit_length()) if 2**power < rows), rows]
