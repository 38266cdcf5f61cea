"""Models that are loaded while the server listens: at first, and anew without a lost request."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Collection

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vit_core.errors import VitError
from vitriad.serving.observing import Figures, Watched
from vitriad.web import REFUSALS, Guard, Refusal, WebLimits

_PATIENCE = 2  # seconds for what is being loaded when the server ends
ALIVE = ("/live", "/v2/health/live")  # what answers from the first moment on


class Loading:
    """The application of the models as they were loaded last; until the first are there, one that says so.

    A request is answered by the application that it came to. Another one takes its place in one step, once its models
    are warm; the old models go when the last of their requests is answered. Both are in memory for that time.

    Args:
        make: loads the models, and gives their application; each time in a thread that ends with it.
        meanwhile: the application until then.
        ready: is called once the first models answer.
        fail: is called if they cannot be loaded.

    Attributes:
        is_loaded: whether there are models.
        problem: why the first models could not be loaded.
    """

    def __init__(
        self, make: Callable[[], ASGIApp], meanwhile: ASGIApp, ready: Callable[[], None], fail: Callable[[], None]
    ) -> None:
        self._make, self._app, self._ready, self._fail = make, meanwhile, ready, fail
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loading", daemon=True)
        self.is_loaded = self._is_over = False
        self.problem: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await self._app(scope, receive, send)

    def begin(self) -> None:
        """Loads the first models."""
        self._wanted.set()
        self._thread.start()

    def again(self) -> None:
        """Loads the models anew; if that is under way, once more after it."""
        self._wanted.set()

    def end(self) -> None:
        """Loads no more. Ends the process if models are being loaded: nothing else stops a framework that is at it."""
        self._is_over = True
        self._wanted.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            sys.stdout.flush()
            os._exit(0)

    def _work(self) -> None:
        while self.problem is None and self._wanted.wait() and not self._is_over:
            self._wanted.clear()
            # In a thread that ends: OpenMP keeps helpers for every thread that has called a model. If these outnumber
            # the cores, they sleep between two parts of a call, and every later call pays for waking them.
            load = threading.Thread(target=self._load, name="load", daemon=True)
            load.start()
            load.join()
            gc.collect()  # the models of before, which refer to one another

    def _load(self) -> None:
        """Loads models; where there are some already, they stay if that fails."""
        was_loaded = self.is_loaded
        try:
            self._app, self.is_loaded = self._make(), True
            if not was_loaded:
                self._ready()
        except Exception as problem:
            if was_loaded:
                said = str(problem) if isinstance(problem, VitError | OSError) else repr(problem)
                print(f"vitriad: error: not loaded anew, the models stay as they are: {said}", file=sys.stderr)
            else:
                self.problem = problem
                self._fail()
        else:
            if was_loaded:
                print("vitriad: loaded anew", file=sys.stderr)


def meanwhile(figures: Figures, port: int, names: Collection[str] | None, limits: WebLimits) -> ASGIApp:
    """What answers while the first models are loaded: that the server is alive, and not ready.

    Args:
        figures: what is measured.
        port: as for `vitriad.serving.app.application`, like `names`.
        names: other hosts that requests may name.
        limits: on requests.
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def loading(_: Request) -> Response:
        raise Refusal(503, "The models are being loaded.", "loading", retry_after="1")

    routes = [*(Route(path, live) for path in ALIVE), Route("/{path:path}", loading, methods=["GET", "POST"])]
    app = Starlette(routes=routes, exception_handlers=REFUSALS)
    return Watched(Guard(app, port, limits, names), figures)
