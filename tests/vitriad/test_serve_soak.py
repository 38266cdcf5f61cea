"""`vitriad serve` for a while, asked all kinds of things, good and bad, its models loaded anew: right, flat in memory.

Ten seconds every day, ten minutes by `make soak`.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from serving import ask

from vitriad import models

CLIENTS, RELOADS = 4, 5
MORE = 40  # megabytes that the last quarter may take beyond the second
CONTENT = models.digit_files()[6].read_bytes()
FILE = {"b64": b64encode(CONTENT).decode()}
PIXELS = np.zeros((1, 1, 16, 16)).tolist()
TENSOR = {"name": "pixel_values", "datatype": "FP32", "shape": [1, 1, 16, 16], "data": PIXELS}
REQUESTS = {  # what is asked -> its status
    ("/classify", CONTENT): 200,
    ("/embed?features=class_token,patch_mean", CONTENT): 200,
    ("/reconstruct?seed=3", CONTENT): 200,
    ("/v1/models/digits-vit:predict", json.dumps({"instances": [FILE] * 3}).encode()): 200,
    ("/v2/models/digits-vit/infer", json.dumps({"inputs": [TENSOR]}).encode()): 200,
    ("/metrics", None): 200,
    ("/classify", CONTENT[:100]): 422,
    ("/classify", b""): 422,
    ("/v1/models/digits-vit:predict", b'{"instances": [[[NaN]]]}'): 400,
    ("/v1/models/digits-vit:predict", json.dumps({"instances": [PIXELS]}).encode()): 422,
    ("/v2/models/no-such-model", None): 404,
}


class Client(threading.Thread):
    """Asks until it is told to stop; what was wrong is kept."""

    def __init__(self, port, seed):
        super().__init__()
        self.port, self.random, self.going, self.wrong, self.count = port, random.Random(seed), True, [], 0

    def run(self):
        while self.going and not self.wrong:
            (path, body), want = self.random.choice([*REQUESTS.items()])
            status, _, content = ask(self.port, path, body)
            is_right = status == want and (path != "/classify" or want != 200 or json.loads(content)["label"] == "3")
            self.wrong += [] if is_right else [(path, status, content[:200])]
            self.count += 1
            if self.random.random() < 0.05:  # and somebody hangs up in the middle
                with closing(socket.create_connection(("127.0.0.1", self.port), timeout=60)) as gone:
                    gone.sendall(
                        b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 9\r\n\r\nx" % self.port
                    )


def taken(process):
    """Megabytes, threads and open files of a process."""
    said = Path(f"/proc/{process.pid}/status").read_text()
    size, threads = (int(re.search(rf"^{name}:\s+(\d+)", said, flags=re.MULTILINE)[1]) for name in ("VmRSS", "Threads"))
    return size / 1024, threads, len(os.listdir(f"/proc/{process.pid}/fd"))


def soaked(process, port, seconds):
    """Figures of a process over time, and what clients say."""
    clients, samples = [Client(port, seed) for seed in range(CLIENTS)], []
    begun, reloads = time.monotonic(), 0
    for client in clients:
        client.start()
    try:
        while (passed := time.monotonic() - begun) < seconds:
            time.sleep(min(0.2, seconds / 50))
            samples.append(taken(process))
            if passed > (reloads + 0.5) * seconds / RELOADS:
                process.send_signal(signal.SIGHUP)
                reloads += 1
    finally:
        for client in clients:
            client.going = False
        for client in clients:
            client.join()
    return np.array(samples), clients, reloads


@pytest.mark.parametrize(
    "seconds", [10, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(900)])], ids="{}s".format
)
def test_it_stays_right_and_flat_in_memory(seconds):
    line = [sys.executable, "-m", "vitriad", "serve", "digits-vit", "digits-vit-mae", "--backend", INSTALLED[0]]
    line += ["--port", "0", "--batch-size", "4", "--quiet"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            samples, clients, reloads = soaked(process, port, seconds)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            said = process.stderr.read()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    assert [client.wrong for client in clients] == [[]] * CLIENTS
    assert reloads == RELOADS and said.count("loaded anew") >= 1 and "Traceback" not in said, said
    early, late = (
        np.median(samples[int(share * len(samples)) :][: len(samples) // 4], axis=0) for share in (0.25, 0.75)
    )
    count = sum(client.count for client in clients)
    print(f"{count} requests in {seconds} s, {reloads} times loaded anew; MB, threads, files: {early} {late}")
    np.testing.assert_array_less(late, early + np.array([MORE, 12, 20]))
