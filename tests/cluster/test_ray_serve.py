"""`vitriad serve` as a deployment of Ray Serve: two replicas on a local Ray, one of them killed under load."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from serving import ask, wait_for

from vit_core.errors import InputError
from vitriad import models
from vitriad.classify import read_pixels
from vitriad.serving.served import open_served
from vitriad.web import listen

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

MARK = "VITRIAD_TEST_OF_RAY"  # in the environment of our processes: theirs and no others are killed
FILES = [file.read_bytes() for file in models.digit_files()]
CLIENTS = 8
CONFIG = """
http_options: {{host: 127.0.0.1, port: {port}}}
applications:
  - name: digits
    route_prefix: /
    import_path: vitriad.ray_serve:app
    args: {{models: "{models}", min_replicas: 2, max_replicas: 2, cpus: 0.5}}
"""


@pytest.fixture(scope="module")
def scores():
    """For each file the score of the best class."""
    served = open_served("digits-vit", INSTALLED[0], tasks=("classify",))
    pixels = np.stack([read_pixels(file, served.processor, served.config) for file in FILES])
    found = served.tasks["classify"].run(pixel_values=pixels)["probabilities"]
    return found.max(axis=1)


@contextmanager
def running(folder):
    """The port of `serve run`, once it is ready, and what marks its processes."""
    with listen(0) as free:
        port = free.getsockname()[1]
    line = f"digits-vit --backend {INSTALLED[0]} --tasks classify --quiet"
    (folder / "serve.yaml").write_text(CONFIG.format(port=port, models=line))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), MARK: str(folder)}
    with (folder / "log").open("w") as log:
        command = [Path(sys.executable).with_name("serve"), "run", folder / "serve.yaml"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def is_ready():
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError):
            return ask(port, "/ready")[0] == 200

    try:
        wait_for(is_ready, 300)
        yield port, str(folder)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def replicas(mark):
    """Replicas of the run that has this mark: process ids."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            is_replica = (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica")
            if is_replica and f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


class Client:
    """Asks again and again, one request at a time, and counts what it gets."""

    def __init__(self, port, scores, number):
        self.port, self.scores, self.number, self.right, self.lost, self.going = port, scores, number, 0, [], True

    def run(self):
        while self.going:
            self.number = (self.number + 1) % len(FILES)
            try:
                status, _, content = ask(self.port, "/classify", FILES[self.number])
            except OSError as problem:
                status, content = type(problem).__name__, b""
            if status == 200:
                np.testing.assert_allclose(json.loads(content)["score"], self.scores[self.number], atol=1e-5)
                self.right += 1
            else:
                self.lost.append(status)


def test_a_replica_that_is_killed_under_load_costs_no_more_than_it_was_at(tmp_path, scores):
    with running(tmp_path) as (port, mark), ThreadPoolExecutor(CLIENTS) as threads:
        wait_for(lambda: len(replicas(mark)) == 2, 300)
        clients = [Client(port, scores, number) for number in range(CLIENTS)]
        jobs = [threads.submit(client.run) for client in clients]
        try:
            wait_for(lambda: min(client.right for client in clients) >= 10, 300)
            first, second = replicas(mark)
            os.kill(first, signal.SIGKILL)
            before = [client.right for client in clients]
            wait_for(lambda: len({*replicas(mark)} - {first}) == 2, 300)  # it comes back
            wait_for(lambda: all(client.right > old + 10 for client, old in zip(clients, before, strict=True)), 300)
        finally:
            for client in clients:
                client.going = False
        for job in jobs:
            job.result()
        assert second in replicas(mark)
        assert max(len(client.lost) for client in clients) <= 1, [client.lost for client in clients]
        assert {status for client in clients for status in client.lost} <= {500, 503}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, of pydantic
def test_arguments_are_checked_before_a_replica_is_made():
    from vitriad.ray_serve import app

    with pytest.raises(
        InputError, match="expected some of models, min_replicas, max_replicas, cpus, gpus, got 'model'"
    ):
        app({"model": "digits-vit"})
    with pytest.raises(SystemExit):
        app({"models": "--no-such-option"})
