"""What the server says about its work: a name for each request, a line of its log, and figures for Prometheus."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("vitriad.requests")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # of a request, by its client
_METHODS = ("GET", "POST")


class Figures:
    """What is counted and measured; names as Prometheus has them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        text = "Requests that were answered"
        self.requests = Counter("vitriad_requests", text, ("method", "route", "status"), registry=registry)
        text = "Seconds from the head of a request to the end of its answer"
        self.seconds = Histogram("vitriad_request_seconds", text, ("route",), registry=registry)
        text, sizes = "Images of a call of a model", (1, 2, 4, 8, 16, 32, 64, 128)
        self.rows = Histogram("vitriad_batch_images", text, ("model", "version"), buckets=sizes, registry=registry)
        text = "Seconds of a call of a model"
        self.calls = Histogram("vitriad_batch_seconds", text, ("model", "version"), registry=registry)
        text = "Images that wait for a model"
        self.waiting = Gauge("vitriad_waiting_images", text, ("model", "version"), registry=registry)


class Watched:
    """Middleware: gives each request a name, logs it when it is done, and counts it.

    The name is that of `X-Request-Id`, if a client sends one of letters, digits, `_`, `.` and `-`; answers repeat it.

    Args:
        app: what is watched.
        figures: where it is counted.
    """

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self._app, self._figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        given, begun, status = Headers(scope=scope).get("x-request-id", ""), time.perf_counter(), 0
        name = given if _NAME.fullmatch(given) else uuid.uuid4().hex

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._note(scope, name, status or 499, time.perf_counter() - begun)

    def _note(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        """Logs and counts one request; of what a client makes up only the log has more than a few values."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("endpoint"), "__name__", "none")  # which Starlette notes here
        self._figures.requests.labels(method, route, str(status)).inc()
        self._figures.seconds.labels(route).observe(seconds)
        said = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": name,
            "client": (scope.get("client") or ["unknown"])[0],
            "method": method,
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
        }
        logger.info(json.dumps(said))  # escapes what is no ASCII, line ends too
