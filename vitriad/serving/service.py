"""The models of `vitriad serve`, each behind its queue: found by name, and asked within bounds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from starlette.requests import Request

from vit_core.images.files import image_pixels
from vit_core.images.pixel_budget import PixelBudget
from vit_core.limits import LIMITS
from vit_core.tensors import Array
from vitriad.serving.batching import Arrays, Batcher, BatchLimits, sizes_up_to
from vitriad.serving.observing import Figures
from vitriad.serving.served import Kind, Served
from vitriad.web import Refusal, WebLimits, while_connected

Prepare = Callable[[bytes], tuple[Kind, Arrays]]  # makes of a body what to do, and the arrays to do it with
_WEB, _BATCH = WebLimits(connections=256, request_seconds=90, drain_seconds=30), BatchLimits()


@dataclass(frozen=True)
class ServeLimits:
    """Bounds of the server.

    Attributes:
        web: on requests.
        batch: on batches and queues.
        deadline_seconds: until a request is answered, once it is here.
        most_top: classes that may be asked for.
    """

    web: WebLimits = _WEB
    batch: BatchLimits = _BATCH
    deadline_seconds: float = 30
    most_top: int = 1000


class Service:
    """The models of a server, each behind its queue.

    Attributes:
        models: by name and version.
        limits: the bounds.
        figures: what is measured.
    """

    def __init__(self, models: Sequence[Served], limits: ServeLimits, figures: Figures | None = None) -> None:
        self.limits, self.figures = limits, figures or Figures()
        self.models: dict[str, dict[str, Served]] = {}
        self._batchers: dict[int, Batcher] = {}
        for served in models:
            self.models.setdefault(served.name, {})[served.version] = served
            self._batchers[id(served)] = self._batcher(served)
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, "decoding")
        self._budget = PixelBudget()
        bounds = {"image_file_bytes": limits.web.body_bytes, "image_pixels": limits.web.image_pixels}
        self._image_limits = replace(LIMITS, **bounds)

    def _batcher(self, served: Served) -> Batcher:
        limits, names = self.limits.batch, (served.name, served.version)
        limits = replace(limits, sizes=sizes_up_to(limits.rows) if served.compiles else ())
        rows, seconds = self.figures.rows.labels(*names), self.figures.calls.labels(*names)

        def watch(images: int, took: float) -> None:
            rows.observe(images)
            seconds.observe(took)

        batcher = Batcher(served.call, limits, watch)
        self.figures.waiting.labels(*names).set_function(lambda: batcher.waiting)
        return batcher

    @property
    def every(self) -> list[Served]:
        """All models and versions."""
        return [served for versions in self.models.values() for served in versions.values()]

    @property
    def is_ready(self) -> bool:
        """Whether every model could take a request now."""
        return all(each.waiting < each.limits.waiting for each in self._batchers.values())

    def find(self, name: str, version: str | None = None) -> Served:
        """A model; the newest version if none is named.

        Raises:
            Refusal: there is none.
        """
        versions = self.models.get(name, {})
        version = version or max(versions, key=int, default="")
        if version not in versions:
            known = ", ".join(f"{each.name} version {each.version}" for each in self.every[:20])
            raise Refusal(404, f"There is no such model. There are: {known}.", "no_such_model")
        return versions[version]

    def find_task(self, name: str, version: str | None = None) -> tuple[Served, str]:
        """A model and a task of it, of a name such as "digits-vit.embed"; without a task the first.

        Raises:
            Refusal: there is none.
        """
        model, _, task = name.partition(".")
        served = self.find(model, version)
        return served, served.known(task) if "." in name else next(iter(served.tasks))

    def check_room(self, served: Served, rows: int) -> None:
        """Raises Refusal if so many images may not enter the queue of a model."""
        self._batchers[id(served)].check_room(rows)

    def read(self, served: Served, content: bytes) -> Array:
        """The bytes of an image file as pixel values (channels, height, width), in a thread of `answer`.

        Raises:
            ImageError: they cannot be used.
        """
        with self._budget.holding(image_pixels(content)):
            return served.read(content, self._image_limits)

    async def answer(self, request: Request, served: Served, prepare: Prepare) -> Arrays:
        """What a model makes of a request.

        Args:
            request: whose body is read here.
            served: the model.
            prepare: is called in a thread.

        Raises:
            Refusal: there is no room, or no time.
            VitError: the request cannot be used.
        """
        batcher = self._batchers[id(served)]
        with batcher.coming():
            batcher.check_room()
            body = await request.body()

        async def work() -> Arrays:
            with batcher.coming():
                running = asyncio.get_running_loop().run_in_executor(self._decoders, prepare, body)
                kind, arrays = await running
            return await batcher.submit(kind, arrays)

        try:
            async with asyncio.timeout(self.limits.deadline_seconds):
                return await while_connected(request, work())
        except TimeoutError:
            raise Refusal(504, f"There was no answer within {self.limits.deadline_seconds:g} seconds.") from None
