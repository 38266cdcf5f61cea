"""`vitriad embed` of images with bad ones among them, killed and started again: equal to a run that nothing stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

from vitriad import models
from vitriad.feature_files import read_features

DIGITS = models.digit_files()


def bad_images(good):
    """Twelve kinds of files that are no image: a maker for each, of the path and the bytes of a good one."""

    def link(path):
        path.symlink_to(path.with_name("nowhere.png"))

    def pipe(path):
        os.mkfifo(path)

    def long(path):
        Image.new("L", (1, 70_000)).save(path)

    def bomb(path):
        header = bytearray(good)
        header[16:24] = (60000).to_bytes(4, "big") * 2  # width and height of a PNG; its checksum is wrong too
        path.write_bytes(header)

    contents = {
        "empty": b"",
        "cut": good[:60],
        "text": b"<html>not found</html>",
        "zeros": bytes(5000),
        "magic": good[:8],
        "gif": b"GIF89a" + bytes(20),
        "pdf": b"%PDF-1.7\n",
        "flipped": good[:40] + bytes(255 - byte for byte in good[40:]),
    }
    makers = {name: lambda path, content=content: path.write_bytes(content) for name, content in contents.items()}
    return {**makers, "link": link, "long": long, "pipe": pipe, "bomb": bomb}


def filled(folder, count, bad):
    """A folder of images, every so many of them bad; returns the names that are."""
    folder.mkdir()
    makers, names = list(bad_images(DIGITS[0].read_bytes()).values()), []
    step = count // bad
    for i in range(count):
        path = folder / f"{i:05}.png"
        if i % step == step // 2 and len(names) < bad:
            makers[len(names) % len(makers)](path)
            names.append(str(path))
        else:
            shutil.copy(DIGITS[i % len(DIGITS)], path)
    return names


def command(folder, out, shard):
    program = (
        "import sys; from vitriad import cli, embed; embed._SHARD_IMAGES = int(sys.argv.pop(1)); sys.exit(cli.main())"
    )
    options = ["--backend", INSTALLED[0], "--batch-size", "4", "--out", str(out)]
    listed = "\n".join(str(path) for path in sorted(folder.iterdir()))  # a folder leaves out what is no file
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(shard), "embed", "-", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    process.stdin.write(listed)
    process.stdin.close()
    return process


def check(folder, tmp_path, bad, kills, shard, seed=0):
    """Runs once undisturbed and once killed at random moments; both are equal, and to a run without the bad images."""
    start = time.monotonic()
    assert command(folder, tmp_path / "whole.npz", shard).wait() == 3
    lasted = time.monotonic() - start
    moments, killed = random.Random(seed), 0
    while killed < kills:
        process = command(folder, tmp_path / "killed.npz", shard)
        try:
            process.wait(moments.uniform(0.1, 1.0) * lasted)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        out, parts = tmp_path / "killed.npz", tmp_path / "killed.npz.parts"
        if out.exists() and not parts.exists():  # it was done; once more from the beginning
            out.unlink()
    assert command(folder, tmp_path / "killed.npz", shard).wait() == 3
    assert (tmp_path / "killed.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    for name in ("whole", "killed"):
        records = (tmp_path / f"{name}.npz.skipped.jsonl").read_text().splitlines()
        assert [json.loads(record)["name"] for record in records] == bad
    for name in bad:
        os.unlink(name)
    assert command(folder, tmp_path / "clean.npz", shard).wait() == 0
    names, columns = read_features(tmp_path / "killed.npz")
    clean_names, clean = read_features(tmp_path / "clean.npz")
    assert names == clean_names
    np.testing.assert_array_equal(columns["class_token"], clean["class_token"])
    return len(names)


def test_there_are_twelve_kinds_of_bad_images():
    assert len(bad_images(DIGITS[0].read_bytes())) == 12


@pytest.mark.long
def test_a_run_that_is_killed_goes_on(tmp_path):
    bad = filled(tmp_path / "images", 60, 12)
    assert check(tmp_path / "images", tmp_path, bad, kills=1, shard=8) == 48


@pytest.mark.reliability
@pytest.mark.timeout(7200)
def test_a_run_that_is_killed_twenty_times_goes_on(tmp_path, figure):
    bad = filled(tmp_path / "images", 1000, 120)
    assert check(tmp_path / "images", tmp_path, bad, kills=20, shard=40) == 880
    figure("features of 1,000 images, 120 of them bad, killed 20 times", "880 rows, equal to the byte; 120 records")
