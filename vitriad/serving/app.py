"""The web application of `vitriad serve`, and what people and curl ask of its models."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from io import BytesIO

import numpy as np
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vit_core.tensors import Array
from vitriad.reconstruct import drawn_masking, note_on_pixels, pictures
from vitriad.serving import oip, tfserving
from vitriad.serving.batching import Arrays
from vitriad.serving.keys import Keyed
from vitriad.serving.multipart import image_of
from vitriad.serving.observing import Watched
from vitriad.serving.openapi import document, page
from vitriad.serving.served import PIXELS, TASKS, Kind, Served
from vitriad.serving.service import Prepare, Service
from vitriad.web import REFUSALS, Guard, Refusal

HEALTH = ("/live", "/ready", *oip.HEALTH)


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
        found = await self._service.answer(request, served, self._image(request, served, "classify"))
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
        found = await self._service.answer(request, served, self._image(request, served, "embed"))
        return JSONResponse({**_named(served), **{name: found[name][0].tolist() for name in names}})

    async def reconstruct(self, request: Request) -> Response:
        """What a masked autoencoder paints into the patches that the query hides from it."""
        served = self._chosen(request, "reconstruct")
        texts = [request.query_params.get(name, "") for name in ("seed", "ratio", "removed")]
        masking = drawn_masking(served.config, *texts)
        kept: dict[str, Array] = {}
        common = (("mask_ratio", masking["mask_ratio"]),)
        if served.compiles and common != served.usual("reconstruct"):
            raise Refusal(422, f"ratio: {served.engine} compiles a program for each; expected the model's.")
        read = self._image(request, served, "reconstruct")

        def prepare(body: bytes) -> tuple[Kind, Arrays]:
            (task, _), arrays = read(body)
            kept.update(arrays)
            return (task, common), {**arrays, "noise": masking["noise"]}

        found = await self._service.answer(request, served, prepare)
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
        served.known(task)
        return served

    def _image(self, request: Request, served: Served, task: str) -> Prepare:
        """Makes pixel values of the image in a body."""
        kind = request.headers.get("content-type", "")

        def prepare(body: bytes) -> tuple[Kind, Arrays]:
            return (task, ()), {PIXELS: self._service.read(served, image_of(kind, body))[None]}

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
    vertex = tfserving.vertex()
    routes = [
        *People(service).routes(),
        *oip.OpenInference(service).routes(),
        *tfserving.TensorFlowServing(service, **vertex).routes(),
    ]
    app = Starlette(routes=routes, exception_handlers=REFUSALS)
    app.router.redirect_slashes = False
    guarded = Guard(Keyed(app, keys, (*HEALTH, vertex["health"])), port, service.limits.web, names)
    return Watched(guarded, service.figures)
