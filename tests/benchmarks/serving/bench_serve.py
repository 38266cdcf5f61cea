"""Speed of `vitriad serve` beside the bare model, a plain FastAPI loop and LitServe: `bench_serve.py [MODEL]`.

Every round asks each server in turn; figures are medians of the rounds. Read the ratios: times are this machine's.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from load import closed, opened
from model import ROWS, Model
from PIL import Image

from vit_core.config import ViTConfig
from vit_core.images.processor import ViTImageProcessor
from vit_core.parameters import draw
from vitriad.auto import model_class

PRESET, CLASS = "vit-base-patch16-224", "ViTForImageClassification"
PATHS = {"vitriad": "/classify", "fastapi": "/predict", "litserve": "/predict"}


def made(folder):
    """A ViT-B/16 at random, in a folder."""
    config = ViTConfig.preset(PRESET)
    model_class(CLASS, "torch").from_tensors(config, draw(config, CLASS, seed=0)).save_pretrained(folder)
    ViTImageProcessor(size=224).save_pretrained(folder)
    return str(folder)


def pictures(count):
    """JPEG files of 320 x 240 pixels."""
    random, files = np.random.default_rng(0), []
    for _ in range(count):
        file = BytesIO()
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        small.resize((320, 240)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def is_there(port, path, body):
    """Whether a server answers: it may listen before its model is loaded."""
    with suppress(OSError, RuntimeError, EOFError, StopIteration):
        closed(("127.0.0.1", port), path, [body], 1, 0)
        return True
    return False


@contextmanager
def running(which, model, path, body):
    """A server in a process of its own, once it answers; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name(f"{which}_server.py")), model, str(port)]
    if which == "vitriad":
        options = [
            "--backend",
            "torch",
            "--tasks",
            "classify",
            "--batch-size",
            str(ROWS),
            "--port",
            str(port),
            "--quiet",
        ]
        command = [sys.executable, "-m", "vitriad", "serve", f"bench={model}", *options]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # LitServe's workers too
    environment = {**os.environ, "PYTHONPATH": paths}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, env=environment)
    try:
        while not is_there(port, path, body):
            if process.poll() is not None:
                raise RuntimeError(f"{which} ended with {process.returncode}")
            time.sleep(0.2)
        yield "127.0.0.1", port
    finally:  # with its workers: LitServe leaves them
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def bare(model, bodies, seconds):
    """Images a second of the model in full batches, and the seconds from one file to its scores."""
    pixels = np.stack([model.read(bodies[i % len(bodies)]) for i in range(ROWS)])

    def repeated(job):
        job()
        end, times = time.perf_counter() + seconds, []
        while (begun := time.perf_counter()) < end:
            job()
            times.append(time.perf_counter() - begun)
        return float(np.median(times))

    one = repeated(lambda: model.answers(model.read(bodies[0])[None]))
    return ROWS / repeated(lambda: model.answers(pixels)), one


def measured(which, folder, bodies, rate, seconds):
    """Figures of one server in one round."""
    path = PATHS[which]
    if which == "litserve":  # which takes no plain bytes
        bodies = [json.dumps({"image": b64encode(body).decode()}).encode() for body in bodies]
    with running(which, folder, path, bodies[0]) as address:
        closed(address, path, bodies, 4, seconds / 2)
        _, one = closed(address, path, bodies, 1, seconds)
        many, _ = closed(address, path, bodies, ROWS, 2.5 * seconds)  # some full batches
        median, tail, failed = opened(address, path, bodies, rate, 1.5 * seconds)
    return one, many, median, tail, failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", help=f"checkpoint (a {PRESET} at random)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="with one client; with many 2.5 times as long")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    with tempfile.TemporaryDirectory() as scratch:
        folder, bodies = arguments.model or made(Path(scratch) / "model"), pictures(16)
        model, found, engines = Model(folder), {which: [] for which in PATHS}, []
        for number in range(arguments.rounds):
            engines.append(bare(model, bodies, arguments.seconds))
            for which in [*found][number % len(found) :] + [*found][: number % len(found)]:  # each comes first once
                rate = 0.7 * engines[-1][0]  # of what the engine can do
                found[which].append(measured(which, folder, bodies, rate, arguments.seconds))
    said = f"{PRESET} at random" if arguments.model is None else arguments.model
    print(f"{said}, torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.rounds} rounds\n")
    throughput, one = np.median(engines, axis=0)
    print("| | p50, 1 client | x bare call | images/s, 32 clients | of the engine | open loop p50 | p99 | failed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print(f"| bare model | {one * 1000:.1f} ms | 1 | {throughput:.1f} (batch {ROWS}) | 1 | | | |")
    for which, rows in found.items():
        first, many, median, tail, failed = np.median(rows, axis=0)
        ratio = np.median([row[0] / engine[1] for row, engine in zip(rows, engines, strict=True)])
        share = np.median([row[1] / engine[0] for row, engine in zip(rows, engines, strict=True)])
        times = f"{median * 1000:.0f} ms | {tail * 1000:.0f} ms | {failed:.0f}"
        print(f"| {which} | {first * 1000:.1f} ms | {ratio:.2f} | {many:.1f} | {share:.2f} | {times} |")


if __name__ == "__main__":
    main()
