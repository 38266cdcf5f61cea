"""The work behind `vitriad play`: who waits for it, what is given up, and how the command begins and ends."""

import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest
from backends import INSTALLED
from serving import ask, serving, wait_for
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from vit_core.limits import LIMITS as LIMITS_OF_IMAGES
from vitriad import cli, models
from vitriad.playing.players import open_player
from vitriad.web import REFUSALS, Guard, WebLimits, Workroom

THREE = next(file for file in models.digit_files() if file.name.startswith("3"))
SEEN = "/api/models/0/seen"


# --- work ------------------------------------------------------------------------------------------------------------


class Slow:
    """An application whose work takes until it is let go."""

    def __init__(self, port, limits):
        self.begun, self.go, self.room = [], threading.Event(), Workroom(limits)
        routes = [Route("/{name}", self.answer), Route("/bad/{name}", self.bad)]
        self.app = Guard(Starlette(routes=routes, exception_handlers=REFUSALS), port, limits)

    async def answer(self, request):
        def work():
            self.begun.append(request.path_params["name"])
            self.go.wait(60)
            return "done"

        return JSONResponse(await self.room.run(request, work))

    async def bad(self, request):
        raise RuntimeError("secret")


@contextmanager
def slow(**limits):
    limits, apps = WebLimits(**limits), []
    with serving(lambda port: apps.append(Slow(port, limits)) or apps[0].app, limits) as port:
        try:
            yield port, apps[0]
        finally:
            apps[0].go.set()


def send(sockets, port, app, name):
    """A connection whose request waits for the model."""
    before = len(app.room._jobs)
    connection = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    connection.sendall(f"GET /{name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    wait_for(lambda: len(app.room._jobs) == before + 1)
    return connection


def test_a_few_wait_and_more_are_sent_away():
    with slow(waiting=2) as (port, app), ExitStack() as sockets:
        waiting = [send(sockets, port, app, name) for name in "abc"]
        status, headers, content = ask(port, "/d")
        assert (status, headers["retry-after"]) == (503, "1") and b"busy" in content
        app.go.set()
        assert [each.recv(1000).split()[1] for each in waiting] == [b"200"] * 3
        assert app.begun == ["a", "b", "c"]


def test_more_connections_than_allowed_are_sent_away():
    with slow(connections=3) as (port, _), ExitStack() as sockets:
        for _ in range(2):
            sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        assert ask(port, "/a")[0] == 503


def test_what_nobody_waits_for_is_not_begun():
    with slow(waiting=2) as (port, app), ExitStack() as sockets:
        first, gone, last = [send(sockets, port, app, name) for name in "abc"]
        gone.close()
        wait_for(lambda: sum(each.cancelled() for each in app.room._jobs) == 1)
        app.go.set()
        assert first.recv(1000).split()[1] == last.recv(1000).split()[1] == b"200"
        assert app.begun == ["a", "c"]


def test_a_request_that_takes_too_long_is_given_up():
    with slow(request_seconds=0.5) as (port, _):
        status, _, content = ask(port, "/a")
        assert status == 503 and b"too long" in content


def test_a_failure_of_ours_is_said_without_its_text(caplog):
    with slow() as (port, _):
        status, headers, content = ask(port, "/bad/a")
    assert (status, b"secret" in content, headers["x-frame-options"]) == (500, False, "DENY")
    assert "secret" in caplog.text


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["--threads", "2"], ["--backend", "onnx"]])
def test_options_of_programs_are_refused_for_checkpoints(options, capsys):
    assert cli.main(["play", "digits-vit", "--port", "0", *options]) == 1
    assert "program" in capsys.readouterr().err


def test_a_model_without_a_trained_head_shows_its_features(tmp_path):
    from vitriad import AutoModel

    AutoModel.from_pretrained("digits-vit", INSTALLED[0]).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes(
        (models.FOLDER / "digits-vit" / "preprocessor_config.json").read_bytes()
    )
    player = open_player(str(tmp_path))
    assert (player.kind, player.about()["backends"], player.about()["name"]) == ("encoder", [], tmp_path.name)
    answer = player.seen(player.read(THREE.read_bytes(), LIMITS_OF_IMAGES))
    assert {*answer} == {"picture", "maps", "features"}
