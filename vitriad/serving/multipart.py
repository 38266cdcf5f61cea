"""The image in the body of a request: the whole of it, or the one file of a form."""

from __future__ import annotations

import re

from vitriad.web import Refusal

_BOUNDARY = re.compile(r'multipart/form-data\s*;\s*boundary=("?)([A-Za-z0-9\'()+_,./:=? -]{1,70})\1\s*', re.IGNORECASE)
_HEAD = 4096  # bytes of the lines before a file


def image_of(content_type: str, body: bytes) -> bytes:
    """The image in a body: of `multipart/form-data` its one part, as `curl -F image=@FILE` sends it, else all of it.

    A form of several parts, a text before the first or after the last, and a part in another encoding are refused, so
    that there is one way to read what is accepted.

    Raises:
        Refusal: such a form, or no image at all.
    """
    content = body
    if content_type.lower().startswith("multipart/"):
        content = _only_part(content_type, body)
    if not content:
        raise Refusal(422, "There is no image in the request.", "bad_image")
    return content


def _only_part(content_type: str, body: bytes) -> bytes:
    found = _BOUNDARY.fullmatch(content_type)
    if found is None:
        raise Refusal(415, "Expected multipart/form-data with a boundary.")
    line = b"--" + found[2].rstrip().encode()
    first, last = line + b"\r\n", b"\r\n" + line + b"--"
    end = len(body.removesuffix(b"\r\n")) - len(last)
    head = body.find(b"\r\n\r\n", 0, _HEAD)
    is_whole = body.startswith(first) and body.removesuffix(b"\r\n").endswith(last) and len(line) <= head <= end
    if not is_whole or body.find(b"\r\n" + line, head) != end:
        raise Refusal(400, "Expected a form with one part, the image.", "bad_form")
    lines = body[len(first) : head].lower()
    if b"content-transfer-encoding" in lines or b"content-disposition: form-data" not in lines:
        raise Refusal(400, "Expected a form with one part, the image.", "bad_form")
    return body[head + 4 : end]
