"""Hostile clients of `vitriad serve`: each is refused or left, the server stays up, and the next answer is right."""

import io
import json
import os
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image
from serving import ask, serving, wait_for

from vitriad import models
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import WebLimits

CONTENT = models.digit_files()[6].read_bytes()
WEB = WebLimits(body_bytes=2_000_000, image_pixels=1_000_000, head_seconds=1, pause_seconds=1, body_seconds=2)
LIMITS = ServeLimits(WEB, BatchLimits(rows=8))


@pytest.fixture(scope="module")
def service():
    return Service([open_served("digits-vit", INSTALLED[0])], LIMITS)


@pytest.fixture(scope="module")
def port(service):
    with serving(lambda port: application(service, port=port), LIMITS.web) as number:
        yield number


@pytest.fixture(scope="module")
def right(port):
    """What every good request is answered."""
    return ask(port, "/classify", CONTENT)[2]


def sent(port, content, half_closed=False):
    """What comes back for some bytes until the server closes the connection, or nothing more comes."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, suppress(OSError):
        connection.sendall(content.replace(b"PORT", str(port).encode()))
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65_536):
            got += part
    return got


def head(line, *headers, host=True, end=b"\r\n\r\n"):
    lines = [line, *([b"Host: 127.0.0.1:PORT"] if host else []), *headers]
    return b"\r\n".join(lines) + end


def post(*headers, body=b"", path=b"/classify"):
    return head(b"POST " + path + b" HTTP/1.1", *headers) + body


def length(body):
    return b"Content-Length: %d" % len(body)


GET = b"GET /live HTTP/1.1"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
RAW = {
    # two readings of where a request ends
    "length and chunks": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 40", body=SMUGGLED),
    "a list of lengths": post(b"Content-Length: 0, 40", body=SMUGGLED),
    "length with a sign": post(b"Content-Length: +5", body=b"12345"),
    "length below nothing": post(b"Content-Length: -1"),
    "length in hexadecimal": post(b"Content-Length: 0x5", body=b"12345"),
    "no length": post(b"Content-Length: "),
    "length of other digits": post(b"Content-Length: \xd9\xa5", body=b"12345"),
    "length with a space": post(b"Content-Length: 5 5", body=b"12345"),
    "length of a million digits": post(b"Content-Length: " + b"9" * 10_000),
    "length of an exabyte": post(b"Content-Length: 1000000000000000000"),
    "chunks that are hidden": post(b"Transfer-Encoding: xchunked", b"Content-Length: 0", body=SMUGGLED),
    "chunks behind a tab": post(b"Transfer-Encoding:\tchunked, identity", body=b"0\r\n\r\n"),
    "chunks twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks of gzip": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "a name with a space": post(b"Transfer-Encoding : chunked", b"Content-Length: 0", body=SMUGGLED),
    "a chunk below nothing": post(CHUNKED, body=b"-1\r\nabc\r\n0\r\n\r\n"),
    "a chunk without end": post(CHUNKED, body=b"FFFFFFFFFFFFFFFFFFFFFF\r\nabc\r\n"),
    "a chunk of text": post(CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk that is longer": post(CHUNKED, body=b"2\r\nabcdef\r\n0\r\n\r\n"),
    "an extension without end": post(CHUNKED, body=b"1;" + b"x" * 40_000 + b"\r\na\r\n0\r\n\r\n"),
    "trailers without end": post(CHUNKED, body=b"0\r\n" + b"x: y\r\n" * 10_000 + b"\r\n"),
    "a trailer that is a length": post(CHUNKED, body=b"1\r\na\r\n0\r\nContent-Length: 99\r\n\r\n"),
    "a folded line": head(GET, b"X: a\r\n b", b"Connection: close"),
    "a line feed alone": GET + b"\nHost: 127.0.0.1:PORT\nConnection: close\n\n",
    "a carriage return in a value": head(GET, b"X: a\rTransfer-Encoding: chunked"),
    "a null in a value": head(GET, b"X: a\0b"),
    "a null in a name": head(GET, b"X\0: a"),
    "a line without a colon": head(GET, b"nonsense"),
    "a name that is empty": head(GET, b": a"),
    # request lines and hosts
    "HTTP/0.9": b"GET /live\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /live HTTP/1.0\r\n\r\n",
    "HTTP/2.0 in advance": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": head(b"GET /live HTTP/9.9"),
    "a word for a version": head(b"GET /live HTTP/one"),
    "no path": head(b"GET  HTTP/1.1"),
    "a space in the path": head(b"GET /li ve HTTP/1.1"),
    "a tab in the path": head(b"GET /li\tve HTTP/1.1"),
    "a null in the path": head(b"GET /li\0ve HTTP/1.1"),
    "other bytes in the path": head(b"GET /\xff\xfe HTTP/1.1"),
    "a long path": head(b"GET /" + b"a" * 100_000 + b" HTTP/1.1"),
    "a long query": head(b"GET /live?" + b"a" * 100_000 + b" HTTP/1.1"),
    "a long method": head(b"A" * 100_000 + b" /live HTTP/1.1"),
    "a method of signs": head(b"G(T /live HTTP/1.1"),
    "an address for a path": head(b"GET http://evil.example/metrics HTTP/1.1", b"Connection: close"),
    "a proxy's request": head(b"CONNECT evil.example:443 HTTP/1.1"),
    "every resource": head(b"OPTIONS * HTTP/1.1", b"Connection: close"),
    "TRACE": head(b"TRACE /live HTTP/1.1", b"Connection: close"),
    "two hosts": head(GET, b"Host: evil.example"),
    "no host": head(GET, host=False),
    "another host": head(GET, b"Host: evil.example", host=False),
    "a host with a user": head(GET, b"Host: 127.0.0.1:PORT@evil.example", host=False),
    "a host with a path": head(GET, b"Host: 127.0.0.1:PORT/x", host=False),
    "another page": head(GET, b"Origin: http://evil.example"),
    "a long header": head(GET, b"X: " + b"x" * 100_000),
    "many headers": head(GET, *[b"X%d: y" % i for i in range(20_000)]),
    # what a body may not be
    "gzip": post(b"Content-Encoding: gzip", length(CONTENT), body=CONTENT),
    "brotli": post(b"Content-Encoding: br", length(CONTENT), body=CONTENT),
    "identity": post(b"Content-Encoding: identity", length(CONTENT), body=CONTENT),
    "too long": post(b"Content-Length: 2000001"),
    "chunks that are too long": post(CHUNKED, body=b"%x\r\n" % 2_000_001 + bytes(2_000_001) + b"\r\n0\r\n\r\n"),
    "a body that ends early": post(b"Content-Length: 5000", body=CONTENT),
    "a body that never comes": post(b"Content-Length: 5000"),
    "a head that never ends": b"GET /live HTTP/1.1\r\nX: ",
    "nothing": b"",
    # other protocols
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "SOCKS": bytes.fromhex("050100"),
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a database": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "mail": b"EHLO evil.example\r\nMAIL FROM:<a@b>\r\n",
    "line ends alone": b"\r\n" * 50_000,
    "noise": np.random.default_rng(zlib.crc32(b"noise")).bytes(20_000),
}
ANSWERED = ("a folded line", "a line feed alone")  # as RFC 9112 lets a server


@pytest.mark.parametrize("kind", RAW)
def test_bytes_that_are_no_request_of_ours(port, right, kind):
    got = sent(port, RAW[kind])
    status = got[9:12].decode()
    known = ("200",) if kind in ANSWERED else ()
    assert status in (*known, "", "400", "403", "404", "405", "408", "413", "415", "421", "422", "431", "501", "505"), (
        got[:300]
    )
    assert got.count(b"HTTP/1.1 ") <= 1, "what was smuggled was answered"
    assert b"vitriad_requests" not in got and b"Traceback" not in got
    assert ask(port, "/classify", CONTENT)[2] == right


PATHS = (
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2fetc%2fpasswd",
    "//etc/passwd",
    "/classify/../live",
)
PATHS += (
    "/%00",
    "/live%00",
    "/live%0d%0aX:%20y",
    "/live;x",
    "/./live",
    "/LIVE",
    "/v1/models/..%2f..:predict",
    "/\\..\\etc",
)
PATHS += (
    "/v2/models/%2e%2e%2fdigits-vit",
    "/v2/models/digits-vit%2f",
    "/v1/models//versions/1",
    "/static/x",
    "/%ff%fe",
    "/{}",
)


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(port, right, path):
    got = sent(port, head(b"GET " + path.encode() + b" HTTP/1.1", b"Connection: close"))
    assert got[9:12] == b"404" and b"root:" not in got
    assert ask(port, "/classify", CONTENT)[2] == right


def test_requests_in_one_piece_are_answered_in_order(port, right):
    one = post(length(CONTENT), body=CONTENT)
    last = post(length(CONTENT), b"Connection: close", body=CONTENT)
    assert sent(port, one * 5 + last).count(right) == 6
    got = sent(port, one + RAW["two lengths"])
    assert got.count(right) == 1 and got.count(b"HTTP/1.1 400") == 1
    assert sent(port, post(length(CONTENT), body=CONTENT), half_closed=True).count(right) <= 1


def png(*chunks):
    blocks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(blocks)


def made(kind, size=(64, 64), mode="L", **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def header(width, height, depth=8, colours=0):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)


BOMB = zlib.compress(bytes(50_000_000), 9)
IMAGES = {
    "a picture of 10 gigapixels": png(header(100_000, 100_000), (b"IDAT", BOMB), (b"IEND", b"")),
    "a picture of 2^31 columns": png(header(2**31 - 1, 1), (b"IDAT", BOMB), (b"IEND", b"")),
    "a picture of no columns": png(header(0, 10), (b"IDAT", BOMB), (b"IEND", b"")),
    "text that unpacks to 50 MB": png(header(10, 10), (b"zTXt", b"a\0\0" + BOMB), (b"IDAT", b"x"), (b"IEND", b"")),
    "a profile that unpacks to 50 MB": png(header(10, 10), (b"iCCP", b"a\0\0" + BOMB), (b"IDAT", b"x"), (b"IEND", b"")),
    "a chunk without end": b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT",
    "a wrong sum": made("PNG")[:-20] + bytes(20),
    "one pixel too much": made("PNG", (1001, 1000)),
    "a line": made("PNG", (70_000, 1)),
    "half a JPEG": made("JPEG", (500, 500))[:400],
    "half a GIF": made("GIF")[:20],
    "half a TIFF": made("TIFF")[:60],
    "half a WebP": made("WEBP")[:20],
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "XPM": b'/* XPM */ static char *x[] = {"1 1 1 1", "a c red", "a"};',
    "a page": b"<!doctype html><script>alert(1)</script>",
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "an archive": b"PK\x03\x04" + bytes(100),
    "a path": b"/etc/passwd",
    "an address": b"http://127.0.0.1/x.png",
    "nulls": bytes(100_000),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_pictures_that_are_none(port, right, kind):
    status, _, content = ask(port, "/classify", IMAGES[kind])
    assert (status, json.loads(content)["error"]["code"]) in ((422, "bad_image"), (413, "too_large")), content
    assert ask(port, "/classify", CONTENT)[2] == right


JSON = {
    "nothing": b"",
    "a null": b"null",
    "half a text": b'{"instances": "',
    "deep lists": b'{"instances": ' + b"[" * 500_000,
    "deep objects": b'{"a":' * 200_000,
    "a number of a million digits": b'{"instances": [' + b"9" * 1_000_000 + b"]}",
    "an exponent": b'{"instances": [[[1e999]]]}',
    "NaN": b'{"instances": [[[NaN]]]}',
    "infinity": b'{"instances": [[[-Infinity]]]}',
    "UTF-16": '{"instances": []}'.encode("utf-16"),
    "a mark of order": b"\xef\xbb\xbf" + b'{"instances": []}',
    "other bytes": b'{"instances": ["\xff\xfe"]}',
    "half a character": b'{"instances": ["\\ud800"]}',
    "a hundred thousand names": json.dumps({f"a{i}": 1 for i in range(100_000)}).encode(),
    "a hundred thousand instances": json.dumps({"instances": [0] * 100_000}).encode(),
    "a name of a megabyte": json.dumps({"a" * 1_000_000: 1}).encode(),
    "names of Python": b'{"instances": [{"__class__": "x", "__init__": []}]}',
    "text behind": b'{"instances": []} x',
    "a comment": b'{"instances": [] /* x */}',
}


@pytest.mark.parametrize("kind", JSON)
def test_json_that_is_none_or_too_much(port, right, kind):
    for path in ("/v1/models/digits-vit:predict", "/v2/models/digits-vit/infer"):
        status, _, content = ask(port, path, JSON[kind])
        assert status in (400, 413, 422), content[:200]
        assert {*json.loads(content)} == {"error", "code"} and len(content) < 2000
    assert ask(port, "/classify", CONTENT)[2] == right


def test_there_are_a_hundred_of_them():
    assert len(RAW) + len(PATHS) + len(IMAGES) + len(JSON) >= 120


def test_slow_clients_do_not_keep_others_waiting(port, right):
    with ExitStack() as sockets:
        for number in range(100):
            slow = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            slow.sendall(post(b"Content-Length: 500").replace(b"PORT", str(port).encode())[: 20 + number])
        wait_for(lambda: ask(port, "/classify", CONTENT)[2] == right)


# --- the long part: make hostile -------------------------------------------------------------------------------------


def memory():
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.hostile
@pytest.mark.timeout(1200)
def test_ten_thousand_connections_leave_nothing_behind(port, right):
    def one(number):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            whole = post(length(CONTENT), body=CONTENT).replace(b"PORT", str(port).encode())
            connection.sendall(whole[: number % len(whole)])
            if number % 3 == 0:
                time.sleep(0.05)

    with ThreadPoolExecutor(50) as clients:
        list(clients.map(one, range(1000)))
        before = memory()
        list(clients.map(one, range(10_000)))
    wait_for(lambda: ask(port, "/classify", CONTENT)[2] == right)
    assert memory() - before < 50_000_000


@pytest.mark.hostile
@pytest.mark.timeout(1200)
def test_damaged_requests_leave_the_server_as_it_was(port, right, caplog):
    random = np.random.default_rng(zlib.crc32(b"damaged requests of serve"))
    inputs = json.dumps({"instances": np.zeros((1, 3, 16, 16)).tolist()}).encode()
    bodies = {b"/classify": CONTENT, b"/v1/models/digits-vit:predict": inputs, b"/v2/models/digits-vit/infer": inputs}
    for number in range(3000):
        path = [*bodies][number % 3]
        request = bytearray(
            post(length(bodies[path]), path=path, body=bodies[path]).replace(b"PORT", str(port).encode())
        )
        for place in random.integers(0, len(request), random.integers(0, 4)):
            request[place] = random.integers(0, 256)
        got = sent(port, bytes(request), half_closed=True)
        assert got[9:12] not in (b"500", b"502", b"503"), bytes(request)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    assert ask(port, "/classify", CONTENT)[2] == right
