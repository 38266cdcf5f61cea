"""The server of `vitriad play`: what it answers, to whom, how much it takes, and how it ends."""

import base64
import io
import json
import re
import socket
import time
import zlib
from contextlib import ExitStack, suppress

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image
from serving import ask, serving, wait_for

from vit_core.config import pair
from vit_core.masking import noise
from vitriad import attend, drawing, explain, models
from vitriad.classify import predict, probabilities, read_pixels
from vitriad.playing.app import application
from vitriad.playing.players import TITLES, TOP, open_player
from vitriad.reconstruct import reconstruct
from vitriad.web import HEADERS, WebLimits, listen

THREE = next(file for file in models.digit_files() if file.name.startswith("3"))
LIMITS = WebLimits(body_bytes=300_000, image_pixels=1_000_000, head_seconds=1, pause_seconds=1, body_seconds=2)
SEEN, PAINTED = "/api/models/0/seen", "/api/models/1/painted"


@pytest.fixture(scope="module")
def players():
    """The models that come along, in every backend."""
    return [open_player(name) for name in models.NAMES]


@pytest.fixture(scope="module")
def port(players):
    with serving(lambda port: application(players, port, LIMITS), LIMITS) as number:
        yield number


def raw(port, sent):
    """Everything that a connection gives for some bytes, until the server closes it."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, suppress(ConnectionResetError):
        connection.sendall(sent)
        while part := connection.recv(65_536):
            got += part
    return got


def found(port, path, body=None):
    status, _, content = ask(port, path, body)
    assert status == 200, content
    return json.loads(content)


def said(port, path, body, status=422):
    got, _, content = ask(port, path, body)
    assert got == status, content
    return json.loads(content)["error"]["message"]


def drawn(url):
    """The pixels of a picture in an answer."""
    kind, _, text = url.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


# --- what it answers -------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_models_are(port):
    about = found(port, "/api/models")
    assert about["most_bytes"] == LIMITS.body_bytes
    backends = [TITLES[name] for name in INSTALLED]
    for each, name, kind in zip(about["models"], models.NAMES, ("classifier", "autoencoder"), strict=True):
        assert (each["name"], each["kind"], each["backends"], each["grid"]) == (name, kind, backends, [4, 4])
        assert len(each["examples"]) == len(models.digit_files())
    status, headers, content = ask(port, about["models"][0]["examples"][6]["url"])
    assert (status, headers["content-type"], content) == (200, "image/png", THREE.read_bytes())


def test_every_backend_gives_the_scores_that_its_model_gives(port, players):
    classes = found(port, SEEN, THREE.read_bytes())["classes"]
    player = players[0]
    pixels = read_pixels(THREE, player.processor, player.config)[None]
    logits = [predict(model, pixels) for model in player.answering.values()]
    want = np.stack([probabilities(each)[0] for each in logits])  # (backends, classes)
    order = np.argsort(-want[0], kind="stable")[:TOP]
    labels = [player.config.id2label[i] for i in order.tolist()]
    assert [row["label"] for row in classes["rows"]][:1] == labels[:1] == ["3"]
    assert {row["label"] for row in classes["rows"]} >= {*labels}
    got = np.array([row["scores"] for row in classes["rows"]]).T
    np.testing.assert_array_equal(got, want[:, [int(row["label"]) for row in classes["rows"]]])
    assert len(classes["milliseconds"]) == len(INSTALLED) and min(classes["milliseconds"]) > 0
    spread = None if len(logits) == 1 else max(float(np.abs(a - b).max()) for a in logits for b in logits)
    assert classes["difference"] == spread


@pytest.mark.parametrize("number", [0, 1])
def test_the_strip_holds_the_maps_that_attend_draws(port, players, number):
    answer = found(port, f"/api/models/{number}/seen", THREE.read_bytes())
    player, maps = players[number], answer["maps"]
    pixels = read_pixels(THREE, player.processor, player.config)
    attentions, tokens = attend.look(player.looking, pixels)
    heads = explain.class_maps(attentions)[:, 0]
    assert (maps["layers"], maps["heads"]) == heads.shape[:2]
    want = [explain.rollout(attentions)[0]]
    for layer in heads:
        want += [layer.mean(axis=0), *layer]
    strip = drawn(maps["strip"])
    np.testing.assert_array_equal(strip, np.concatenate([drawing.coloured(each) for each in want]))
    assert maps["peaks"] == [list(np.unravel_index(each.argmax(), (4, 4))) for each in want]
    colours = (explain.patch_pca(tokens)[0] * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(drawn(answer["features"]), colours)
    assert drawn(answer["picture"]).shape == (*pair(player.config.image_size), 3)


def test_an_autoencoder_paints_what_is_hidden(port):
    by_seed = found(port, f"{PAINTED}?seed=5&ratio=0.5", THREE.read_bytes())
    hidden = np.isin(np.arange(16), np.argsort(noise(5, 1, 16)[0], kind="stable")[8:])
    assert by_seed["removed"] == hidden.astype(int).tolist()
    text = "".join(map(str, by_seed["removed"]))
    by_hand = found(port, f"{PAINTED}?removed={text}", THREE.read_bytes())
    assert by_hand["removed"] == by_seed["removed"]
    np.testing.assert_allclose(
        drawn(by_hand["pictures"]["painted"]), drawn(by_seed["pictures"]["painted"]), atol=1
    )  # another order
    image, painted, pasted = (drawn(by_seed["pictures"][name]) for name in ("image", "painted", "pasted"))
    cells = np.kron(hidden.reshape(4, 4), np.ones((4, 4), bool))[..., None]
    np.testing.assert_array_equal(pasted, np.where(cells, painted, image))
    other = found(port, f"{PAINTED}?seed=6&ratio=0.5", THREE.read_bytes())
    assert other["removed"] != by_seed["removed"] and "pixel values" in other["note"]


def test_every_backend_paints_the_same(port, players):
    compared = found(port, "/api/models/1/compared?seed=5&ratio=0.5", THREE.read_bytes())
    player = players[1]
    pixels = read_pixels(THREE, player.processor, player.config)[None]
    ran = [reconstruct(each, pixels, **player.masking("5", "0.5", "")) for each in player.answering.values()]
    np.testing.assert_array_equal(compared["losses"], [loss for *_, loss in ran])
    np.testing.assert_allclose(compared["losses"], compared["losses"][0], rtol=1e-4)
    assert len(compared["milliseconds"]) == len(INSTALLED) and min(compared["milliseconds"]) > 0
    spread = None if len(ran) == 1 else max(float(np.abs(a - b).max()) for a, *_ in ran for b, *_ in ran)
    assert compared["difference"] == spread


QUERIES = {
    "removed=01": "expected 16 digits",
    f"removed={'2' * 16}": "expected 16 digits",
    f"removed={'1' * 16}": "mask: ",
    f"removed={'0' * 16}": "Nothing is hidden",
    "ratio=0": "Nothing is hidden",
    "ratio=1.5": "mask_ratio: ",
    "ratio=nan": "mask_ratio: ",
    "ratio=x": "expected numbers",
    "seed=-1": "seed: ",
    f"seed={'9' * 5000}": "expected numbers",
}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:20])
def test_a_query_that_makes_no_mask_is_refused(port, query):
    assert QUERIES[query] in said(port, f"{PAINTED}?{query}", THREE.read_bytes())


def test_what_is_not_there_is_not_found(port):
    for path in ("/api/models/2/seen", "/api/models/0/painted", "/api/models/9999999/painted", "/api/models/1/other"):
        assert said(port, path, THREE.read_bytes(), 404)
    for path in ("/nothing", "/../players.py", "/players.py", "/page.js/", "/digits/20.png", "/digits/x.png"):
        assert ask(port, path)[0] in (404, 307), path
    assert ask(port, SEEN)[0] == 405
    assert ask(port, method="DELETE")[0] == 405


# --- what it takes ---------------------------------------------------------------------------------------------------


def made(kind, size=(64, 64)):
    """An image file of a kind."""
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, kind)
    return file.getvalue()


BAD_FILES = {
    "nothing": b"",
    "text": b"hello",
    "a page": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "cut short": THREE.read_bytes()[:60],
    "another format": made("PPM"),
    "too many pixels": made("PNG", (1_001, 1_000)),
    "too long": made("PNG", (66_000, 1)),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_gets_a_message_for_people(port, kind):
    text = said(port, SEEN, BAD_FILES[kind])
    assert text.startswith("the image: ") and len(text.splitlines()) <= 3
    assert not re.search(r"0x|object at|Traceback", text)
    assert found(port, SEEN, THREE.read_bytes())["classes"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_is_taken(port, kind):
    assert found(port, SEEN, made(kind))["classes"]["rows"]
    assert said(port, SEEN, made(kind)[:-30] if kind == "PNG" else made(kind)[:20])


def test_the_limits_hold_at_the_limit(port):
    assert found(port, SEEN, made("PNG", (1_000, 1_000)))["picture"]
    fits = made("PNG").ljust(LIMITS.body_bytes, b"\0")
    assert found(port, SEEN, fits)["picture"]
    assert "0 MB" in said(port, SEEN, fits + b"\0", 413)
    assert "0 MB" in said(port, SEEN, iter([fits, b"\0"]), 413)  # in chunks, whose sum nobody announces


def test_compressed_and_oversized_requests_are_refused(port):
    assert ask(port, SEEN, THREE.read_bytes(), content_encoding="gzip")[0] == 415
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Long: %s\r\n\r\n" % (port, b"x" * 20 * LIMITS.head_bytes)
    assert raw(port, head)[:12] in (b"HTTP/1.1 400", b"")  # what is left unread may make a reset of the answer
    for head in (b"nonsense", b"GET / HTTP/1.1", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1"):
        assert raw(port, head + b"\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_slow_clients_are_left(port):
    line = f"POST {SEEN} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    assert raw(port, b"") == raw(port, line) == b""  # a head that never ends
    assert b"too slowly" in raw(port, line + b"Content-Length: 100\r\n\r\nabc")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:  # a byte at a time, for ever
        connection.sendall(line + b"Content-Length: 100000\r\n\r\n")
        with pytest.raises(OSError):
            while True:
                connection.sendall(b"a")
                time.sleep(0.2)
    assert found(port, SEEN, THREE.read_bytes())


def test_a_browser_that_hangs_up_does_no_harm(port, caplog):
    body = made("BMP", (400, 400))
    head = f"POST {SEEN} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for share in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall((head + body)[: len(head) + len(body) * share // 19])
    assert found(port, SEEN, body)["classes"]["rows"]
    assert [record.getMessage() for record in caplog.records] == []


def test_many_idle_connections_are_closed_after_a_while(port):
    line = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    with ExitStack() as sockets:
        for number in range(LIMITS.connections + 20):
            idle = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            with suppress(ConnectionResetError):
                idle.sendall(line[: number % len(line)])
        wait_for(lambda: ask(port)[0] == 200)


def test_damaged_requests_leave_the_server_as_it_was(port, caplog):
    random = np.random.default_rng(zlib.crc32(b"damaged requests"))
    body = THREE.read_bytes()
    head = f"POST {SEEN} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    statuses = set()
    for _ in range(300):
        request = bytearray(head + body)
        for place in random.integers(0, len(request), random.integers(0, 4)):
            request[place] = random.integers(0, 256)
        is_whole = random.random() < 0.5
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, suppress(ConnectionResetError):
            connection.sendall(request if is_whole else request[: random.integers(len(request))])
            if not is_whole:
                connection.shutdown(socket.SHUT_WR)
            statuses.add(connection.recv(1000)[9:12].decode())
    assert (
        {"", "200", "400", "422"}
        <= statuses
        <= {"", "200", "400", "403", "404", "405", "408", "413", "415", "421", "422", "505"}
    )
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    assert found(port, SEEN, body)["classes"]["rows"][0]["label"] == "3"


# --- to whom ---------------------------------------------------------------------------------------------------------

ASKING = {
    "another host": ({"Host": "evil.example:{port}"}, 421),
    "another port": ({"Host": "127.0.0.1:1"}, 421),
    "no port": ({"Host": "127.0.0.1"}, 421),
    "localhost": ({"Host": "localhost:{port}"}, 200),
    "a page of another site": ({"Origin": "https://evil.example"}, 403),
    "a page of another port": ({"Origin": "http://127.0.0.1:1"}, 403),
    "a page over TLS": ({"Origin": "https://127.0.0.1:{port}"}, 403),
    "a sandboxed page": ({"Origin": "null"}, 403),
    "its own page": ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, 200),
    "its own page as localhost": ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
    "an image of another site": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "another port of this machine": ({"Sec-Fetch-Site": "same-site"}, 403),
    "the address bar": ({"Sec-Fetch-Site": "none"}, 200),
}


@pytest.mark.parametrize("who", ASKING)
def test_only_its_own_page_and_programs_here_are_answered(port, who):
    headers, status = ASKING[who]
    headers = {name: value.format(port=port) for name, value in headers.items()}
    assert ask(port, "/api/models", **headers)[0] == status
    assert ask(port, SEEN, THREE.read_bytes(), **headers)[0] == status


def test_every_answer_is_strict(port):
    answers = [ask(port, path)[:2] for path in ("/", "/page.js", "/parts.js", "/page.css", "/icon.svg", "/nothing")]
    answers += [ask(port, Host="other")[:2], ask(port, SEEN, b"hello")[:2], ask(port, "/", method="OPTIONS")[:2]]
    assert [status for status, _ in answers] == [200, 200, 200, 200, 200, 404, 421, 422, 405]
    for _, headers in answers:
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert "server" not in headers and "access-control-allow-origin" not in headers
    policy = dict(part.split(" ", 1) for part in HEADERS["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(port):
    text = ask(port)[2].decode()
    assert {*re.findall(r'(?:src|href)="([^"]+)"', text)} == {"/page.js", "/page.css", "/icon.svg"}
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", text)
    script = ask(port, "/page.js")[2].decode() + ask(port, "/parts.js")[2].decode()
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", script)


def test_it_listens_on_this_machine_alone():
    with listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
