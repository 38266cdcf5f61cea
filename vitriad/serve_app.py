"""The web application of `vitriad serve`: models behind their queues, and what people and curl ask of them."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vit_core.images.files import image_pixels
from vit_core.images.pixel_budget import PixelBudget
from vit_core.limits import LIMITS
from vit_core.tensors import Array
from vitriad.batching import Arrays, Batcher, BatchLimits, sizes_up_to
from vitriad.keys import Keyed
from vitriad.multipart import image_of
from vitriad.observing import Figures, Watched
from vitriad.openapi import document, page
from vitriad.reconstruct import drawn_masking, note_on_pixels, pictures
from vitriad.served import PIXELS, TASKS, Common, Served
from vitriad.web import REFUSALS, Guard, Refusal, WebLimits, while_connected

Prepare = Callable[[bytes], tuple[Arrays, Common]]  # body -> arrays, and what they have in common
HEALTH = ("/live", "/ready")
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

    def __init__(self, models: Sequence[Served], limits: ServeLimits) -> None:
        self.limits, self.figures = limits, Figures()
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

    def read(self, served: Served, content: bytes) -> Array:
        """The bytes of an image file as pixel values (channels, height, width), in a thread of `answer`.

        Raises:
            ImageError: they cannot be used.
        """
        with self._budget.holding(image_pixels(content)):
            return served.read(content, self._image_limits)

    async def answer(self, request: Request, served: Served, task: str, prepare: Prepare) -> Arrays:
        """What a model makes of a request.

        Args:
            request: whose body is read here.
            served: the model.
            task: one of its tasks.
            prepare: makes arrays of the body; called in a thread.

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
                arrays, common = await running
            return await batcher.submit((task, common), arrays)

        try:
            async with asyncio.timeout(self.limits.deadline_seconds):
                return await while_connected(request, work())
        except TimeoutError:
            raise Refusal(504, f"There was no answer within {self.limits.deadline_seconds:g} seconds.") from None


class People:
    """What answers people: an image in, short JSON or a picture out."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/", self.page),
            Route("/live", self.live),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
            Route("/models", self.models),
            Route("/openapi.json", self.openapi),
            *(Route(f"/{task}", getattr(self, task), methods=["POST"]) for task in TASKS),
        ]

    async def page(self, request: Request) -> Response:
        """A page with examples."""
        return HTMLResponse(page(self._service.every, str(request.base_url)))

    async def openapi(self, _: Request) -> Response:
        """The description of all this for programs."""
        return JSONResponse(document())

    async def live(self, _: Request) -> Response:
        """Whether the server is there at all."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Whether it could take a request now."""
        if not self._service.is_ready:
            raise Refusal(503, "A queue is full.", retry_after="1")
        return JSONResponse({"ready": True})

    async def metrics(self, _: Request) -> Response:
        """The figures, for Prometheus."""
        return Response(generate_latest(self._service.figures.registry), media_type=CONTENT_TYPE_LATEST)

    async def models(self, _: Request) -> Response:
        """What there is."""
        every = [
            {"name": each.name, "version": each.version, "tasks": [*each.tasks], "engine": each.engine}
            | {"size": each.size, "classes": each.config.num_labels if "classify" in each.tasks else None}
            for each in self._service.every
        ]
        return JSONResponse({"models": every})

    async def classify(self, request: Request) -> Response:
        """The best classes of an image."""
        served = self._chosen(request, "classify")
        count = _number(request, "top_k", 5, self._service.limits.most_top)
        found = await self._service.answer(request, served, "classify", self._image(request, served))
        scores, labels = found["probabilities"][0], served.config.id2label
        best = np.argsort(-scores, kind="stable")[:count].tolist()
        top = [{"label": labels[index], "score": float(scores[index])} for index in best]
        return JSONResponse({**_named(served), **top[0], "top": top})

    async def embed(self, request: Request) -> Response:
        """Features of an image."""
        served = self._chosen(request, "embed")
        known = [each.name for each in served.tasks["embed"].returns]
        names = request.query_params.get("features", known[0]).split(",")
        if wrong := [name for name in names if name not in known]:
            raise Refusal(422, f"features: expected some of {', '.join(known)}, got {wrong[0][:80]!r}.")
        found = await self._service.answer(request, served, "embed", self._image(request, served))
        return JSONResponse({**_named(served), **{name: found[name][0].tolist() for name in names}})

    async def reconstruct(self, request: Request) -> Response:
        """What a masked autoencoder paints into the patches that the query hides from it."""
        served = self._chosen(request, "reconstruct")
        texts = [request.query_params.get(name, "") for name in ("seed", "ratio", "removed")]
        masking = drawn_masking(served.config, *texts)
        kept: dict[str, Array] = {}
        usual = drawn_masking(served.config, "", "", "")["mask_ratio"]
        if served.compiles and masking["mask_ratio"] != usual:
            raise Refusal(422, f"ratio: {served.engine} compiles a program for each; expected the model's.")
        read = self._image(request, served)

        def prepare(body: bytes) -> tuple[Arrays, Common]:
            arrays, _ = read(body)
            kept.update(arrays)
            return {**arrays, "noise": masking["noise"]}, (("mask_ratio", masking["mask_ratio"]),)

        found = await self._service.answer(request, served, "reconstruct", prepare)
        mask = found["mask"][0]
        drawn = pictures(kept[PIXELS][0], found["reconstruction"][0], mask == 1, served.config, served.processor)
        files = dict(zip(("image", "seen", "painted", "pasted"), map(_png, drawn), strict=True))
        if request.headers.get("accept") == "image/png":
            return Response(files["pasted"], media_type="image/png")
        said = {"loss": float(found["loss"][0]), "removed": mask.tolist(), "note": note_on_pixels(served.config)}
        texts_of = {name: b64encode(file).decode() for name, file in files.items()}
        return JSONResponse({**_named(served), **said, "png": texts_of})

    def _chosen(self, request: Request, task: str) -> Served:
        """The model that a request names, or the first that does the task."""
        name, version = request.query_params.get("model"), request.query_params.get("version")
        if name is None:
            name = next((each.name for each in self._service.every if task in each.tasks), "")
        served = self._service.find(name, version)
        if task not in served.tasks:
            raise Refusal(404, f"{served.name} does not do that. It does: {', '.join(served.tasks)}.", "no_such_task")
        return served

    def _image(self, request: Request, served: Served) -> Prepare:
        """Makes pixel values of the image in a body."""
        kind = request.headers.get("content-type", "")

        def prepare(body: bytes) -> tuple[Arrays, Common]:
            return {PIXELS: self._service.read(served, image_of(kind, body))[None]}, ()

        return prepare


def _named(served: Served) -> dict[str, str]:
    return {"model": served.name, "version": served.version}


def _number(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise Refusal(422, f"{name}: expected a number from 1 to {most}, got {text[:20]!r}.")
    return int(text)


def _png(pixels: Array) -> bytes:
    """An image (height, width, 3), uint8, as a PNG file."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def application(
    service: Service,
    *,
    port: int | None = None,
    keys: Collection[str] = (),
    names: Collection[str] | None = (),
) -> ASGIApp:
    """The application, guarded.

    Args:
        service: the models.
        port: that it listens on; None for that of each connection.
        keys: one of which a request has to carry; none needs one if there are none.
        names: other hosts that requests may name; None for every one.
    """
    routes = People(service).routes()
    app = Starlette(routes=routes, exception_handlers=REFUSALS)
    app.router.redirect_slashes = False
    guarded = Guard(Keyed(app, keys, HEALTH), port, service.limits.web, names)
    return Watched(guarded, service.figures)
