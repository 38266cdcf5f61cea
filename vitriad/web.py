"""Serving a web application safely: who may ask, how much, how long, and an end that loses nothing.

A page of any site that is open in a browser can send requests to 127.0.0.1, so being local is no protection: `Guard`
answers those alone that name this address and come from its own page or from no page at all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Collection
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

from vit_core.errors import ImageError, InputError, VitError

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
    held_bytes: int = 400_000_000  # bodies of all requests that are in work
    head_bytes: int = 16_384
    image_pixels: int = 40_000_000
    connections: int = 64
    waiting: int = 4  # jobs beside the one in work
    head_seconds: float = 10  # until the head of a request is whole
    pause_seconds: float = 10  # between two pieces of a body
    body_seconds: float = 30  # until the body is whole
    request_seconds: float = 120  # until the response is sent
    drain_seconds: int = 20  # for requests in work when the server is told to stop


# --- what is refused -------------------------------------------------------------------------------------------------

_CODES = {  # by status, where a refusal has none of its own
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_type",
    421: "other_host",
    422: "bad_input",
    429: "busy",
    431: "too_large",
    503: "busy",
    504: "deadline",
    505: "bad_request",
}
_FLAT = ("/v1/", "/v2/")  # protocols whose clients expect a text as "error"


class Refusal(HTTPException):
    """Why a request is not answered: a status, a code for programs that never changes, and a text for people."""

    def __init__(self, status: int, text: str, code: str = "", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, text, named or None)
        self.code = code or _CODES[status]


def _closing(status: int, text: str, code: str = "", **headers: str) -> Refusal:
    """A refusal after which the connection ends, since the rest of the request is not read."""
    return Refusal(status, text, code, connection="close", **headers)


def _said(path: str, problem: HTTPException) -> Response:
    """A refusal as JSON, in the form of the protocol that a path belongs to."""
    code = getattr(problem, "code", None) or _CODES.get(problem.status_code, "refused")
    text = problem.detail
    error: Any = {"error": text, "code": code}
    error = error if path.startswith(_FLAT) else {"error": {"code": code, "message": text}}
    return JSONResponse(error, problem.status_code, problem.headers)


def _refused(request: Request, problem: Exception) -> Response:
    """The answer to a request that cannot be done: what was wrong with it, for people."""
    if isinstance(problem, ClientDisconnect):
        return Response(status_code=499)  # which nobody reads
    if isinstance(problem, ImageError):
        problem = Refusal(422, str(problem), "bad_image")
    elif isinstance(problem, VitError):
        problem = Refusal(422, str(problem))
    elif not isinstance(problem, HTTPException):
        problem = Refusal(500, "The server failed; it has printed why.", "failed")
    return _said(request.url.path, problem)


REFUSALS = dict.fromkeys((HTTPException, ClientDisconnect, VitError, Exception), _refused)  # `exception_handlers=`


# --- who may ask, how much and how long ------------------------------------------------------------------------------


class Guard:
    """Middleware: refuses requests of other sites, bounds their bodies and their time, and adds `HEADERS`.

    Args:
        app: what is guarded.
        port: that the server listens on; None for that of each connection.
        limits: the bounds.
        names: hosts that requests may name beside this machine itself, whatever the port; None for every host.
    """

    def __init__(self, app: ASGIApp, port: int | None, limits: WebLimits, names: Collection[str] | None = ()) -> None:
        self._app, self._port, self._limits, self._names = app, port, limits, names
        self._held = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        has_begun = False
        body = _Body(receive, self._limits, self._hold)

        async def guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check(scope)
            async with asyncio.timeout(self._limits.request_seconds):
                await self._app(scope, body.receive, guarded)
        except HTTPException as problem:
            await _said(scope["path"], problem)(scope, receive, guarded)
        except TimeoutError:
            if not has_begun:
                late = _closing(503, "This took too long, and was given up.", "too_long")
                await _said(scope["path"], late)(scope, receive, guarded)
        finally:
            self._held -= body.got

    def _check(self, scope: Scope) -> None:
        """Raises HTTPException unless a request may be answered, before anything of it is used."""
        headers = Headers(scope=scope)
        if scope["http_version"] not in ("1.0", "1.1"):
            raise _closing(505, "This server speaks HTTP/1.1.")
        head = sum(len(name) + len(value) for name, value in scope["headers"])
        if head + len(scope["raw_path"]) + len(scope["query_string"]) > self._limits.head_bytes:
            raise _closing(431, f"The head of the request is larger than {self._limits.head_bytes} bytes.")
        if "transfer-encoding" in headers and "content-length" in headers:  # who forwards it may read it otherwise
            raise _closing(400, "A request has a length or comes in chunks, not both.")
        host = headers.get("host", "")
        if not self._is_ours(host, scope):
            raise _closing(421, "This server has other names. Where its port is forwarded, keep the number.")
        origin = headers.get("origin")
        is_own = origin is None or origin == f"{scope['scheme']}://{host}"
        if not is_own or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise _closing(403, "Requests of other pages are refused.")
        if "content-encoding" in headers:
            raise _closing(415, "Compressed requests are refused.")
        if int(headers.get("content-length", "0")) > self._limits.body_bytes:  # h11 lets nothing but digits through
            raise _too_large(self._limits)

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Whether a request names this server."""
        if self._names is None or host.lower() in self._names or host.lower().rpartition(":")[0] in self._names:
            return True
        port = self._port or scope["server"][1]
        own = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        if port == (443 if scope["scheme"] == "https" else 80):  # browsers leave it out
            own |= {ADDRESS, "localhost"}
        return host in own

    def _hold(self, count: int) -> None:
        """Counts bytes that a request holds until its end.

        Raises:
            HTTPException: all requests together hold too many.
        """
        self._held += count
        if self._held > self._limits.held_bytes:
            raise _closing(503, "Too much is sent at once. Try again in a moment.", "busy", retry_after="1")


class _Body:
    """The body of a request, which ends the request when it gets too long or comes too slowly.

    Attributes:
        got: how many bytes have come.
    """

    def __init__(self, receive: Receive, limits: WebLimits, hold: Callable[[int], None]) -> None:
        self._receive, self._limits, self._hold = receive, limits, hold
        self._end = asyncio.get_running_loop().time() + limits.body_seconds
        self._is_whole = False
        self.got = 0

    async def receive(self) -> Message:
        """The next message, of ASGI."""
        if self._is_whole:  # what comes now says that the client is gone
            return await self._receive()
        pause = asyncio.get_running_loop().time() + self._limits.pause_seconds
        try:
            async with asyncio.timeout_at(min(self._end, pause)):
                message = await self._receive()
        except TimeoutError:
            raise _closing(408, "The file came too slowly.") from None
        count = len(message.get("body", b""))
        self.got += count
        self._hold(count)
        self._is_whole = not message.get("more_body", False)
        if self.got > self._limits.body_bytes:
            raise _too_large(self._limits)
        return message


def _too_large(limits: WebLimits) -> HTTPException:
    return _closing(413, f"The file is larger than {limits.body_bytes // 1_000_000} MB.")


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
            raise Refusal(503, "The model is busy. Try again in a moment.", retry_after="1")
        future = self._thread.submit(job)
        self._jobs.add(future)
        return await while_connected(request, asyncio.wrap_future(future))


async def while_connected(request: Request, awaited: Awaitable[Answer]) -> Answer:
    """What is awaited for a request whose body was read; it is cancelled when nobody waits for it any more.

    Raises:
        ClientDisconnect: the client has gone.
    """
    work = asyncio.ensure_future(awaited)
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
    listening = bind(ADDRESS, port)
    try:
        listening.listen()
    except OSError as problem:  # another one that was bound, and listens now
        listening.close()
        raise InputError(f"--port {port}: {problem.strerror}.") from None
    return listening


def bind(host: str, port: int) -> socket.socket:
    """A socket for an address, which refuses connections until somebody listens there.

    Raises:
        InputError: the port is taken or not ours to take, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only on sockets that name TCP; on others a short answer waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as problem:
        bound.close()
        said = problem.strerror if isinstance(problem, OSError) else "there is no such port"
        raise InputError(f"--port {port}: {said}.\n--port 0 takes one that is free.") from None
    return bound


def serve(running: uvicorn.Server, listening: socket.socket, hang_up: Callable[[], None] | None = None) -> None:
    """Runs a server until SIGINT or SIGTERM; requests in work are then finished first.

    Args:
        running: the server.
        listening: where.
        hang_up: called on SIGHUP. A terminal that is closed sends it too: then the server ends.
    """
    # uvicorn sends itself the signal again when all is done; for a server that is no failure
    handlers: dict[int, Any] = {signal.SIGINT: _nothing, signal.SIGTERM: _nothing}
    if hang_up is not None:
        is_attended = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()  # as nohup sets it

        def hung_up(*_: Any) -> None:
            if is_attended and not _has_terminal():
                running.should_exit = True
            else:
                hang_up()

        handlers[signal.SIGHUP] = hung_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        running.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def server(app: ASGIApp, limits: WebLimits, **options: Any) -> uvicorn.Server:
    """What serves an application; it ends when its `should_exit` is set.

    Args:
        **options: of uvicorn, such as ssl_certfile.
    """
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
        **options,
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
