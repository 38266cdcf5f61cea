"""API keys of the server: where they are read, and who is let in."""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from vit_core.errors import InputError
from vitriad.web import Refusal

VARIABLE = "VITRIAD_SERVE_KEY"
_SHORTEST = 16  # characters


def read_keys(file: str | None) -> list[str]:
    """The keys in a file, one on a line, or in the environment variable VITRIAD_SERVE_KEY; none if there is neither.

    Raises:
        InputError: the file cannot be read, holds none, or a key is easily guessed.
    """
    if file is None:
        given, name = os.environ.get(VARIABLE, ""), VARIABLE
    else:
        try:
            given, name = Path(file).read_text(encoding="utf-8"), file
        except (OSError, UnicodeDecodeError) as problem:
            raise InputError(f"--key-file {file}: {problem}.") from None
    keys = given.split()
    if not keys and file is not None:
        raise InputError(f"--key-file {file}: no key in it.")
    if any(len(key) < _SHORTEST or not key.isascii() for key in keys):
        raise InputError(f"{name}: a key needs {_SHORTEST} ASCII characters or more: openssl rand -hex 32")
    return keys


class Keyed:
    """Middleware: lets requests through that carry a key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.

    Args:
        app: what is kept.
        keys: that are known; without any, every request is let through.
        open_paths: what needs none: asking whether the server is well.
    """

    def __init__(self, app: ASGIApp, keys: Collection[str], open_paths: Collection[str]) -> None:
        self._app, self._open = app, frozenset(open_paths)
        self._keys = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if self._keys and scope["path"] not in self._open and not self._is_known(Headers(scope=scope)):
            text = "Give a key: Authorization: Bearer KEY, or X-API-Key: KEY."
            raise Refusal(401, text, www_authenticate="Bearer", connection="close")
        await self._app(scope, receive, send)

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        digest = _digest(given.strip())
        # every key is compared, and digests of one length: the time says nothing
        return sum(hmac.compare_digest(digest, key) for key in self._keys) > 0


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
