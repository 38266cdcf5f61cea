"""Serving a web application to this machine alone: who may ask, how much, how long, and an end that loses nothing.

A page of any site that is open in a browser can send requests to 127.0.0.1, so being local is no protection: `Guard`
answers those alone that name this address and come from its own page or from no page at all.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import h11
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from vit_core.errors import InputError, VitError

ADDRESS = "127.0.0.1"
HEADERS = {  # of every response
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class WebLimits:
    """Bounds on what a client may ask for; only code can raise them. Units: those of the names, counts otherwise."""

    body_bytes: int = 20_000_000
    head_bytes: int = 16_384
    image_pixels: int = 40_000_000
    connections: int = 64
    waiting: int = 4  # jobs beside the one in work
    head_seconds: float = 10  # until the head of a request is whole
    pause_seconds: float = 10  # between two pieces of a body
    body_seconds: float = 30  # until the body is whole
    request_seconds: float = 120  # until the response is sent
    drain_seconds: int = 20  # for requests in work when the server is told to stop


# --- who may ask, how much and how long ------------------------------------------------------------------------------


class Guard:
    """Middleware: refuses requests of other sites, bounds their bodies and their time, and adds `HEADERS`.

    Args:
        app: what is guarded.
        port: that the server listens on.
        limits: the bounds.
    """

    def __init__(self, app: ASGIApp, port: int, limits: WebLimits) -> None:
        self._app, self._limits = app, limits
        self._hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        if port == 80:  # browsers leave it out
            self._hosts |= {ADDRESS, "localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        has_begun = False

        async def guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check(Headers(scope=scope))
            async with asyncio.timeout(self._limits.request_seconds):
                await self._app(scope, self._bounded(receive), guarded)
        except HTTPException as problem:
            await _said(problem)(scope, receive, guarded)
        except TimeoutError:
            if not has_begun:
                await _said(_closing(503, "This took too long, and was given up."))(scope, receive, guarded)

    def _check(self, headers: Headers) -> None:
        """Raises HTTPException unless a request may be answered, before anything of it is used."""
        if headers.get("host", "") not in self._hosts:
            names = " or ".join(sorted(self._hosts))
            raise _closing(421, f"This server answers to {names} alone. Where its port is forwarded, keep the number.")
        origin = headers.get("origin")
        is_own = origin is None or (origin.startswith("http://") and origin.removeprefix("http://") in self._hosts)
        if not is_own or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise _closing(403, "Requests of other pages are refused.")
        if "content-encoding" in headers:
            raise _closing(415, "Compressed requests are refused.")
        if int(headers.get("content-length", "0")) > self._limits.body_bytes:  # h11 lets nothing but digits through
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        """`receive`, which ends the request when its body gets too long or comes too slowly."""
        loop, got, is_whole = asyncio.get_running_loop(), 0, False
        end = loop.time() + self._limits.body_seconds

        async def bounded() -> Message:
            nonlocal got, is_whole
            if is_whole:  # what comes now says that the client is gone
                return await receive()
            try:
                async with asyncio.timeout_at(min(end, loop.time() + self._limits.pause_seconds)):
                    message = await receive()
            except TimeoutError:
                raise _closing(408, "The file came too slowly.") from None
            got += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if got > self._limits.body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> HTTPException:
        return _closing(413, f"The file is larger than {self._limits.body_bytes // 1_000_000} MB.")


def _closing(status: int, text: str) -> HTTPException:
    """A refusal after which the connection ends, since the rest of the request is not read."""
    return HTTPException(status, text, {"connection": "close"})


def _said(problem: HTTPException) -> Response:
    return JSONResponse({"error": problem.detail}, problem.status_code, problem.headers)


def _refused(_: Request, problem: Exception) -> Response:
    """The answer to a request that cannot be done: what was wrong with it, for people."""
    if isinstance(problem, HTTPException):
        return _said(problem)
    if isinstance(problem, ClientDisconnect):
        return Response(status_code=499)  # which nobody reads
    if isinstance(problem, VitError):
        return JSONResponse({"error": str(problem)}, 422)
    return JSONResponse({"error": "The server failed; it has printed why."}, 500)


REFUSALS = dict.fromkeys((HTTPException, ClientDisconnect, VitError, Exception), _refused)  # `exception_handlers=`


# --- work ------------------------------------------------------------------------------------------------------------


class Workroom:
    """One thread for the work of all requests: a few may wait, and what nobody waits for any more is not begun.

    Args:
        limits: how many may wait.
    """

    def __init__(self, limits: WebLimits) -> None:
        self._thread, self._limits = ThreadPoolExecutor(1, "work"), limits
        self._jobs: set[Future[Any]] = set()

    async def run(self, request: Request, job: Callable[[], Answer]) -> Answer:
        """What a job returns, for a request whose body was read.

        Raises:
            HTTPException: too many are waiting.
            ClientDisconnect: the client has gone.
        """
        self._jobs = {each for each in self._jobs if not each.done()}
        if len(self._jobs) > self._limits.waiting:
            raise HTTPException(503, "The model is busy. Try again in a moment.", {"retry-after": "1"})
        future = self._thread.submit(job)
        self._jobs.add(future)
        work = asyncio.ensure_future(asyncio.wrap_future(future))
        gone = asyncio.ensure_future(_disconnection(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return work.result()
        finally:
            work.cancel()  # of what is in work nothing, of what waits the wish
            gone.cancel()


async def _disconnection(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- the server ------------------------------------------------------------------------------------------------------


def listen(port: int) -> socket.socket:
    """A socket that listens on this machine alone; of port 0 on one that is free.

    Raises:
        InputError: the port is taken, or not ours to take.
    """
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ADDRESS, port))
        listening.listen()
    except (OSError, OverflowError) as problem:
        listening.close()
        said = problem.strerror if isinstance(problem, OSError) else "there is no such port"
        raise InputError(f"--port {port}: {said}.\n--port 0 takes one that is free.") from None
    return listening


def serve(app: ASGIApp, listening: socket.socket, limits: WebLimits) -> None:
    """Serves an application until SIGINT or SIGTERM; requests in work are then finished first."""
    # uvicorn sends itself the signal again when all is done; for a server that is no failure
    before = {number: signal.signal(number, _nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server(app, limits).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server(app: ASGIApp, limits: WebLimits) -> uvicorn.Server:
    """What serves an application; it ends when its `should_exit` is set."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_impatient(limits.head_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=limits.drain_seconds,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    return uvicorn.Server(config)


def _nothing(*_: Any) -> None:
    pass


def _impatient(head_seconds: float) -> type[H11Protocol]:
    """HTTP/1.1 of uvicorn, which itself waits for ever for the head of a request."""

    class Impatient(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def _wait(self) -> None:
            """Gives the head of a request its time from the connection on, or from the first byte on."""
            is_head = self.conn.their_state is h11.IDLE
            if is_head and self._waiting is None:
                self._waiting = self.loop.call_later(head_seconds, self.transport.abort)
            elif not is_head and self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Impatient
