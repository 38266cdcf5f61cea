"""`vitriad play` and `vitriad serve` as processes: how they end, and what they say where they cannot begin."""

import re
import signal
import socket
from contextlib import suppress
from importlib.util import find_spec

import pytest
from serving import ask, begun, started

from vitriad import cli, models, play, serve
from vitriad.web import listen

CONTENT = models.digit_files()[6].read_bytes()
PATHS = {"play": "/api/models/0/seen", "serve": "/classify"}
WORDS = {"play": ("digits-vit",), "serve": ("digits-vit", "--tasks", "classify")}
TOLD = {
    "play": (),
    "serve": (
        *("digits-vit version 1: classify; ", "up to 32 images at a time"),
        '"path": "/classify", "status": 200',
    ),
}
COMMANDS = pytest.mark.parametrize("verb", PATHS)


@pytest.mark.parametrize(
    ("verb", "number"), [("play", signal.SIGINT), ("play", signal.SIGTERM), ("serve", signal.SIGTERM)]
)
def test_it_ends_well_and_answers_what_it_has_taken(verb, number):
    with started(verb, *WORDS[verb]) as (process, port):
        with begun(port, PATHS[verb], len(CONTENT), CONTENT[:100]) as late:
            assert ask(port, {"play": "/", "serve": "/ready"}[verb])[0] == 200
            process.send_signal(number)
            with pytest.raises(OSError):  # nothing new is taken
                while True:
                    socket.create_connection(("127.0.0.1", port), timeout=60).close()
            late.sendall(CONTENT[100:])
            assert late.recv(1000).split()[1] == b"200"
        assert process.wait(60) == 0
        told = process.stderr.read()
    assert "Traceback" not in told and all(text in told for text in TOLD[verb])


def test_after_a_kill_it_comes_back_on_the_same_port():
    words = WORDS["serve"]
    with started("serve", *words) as (process, port), begun(port, "/classify", len(CONTENT), CONTENT[:100]) as late:
        process.kill()
        process.wait(60)
        with suppress(ConnectionResetError):
            assert late.recv(1000) == b""
    with started("serve", *words, port=port) as (_, again):
        assert again == port and ask(port, "/classify", CONTENT)[0] == 200


@COMMANDS
def test_a_port_that_is_taken_is_named_before_a_model_is_loaded(verb, capsys, monkeypatch):
    for loads in ("vitriad.playing.players.open_player", "vitriad.serving.served.open_served"):
        monkeypatch.setattr(loads, None)
    with listen(0) as listening:
        port = listening.getsockname()[1]
        assert cli.main([verb, "digits-vit", "--port", str(port)]) == 1
    assert re.search(rf"--port {port}: .*in use.\n--port 0 takes", capsys.readouterr().err)
    assert cli.main([verb, "digits-vit", "--port", "70000"]) == 1


@COMMANDS
def test_what_is_missing_is_named_with_the_command_that_brings_it(verb, capsys, monkeypatch):
    module, missing = {"play": (play, "uvicorn"), "serve": (serve, "prometheus_client")}[verb]
    monkeypatch.setattr(module, "find_spec", lambda name: find_spec(name) if name != missing else None)
    assert cli.main([verb, "digits-vit"]) == 1
    said = capsys.readouterr().err
    assert re.search(rf"{verb}: needs {missing}\.\nInstall it with: pip install .*\[{verb}\]", said)
