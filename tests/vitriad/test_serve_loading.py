"""`vitriad serve` while models are loaded, at first and anew without a lost request; a terminal that is closed; TLS."""

import json
import os
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from serving import PROMPT, ask, command_line, serving, started, wait_for

from vit_core import ViTConfig, ViTImageProcessor
from vit_core.parameters import draw
from vitriad import models
from vitriad.auto import model_class
from vitriad.serving.app import application
from vitriad.serving.loading import Loading, meanwhile
from vitriad.serving.observing import Figures
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service

CONTENT = models.digit_files()[6].read_bytes()
CERTIFICATE = Path(__file__).with_name("localhost.pem")
LIMITS = ServeLimits()
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.fixture
def folder(tmp_path):
    """A model that may be changed."""
    shutil.copytree(models.find("digits-vit"), tmp_path / "model")
    return tmp_path / "model"


def renamed(folder, label):
    """Gives the class that the image shows another name, in one step."""
    said = json.loads((folder / "config.json").read_text())
    said["id2label"]["3"] = label
    said["label2id"] = {name: int(number) for number, name in said["id2label"].items()}
    (folder / "new").write_text(json.dumps(said))
    os.replace(folder / "new", folder / "config.json")


class Lines:
    """What a stream says, read as it comes."""

    def __init__(self, stream):
        self.every = []
        self._thread = threading.Thread(target=lambda: self.every.extend(stream), daemon=True)
        self._thread.start()

    def has(self, text):
        return any(text in line for line in [*self.every])


def words_of(folder, *options):
    return (f"m={folder}", "--tasks", "classify", "--batch-size", "4", "--quiet", *options)


@contextmanager
def command(folder, *options, prompt=PROMPT):
    """The command in a process of its own, its port, and what it says."""
    with started("serve", *words_of(folder, *options), prompt=prompt) as (process, port):
        yield process, port, Lines(process.stderr)


# --- the first models ------------------------------------------------------------------------------------------------


def test_it_is_alive_and_not_ready_until_the_models_are_warm():
    go, figures, told, threads = threading.Event(), Figures(), [], []
    served = open_served("digits-vit", INSTALLED[0], tasks=("classify",))

    def make():
        threads.append(threading.current_thread())
        assert go.wait(60)
        return application(Service([served], LIMITS, figures))

    loading = Loading(make, meanwhile(figures, None, (), LIMITS.web), lambda: told.append("ready"), told.clear)
    with serving(lambda _: loading, LIMITS.web) as port:
        loading.begin()
        for path in ("/live", "/v2/health/live"):
            assert ask(port, path)[0] == 200
        for path, body in (("/ready", None), ("/v2/health/ready", None), ("/classify", CONTENT), ("/", None)):
            status, headers, content = ask(port, path, body)
            assert (status, headers["retry-after"], b"being loaded" in content) == (503, "1", True)
        assert ask(port, "/live", Host="evil.example")[0] == 421
        assert json.loads(ask(port, "/ready")[2])["error"]["code"] == "loading" and told == []
        go.set()
        wait_for(lambda: told == ["ready"])
        assert ask(port, "/ready")[0] == 200 and ask(port, "/classify", CONTENT)[0] == 200
        wait_for(lambda: not threads[0].is_alive())  # OpenMP's helpers of it would slow down every later call
        assert b'vitriad_requests_total{method="GET",route="live",status="200"} 2.0' in ask(port, "/metrics")[2]
    loading.end()


def test_it_can_be_stopped_while_models_are_loaded():
    slow = "import sys, time; from vitriad import cli, serve; serve._service = lambda *_: time.sleep(600)"
    words = ["-c", f"{slow}; sys.exit(cli.main())", "serve", "digits-vit", "--port", "0"]
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            port = int(re.search(r":(\d+)/live answers", process.stderr.readline())[1])
            assert ask(port, "/live")[0] == 200 and ask(port, "/ready")[0] == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_classifier_that_embeds_loads_its_encoder_once(monkeypatch):
    def fails(*_, **__):
        raise AssertionError("a second model")

    monkeypatch.setattr("vitriad.features.load_encoder", fails)
    served = open_served("digits-vit", INSTALLED[0])
    assert [*served.tasks] == ["classify", "embed"]
    monkeypatch.undo()
    from vitriad import Embedder

    own = Embedder("digits-vit", INSTALLED[0], features=("class_token", "patch_mean"))
    pixels = own.read(CONTENT)[None]
    found = served.tasks["embed"].run(pixel_values=pixels)
    for name, want in own({"pixel_values": pixels}).items():
        if name != "pixel_values":
            np.testing.assert_array_equal(found[name], want)


def test_a_model_without_a_class_token_embeds_the_mean_of_its_patches(tmp_path):
    config = ViTConfig(**TINY, image_size=8, patch_size=4, use_class_token=False, use_mean_pooling=True)
    cls = "ViTForImageClassification"
    model_class(cls, INSTALLED[0]).from_tensors(config, draw(config, cls, seed=0)).save_pretrained(tmp_path)
    ViTImageProcessor(size=8).save_pretrained(tmp_path)
    (returned,) = open_served(f"m={tmp_path}", INSTALLED[0]).tasks["embed"].returns
    assert returned.name == "patch_mean"


# --- models anew -----------------------------------------------------------------------------------------------------


class Client:
    """Asks again and again, and keeps what it was told."""

    def __init__(self, port):
        self.port, self.going, self.told = port, True, []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while self.going:
            status, _, content = ask(self.port, "/classify", CONTENT)
            self.told.append((status, json.loads(content).get("label")))

    def has(self, label):
        return (200, label) in [*self.told]


@contextmanager
def clients(port, count=4):
    every = [Client(port) for _ in range(count)]
    try:
        yield every
    finally:
        for each in every:
            each.going = False
        for each in every:
            each.thread.join()


def test_models_are_loaded_anew_without_a_lost_request(folder):
    with command(folder) as (process, port, said), clients(port) as every:
        for label in ("three", "drei"):
            wait_for(lambda: all(each.told for each in every))
            renamed(folder, label)
            process.send_signal(signal.SIGHUP)
            wait_for(lambda label=label: all(each.has(label) for each in every))
    told = {answer for each in every for answer in each.told}
    assert told == {(200, "3"), (200, "three"), (200, "drei")}
    for each in every:  # each of the models after the one before
        order = [label for _, label in each.told]
        assert order == sorted(order, key=["3", "three", "drei"].index)
    assert said.has("vitriad: loaded anew")


def test_models_that_cannot_be_loaded_anew_change_nothing(folder):
    whole = (folder / "config.json").read_bytes()
    with command(folder) as (process, port, said), clients(port, 2) as every:
        (folder / "config.json").write_text("{")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: said.has("not loaded anew, the models stay as they are: "))
        (folder / "config.json").write_bytes(whole)
        renamed(folder, "three")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: all(each.has("three") for each in every))
    assert {answer for each in every for answer in each.told} == {(200, "3"), (200, "three")}
    assert not said.has("Traceback")


OF_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def test_a_terminal_that_is_closed_ends_it(folder):
    terminal, other = pty.openpty()
    line = [sys.executable, "-c", OF_A_TERMINAL, *command_line("serve", *words_of(folder))]
    streams = {"stdin": other, "stdout": other, "stderr": other, "start_new_session": True}
    with subprocess.Popen(line, **streams) as process:
        os.close(other)
        try:
            text = b""
            for said in (b"SIGHUP loads the models anew", b"vitriad: loaded anew"):
                while said not in text:
                    text += os.read(terminal, 10_000)
                process.send_signal(signal.SIGHUP)  # by hand: it goes on
            port = int(re.search(rb"127\.0\.0\.1:(\d+)/\r\n", text)[1])
            assert ask(port, "/ready")[0] == 200
            os.close(terminal)
            assert process.wait(60) == 0
        finally:
            process.kill()


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_it_speaks_tls(folder, tmp_path):
    options = ("--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE))
    with command(folder, *options, prompt=PROMPT.replace("http", "https")) as (_, port, _):
        knows = ssl.create_default_context(cafile=CERTIFICATE)
        request = urllib.request.Request(f"https://localhost:{port}/classify", CONTENT)
        with urllib.request.urlopen(request, context=knows, timeout=60) as answer:
            assert json.loads(answer.read())["label"] == "3"
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/ready", context=knows, timeout=60) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(request, context=ssl.create_default_context(), timeout=60)
        with pytest.raises(OSError):  # plain text is not answered
            ask(port, "/ready")
