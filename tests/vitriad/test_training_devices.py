"""`vitriad finetune --devices N`: the run of one device, written once, and what becomes of a process that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from small_runs import asked, contents, stopping

from vitriad.cli import main

FIELDS = ["clip=1.0", "average=0.9", "accumulate=2", "drop_path=0.3", "mixup=0.5", "class_weights=true"]
HOWS = [*((name, False) for name in INSTALLED), *((name, True) for name in INSTALLED if name != "tf")]
needs_torch = pytest.mark.skipif("torch" not in INSTALLED, reason="processes are of torch alone")


def line(data, out, *options, backend="torch", sharded=False, start=("-m", "vitriad")):
    more = ["--config", str(data / "vit.json"), "--rate", "0.01", *(["--sharded"] if sharded else []), *options]
    return [sys.executable, *start, *asked("finetune", data, out, *more, backend=backend, fields=FIELDS)]


def measured(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def check_same_curve(out, expected):
    """Every line once, and every number that of one device."""
    found = measured(out)
    assert [[*line] for line in found] == [[*line] for line in measured(expected)]
    for one, other in zip(found, measured(expected), strict=True):
        np.testing.assert_allclose([*one.values()], [*other.values()], rtol=1e-5, err_msg=str(one))


@pytest.mark.every_day("torch-copies]", "flax-shares]")
@pytest.mark.parametrize(
    ("backend", "sharded"), HOWS, ids=[f"{name}-{'shares' if is_ else 'copies'}" for name, is_ in HOWS]
)
def test_two_devices_leave_the_run_of_one(backend, sharded, data, tmp_path, capsys):
    two, one = tmp_path / "two", tmp_path / "one"
    done = run(line(data, two, "--devices", "2", backend=backend, sharded=sharded))
    assert done.stdout.count("epoch 2 of 2") == 1 and done.stdout.count("images  ") == 1
    assert main(line(data, one, backend=backend)[3:]) == 0
    check_same_curve(two, one)
    files = {str(path.relative_to(one)) for path in one.rglob("*") if "tensorboard/" not in str(path)}
    assert {str(path.relative_to(two)) for path in two.rglob("*") if "tensorboard/" not in str(path)} == files
    assert json.loads((two / "last/training/place.json").read_text())["devices"] == ("2, sharded" if sharded else "2")


def workers_of(process):
    """Rank -> process id, of what a command has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    variables = {int(child): Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children}
    return {int(each[5:]): child for child, found in variables.items() for each in found if each.startswith(b"RANK=")}


def waited(condition):
    while not condition():
        time.sleep(0.005)


def started(command, out, steps):
    """A command that has measured so many lines."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    waited(lambda: process.poll() is not None or (metrics.is_file() and metrics.read_bytes().count(b"\n") >= steps))
    assert process.poll() is None, process.stderr.read()
    return process


@needs_torch
@pytest.mark.long
def test_a_killed_process_ends_the_run_in_clear_words_and_the_same_command_goes_on(data, tmp_path):
    whole, out = tmp_path / "whole" / "run", tmp_path / "out" / "run"
    run(line(data, whole, "--devices", "2", "--epochs", "9"))
    command = line(data, out, "--devices", "2", "--epochs", "9")
    process = started(command, out, 12)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "vitriad: error: process 1 of 2 was killed (SIGKILL), as systems do where memory runs out" in said
    assert "is of step" in said and "the same command goes on from there." in said and "Traceback" not in said
    assert "going on after step" in run(command).stdout
    assert contents(out) == contents(whole)


@needs_torch
@pytest.mark.long
def test_ctrl_c_stops_all_processes_at_one_step_and_none_outlives_the_command(data, tmp_path):
    out, before = tmp_path / "out", signal.getsignal(signal.SIGINT)
    command = line(data, out, "--devices", "2", "--epochs", "300", sharded=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background are started without
    try:
        process = started(command, out, 7)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == 130 and said.count("vitriad: stopped after step") == 1, said
    process = started(command, out, measured(out)[-1]["step"] + 4)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    waited(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers.values()))
    assert len(workers) == 2


@needs_torch
@pytest.mark.long
def test_processes_of_torchrun_leave_the_same_run(data, tmp_path):
    out, expected = tmp_path / "out" / "run", tmp_path / "expected" / "run"
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vitriad")
    assert run(line(data, out, start=launch)).stdout.count("epoch 2 of 2") == 1
    run(line(data, expected, "--devices", "2"))
    assert contents(out) == contents(expected)


@pytest.mark.parametrize("backend", INSTALLED[:1])
def test_another_number_of_devices_is_said(backend, data, tmp_path, monkeypatch, capsys):
    def die():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        stopping(patched, 5, die)
        assert main(line(data, tmp_path, backend=backend)[3:]) == 130
    place = tmp_path / "last" / "training" / "place.json"
    place.write_text(place.read_text().replace('"devices": "1"', '"devices": "2, sharded"'))
    assert main(line(data, tmp_path, backend=backend)[3:]) == 0
    assert "devices: 1, where it was 2, sharded: the same within rounding" in capsys.readouterr().out


@pytest.mark.parametrize("backend", INSTALLED)
def test_more_devices_than_there_are_are_refused(backend, data, tmp_path, capsys):
    assert main(line(data, tmp_path / "run", "--devices", "4000", backend=backend)[3:]) == 1
    assert "--devices: expected at most " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", INSTALLED)
def test_what_a_backend_does_not_share_is_refused(backend, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(line(data, tmp_path / "run", "--devices", "3", backend=backend)[3:]) == 1
    said = capsys.readouterr().err
    assert ("expected 2, as many as processes were started" if backend == "torch" else "without torchrun") in said
    monkeypatch.undo()
    if backend == "tf":
        assert main(line(data, tmp_path / "run", "--devices", "2", backend=backend, sharded=True)[3:]) == 1
        assert "--sharded: tf.distribute.MirroredStrategy has copies alone" in capsys.readouterr().err
