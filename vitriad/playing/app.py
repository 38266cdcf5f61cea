"""The web application of `vitriad play`: the page, and what it asks of the models. Nothing of a request is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vit_core.limits import LIMITS
from vitriad.models import FOLDER, digit_files, find
from vitriad.playing.players import Player
from vitriad.web import REFUSALS, Guard, WebLimits, Workroom

_FOLDER = Path(__file__).with_name("page")
_FILES = {"": "index.html", **{name: name for name in ("page.js", "parts.js", "page.css", "icon.svg")}}  # by path


def application(players: Sequence[Player], port: int, limits: WebLimits) -> ASGIApp:
    """The page for some models, guarded.

    Args:
        players: the models; requests name them by their number.
        port: that the server listens on.
        limits: on requests.
    """
    pages = _Pages(players, limits)
    routes = [
        *(Route(f"/{path}", pages.file, name=name) for path, name in _FILES.items()),
        Route("/digits/{number:int}.png", pages.digit),
        Route("/api/models", pages.models),
        Route("/api/models/{number:int}/seen", pages.seen, methods=["POST"]),
        Route("/api/models/{number:int}/{what:str}", pages.hidden, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes, exception_handlers=REFUSALS), port, limits)


class _Pages:
    """What answers the requests."""

    def __init__(self, players: Sequence[Player], limits: WebLimits) -> None:
        self._players, self._limits, self._room = players, limits, Workroom(limits)
        bounds = {"image_file_bytes": limits.body_bytes, "image_pixels": limits.image_pixels}
        self._image_limits = replace(LIMITS, **bounds)

    async def file(self, request: Request) -> Response:
        """A file of the page."""
        return FileResponse(_FOLDER / _FILES[request.url.path.removeprefix("/")])

    async def digit(self, request: Request) -> Response:
        """One of the scans that come with vitriad."""
        files = digit_files()
        if request.path_params["number"] >= len(files):
            raise HTTPException(404)
        return FileResponse(files[request.path_params["number"]])

    async def models(self, request: Request) -> Response:
        """What the models are, and what a file may weigh."""
        digits = [{"url": f"/digits/{i}.png", "label": file.name[0]} for i, file in enumerate(digit_files())]
        models = [
            {**each.about(), "examples": digits if Path(find(each.name)).parent == FOLDER else []}
            for each in self._players
        ]
        return JSONResponse({"models": models, "most_bytes": self._limits.body_bytes})

    async def seen(self, request: Request) -> Response:
        """What a model sees in the image that is the body of the request."""
        player, content = self._player(request), await request.body()
        return JSONResponse(
            await self._room.run(request, lambda: player.seen(player.read(content, self._image_limits)))
        )

    async def hidden(self, request: Request) -> Response:
        """What an autoencoder makes of the image without the patches that the query names: `painted` or `compared`."""
        player, content = self._player(request), await request.body()
        answers = {"painted": player.painted, "compared": player.compared}
        answer = answers.get(request.path_params["what"])
        if answer is None or player.kind != "autoencoder":
            raise HTTPException(404, "This model does not do that.")
        seed, ratio, removed = (request.query_params.get(name, "") for name in ("seed", "ratio", "removed"))
        masking = player.masking(seed, ratio, removed)
        return JSONResponse(
            await self._room.run(request, lambda: answer(player.read(content, self._image_limits), masking))
        )

    def _player(self, request: Request) -> Player:
        """The model that a request names.

        Raises:
            HTTPException: there is none of that number.
        """
        number: int = request.path_params["number"]
        if number >= len(self._players):
            raise HTTPException(404, "There is no such model.")
        return self._players[number]
