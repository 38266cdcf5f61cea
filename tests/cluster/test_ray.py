"""`vitriad embed --engine ray`: two workers of a local Ray or of a cluster give the bytes of a run without Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitriad import models

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PROGRAM = "import sys; from vitriad import cli, embed; embed._SHARD_IMAGES = 8; sys.exit(cli.main())"
MARK = "VITRIAD_TEST_OF_RAY"  # in the environment of our processes: theirs and no others are killed


@pytest.fixture
def images(tmp_path):
    """A folder of 400 images, eight of them bad, in 50 shards."""
    folder = tmp_path / "images"
    folder.mkdir()
    digits = models.digit_files()
    for i in range(400):
        shutil.copy(digits[i % len(digits)], folder / f"{i:03}.png")
    for i in range(3, 400, 50):
        (folder / f"{i:03}.png").write_bytes(b"bad")
    return folder


def started(folder, out, *options, **environment):
    command = [sys.executable, "-c", PROGRAM, "embed", str(folder), "--batch-size", "4", "--out", str(out), *options]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finished(process):
    out, err = process.communicate()
    return process.returncode, out, err


def workers(mark):
    """Actors of the run that has this mark: process ids."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_actor = (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if is_actor and f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # gone meanwhile
            continue
    return sorted(found)


def check_same(tmp_path, err):
    """The file and the list of what was skipped are those of a run without Ray."""
    assert finished(started(tmp_path / "images", tmp_path / "whole.npz"))[0] == 3
    assert (tmp_path / "ray.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    records = [(tmp_path / f"{name}.npz.skipped.jsonl").read_text() for name in ("ray", "whole")]
    assert records[0] == records[1] and records[0].count("\n") == 8
    for record in map(json.loads, records[0].splitlines()):
        assert f"vitriad: skipped: {record['error']}" in err
    assert not (tmp_path / "ray.npz.parts").exists()


def test_two_workers_give_the_same_bytes(images, tmp_path):
    code, out, err = finished(started(images, tmp_path / "ray.npz", "--engine", "ray"))
    assert code == 3, err
    assert "392 images, class_token" in out
    assert len(err.splitlines()) <= 8 + 2 * 8 + 2, err  # Ray is quiet
    check_same(tmp_path, err)


def test_a_worker_that_is_killed_costs_nothing(images, tmp_path):
    process = started(images, tmp_path / "ray.npz", "--engine", "ray", **{MARK: str(tmp_path)})
    while not [*tmp_path.glob("ray.npz.parts/*.npz")]:
        assert process.poll() is None, finished(process)
        time.sleep(0.005)
    victims = workers(tmp_path)
    os.kill(victims[0], signal.SIGKILL)
    done = len([*tmp_path.glob("ray.npz.parts/*.npz")])
    code, _, err = finished(process)
    assert (code, len(victims)) == (3, 2), err
    assert 0 < done < 50  # on the way
    check_same(tmp_path, err)


def test_a_run_that_is_killed_goes_on_without_ray(images, tmp_path):
    process = started(images, tmp_path / "ray.npz", "--engine", "ray", **{MARK: str(tmp_path)})
    while not [*tmp_path.glob("ray.npz.parts/*.npz")]:
        assert process.poll() is None, finished(process)
        time.sleep(0.005)
    process.kill()
    finished(process)
    done = {path.name for path in (tmp_path / "ray.npz.parts").glob("*.npz")}
    assert 0 < len(done) < 50
    assert finished(started(images, tmp_path / "ray.npz"))[0] == 3
    every = [json.loads(line)["error"] for line in (tmp_path / "ray.npz.skipped.jsonl").read_text().splitlines()]
    check_same(tmp_path, "".join(f"vitriad: skipped: {error}\n" for error in every))


def test_a_cluster_of_two_machines_is_joined(images, tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        code, _, err = finished(started(images, tmp_path / "ray.npz", "--engine", "ray", RAY_ADDRESS=cluster.address))
        assert code == 3, err
        check_same(tmp_path, err)
    finally:
        cluster.shutdown()


def test_a_cluster_that_is_not_there_is_named(images, tmp_path):
    code, _, err = finished(started(images, tmp_path / "ray.npz", "--engine", "ray", RAY_ADDRESS="127.0.0.1:1"))
    assert code == 1
    assert "vitriad: error: ray: 127.0.0.1:1: cannot be used: " in err and len(err.splitlines()) <= 3
