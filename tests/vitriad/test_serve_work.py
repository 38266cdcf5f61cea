"""The work behind `vitriad serve`: overload, draining, a kill, and how the command begins."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from backends import INSTALLED
from serving import ask, begun, serving, wait_for

from vit_core.errors import InputError
from vitriad import cli, models, serve
from vitriad.naming import named
from vitriad.options import make_parser
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.keys import VARIABLE, read_keys
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import listen

CONTENT = models.digit_files()[6].read_bytes()


@pytest.fixture(scope="module")
def served():
    return open_served("digits-vit", INSTALLED[0], tasks=("classify",))


class Held:
    """A model whose calls wait until they are let go, or fail."""

    def __init__(self, served, fails=0):
        self.go, self.calls, self.fails = threading.Event(), [], fails
        task = served.tasks["classify"]
        self.served = replace(served, tasks={"classify": task._replace(run=self.run)}, compiles=False)
        self.answer = task.run

    def run(self, **arrays):
        self.calls.append(len(arrays["pixel_values"]))
        self.go.wait(60)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the device is lost")
        return self.answer(**arrays)


@contextmanager
def holding(served, fails=0, **batch):
    held = Held(served, fails)
    limits = ServeLimits(batch=BatchLimits(**batch))
    service = Service([held.served], limits)
    with serving(lambda port: application(service, port=port), limits.web) as port:
        try:
            yield port, held, next(iter(service._batchers.values()))
        finally:
            held.go.set()


def test_overload_is_told_at_once_and_what_was_taken_is_answered(served):
    with holding(served, rows=2, waiting=4) as (port, held, batcher), ThreadPoolExecutor(40) as clients:
        first = clients.submit(ask, port, "/classify", CONTENT)
        wait_for(lambda: held.calls)
        taken = []
        for count in range(1, 5):
            taken.append(clients.submit(ask, port, "/classify", CONTENT))
            wait_for(lambda count=count: batcher.waiting == count)
        assert ask(port, "/ready")[0] == 503 and ask(port, "/live")[0] == 200
        for status, headers, content in clients.map(lambda _: ask(port, "/classify", CONTENT), range(30)):
            assert (status, json.loads(content)["error"]["code"]) == (429, "busy")
            assert 1 <= int(headers["retry-after"]) <= 60
        held.go.set()
        assert [each.result()[0] for each in [first, *taken]] == [200] * 5
        assert held.calls == [1, 2, 2] and ask(port, "/ready")[0] == 200


def test_a_model_that_fails_answers_and_goes_on(served, caplog):
    with holding(served, fails=1) as (port, held, _):
        held.go.set()
        status, _, content = ask(port, "/classify", CONTENT)
        assert (status, json.loads(content)["error"]["code"], b"device" in content) == (500, "model_failed", False)
        assert ask(port, "/classify", CONTENT)[0] == 200
    assert "the device is lost" in caplog.text


def test_a_client_that_hangs_up_is_not_worked_for(served):
    with holding(served, rows=1) as (port, held, batcher), ThreadPoolExecutor(2) as clients:
        first = clients.submit(ask, port, "/classify", CONTENT)
        wait_for(lambda: held.calls)
        with begun(port, "/classify", len(CONTENT), CONTENT):
            wait_for(lambda: batcher.waiting == 1)
        wait_for(lambda: batcher.waiting == 0)
        held.go.set()
        assert first.result()[0] == 200 and held.calls == [1]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_factory_reads_its_command_line_from_the_environment(monkeypatch):
    monkeypatch.setenv(serve.OPTIONS, f"a@3=digits-vit --backend {INSTALLED[0]} --tasks classify --quiet")
    app = serve.create_app()
    with serving(lambda _: app, ServeLimits().web) as port:
        found = json.loads(ask(port, "/classify", CONTENT)[2])
    assert (found["model"], found["version"], found["label"]) == ("a", "3", "3")


WRONG = {
    ("a b=digits-vit",): "expected NAME=MODEL",
    ("a@x=digits-vit",): "expected NAME=MODEL",
    ("digits-vit", "digits-vit"): "two models are digits-vit version 1",
    ("digits-vit", "--tasks", "reconstruct"): "can do nothing of: reconstruct",
    ("digits-vit", "--threads", "2"): "exported programs",
    ("digits-vit", "--queue", "3", "--batch-size", "4"): "does not fit in",
    ("digits-vit", "--tls-cert", "x.pem"): "needs both",
    ("digits-vit", "--key-file", "no-such-file"): "--key-file no-such-file",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_command_line_that_cannot_be_served(words, capsys):
    assert cli.main(["serve", *words, "--port", "0", "--backend", INSTALLED[0]]) == 1
    assert WRONG[words] in capsys.readouterr().err


def test_short_answers_are_sent_at_once():
    """Without TCP_NODELAY the body waits for the client to confirm the head, which takes Linux 40 ms."""

    async def delays():
        met = asyncio.get_running_loop().create_future()
        with listen(0) as listening:
            async with await asyncio.start_server(lambda _, writer: met.set_result(writer), sock=listening):
                _, client = await asyncio.open_connection(*listening.getsockname())
                writer = await met
                client.close()
                writer.close()
                return writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(delays())


def test_names_of_models(tmp_path):
    assert named("digits-vit") == ("digits-vit", "1", "digits-vit")
    assert named("owner/vit-b.safetensors") == ("vit-b", "1", "owner/vit-b.safetensors")
    assert named("b@12=owner/x") == ("b", "12", "owner/x")
    folder = tmp_path / "lr=3"
    folder.mkdir()
    with pytest.raises(InputError, match="expected NAME=MODEL"):
        named(str(folder))


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_keys(None) == []
    monkeypatch.setenv(VARIABLE, "e" * 16)
    assert read_keys(None) == ["e" * 16]
    file = tmp_path / "keys"
    file.write_text(f"{'a' * 16}\n{'b' * 20}\n")
    assert read_keys(str(file)) == ["a" * 16, "b" * 20]
    for content, said in (("", "no key"), ("short", "16 ASCII"), ("ü" * 20, "16 ASCII")):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read_keys(str(file))


def test_beyond_this_machine_it_warns_without_a_key(capsys):
    serve._say_beyond("0.0.0.0", [])
    assert "--key-file" in capsys.readouterr().err
    for host, keys in (("127.0.0.1", []), ("0.0.0.0", ["k" * 16])):
        serve._say_beyond(host, keys)
    assert capsys.readouterr().err == ""


def test_vertex_says_where_to_listen(monkeypatch):
    parse = make_parser().parse_args
    assert serve._address(parse(["serve", "digits-vit"])) == ("127.0.0.1", 8000)
    monkeypatch.setenv("AIP_HTTP_PORT", "8080")
    assert serve._address(parse(["serve", "digits-vit"])) == ("0.0.0.0", 8080)
    assert serve._address(parse(["serve", "digits-vit", "--host", "::1", "--port", "0"])) == ("::1", 0)
    monkeypatch.setenv("AIP_HTTP_PORT", "x")
    with pytest.raises(InputError, match="AIP_HTTP_PORT"):
        serve._address(parse(["serve", "digits-vit"]))


def test_bfloat16_and_other_dtypes_of_pixels(served):
    pixels = np.zeros((1, *served.tasks["classify"].takes[0].shape[1:]), np.float16)
    assert served.checked(pixels, "classify").dtype == np.float32
    bad = {"float32": "expected float32, got uint8", "nan": "finite", "rank": "expected", "empty": "expected"}
    cases = {
        "float32": pixels.astype(np.uint8),
        "nan": np.full_like(pixels, np.nan),
        "rank": pixels[0],
        "empty": pixels[:0],
    }
    for name, case in cases.items():
        with pytest.raises(InputError, match=bad[name]):
            served.checked(case, "classify")
