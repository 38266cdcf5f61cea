"""A save is killed, or fails, at every single system call: what is there then is the old checkpoint or the new one.

The first half of this file runs as a program of its own, which forks a child for every call; the tests start it.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vit_core.errors import CheckpointError
from vit_core.files import atomic_folder
from vit_core.files.atomic_folder import finish_swap
from vit_core.files.folders import open_weights
from vit_core.files.saving import save_folder

SYSTEM_MODULES = ("posix", "nt", "fcntl", "io", "_io")
# Calls that change nothing, and those that close files: one that never happened is no fault of the system.
HARMLESS = ("fspath", "fileno", "_path_normpath", "getpid", "text_encoding", "is_dir", "is_symlink", "stat", "lstat")
HARMLESS += ("close", "__exit__")


class Faults:
    """Counts the calls into the system that are not harmless, and does something at one of them."""

    def __init__(self, at, act):
        self.at, self.act, self.count = at, act, 0

    def __enter__(self):
        sys.setprofile(self.seen)
        return self

    def __exit__(self, *exception):
        sys.setprofile(None)

    def seen(self, frame, event, function):
        owner = getattr(function, "__self__", None)
        module = function.__module__ or type(owner).__module__ if event == "c_call" else ""
        if module in SYSTEM_MODULES and function.__name__ not in HARMLESS:
            self.count += 1
            if self.count == self.at:
                self.act()


def save(folder, value):
    tensors = {name: np.full(5, value) for name in "abc"}
    save_folder(folder, files={"config.json": str(value)}, tensors=tensors, max_shard_size=80)


def value_of(folder):
    """The value of the one checkpoint that is there, whole."""
    finish_swap(folder)
    weights = open_weights(folder, verify=True)
    (value,) = {float(value) for name in "abc" for value in weights[name]}
    if (folder / "config.json").read_text() != str(value) or (folder / "other").read_text() != "other":
        raise CheckpointError(f"{folder}: mixed")
    return value


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_every_call(folder):
    """What was there after each death: the old checkpoint, the new one, or something else."""
    outcomes = []
    while True:
        old, new = value_of(folder), float(len(outcomes) + 1)
        child = os.fork()
        if not child:
            with Faults(len(outcomes) + 1, kill):
                save(folder, new)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return outcomes
        outcomes.append({old: "old", new: "new"}.get(value_of(folder), "wrong"))


if __name__ == "__main__":
    if sys.argv[2] == "aside":
        atomic_folder._exchange = lambda one, other: False
    print(*kill_at_every_call(Path(sys.argv[1])))


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "model", 0.0)
    (tmp_path / "model" / "other").write_text("other")
    return tmp_path / "model"


@pytest.mark.every_day("exchange")
@pytest.mark.parametrize("swapping", ["exchange", "aside"])
def test_killed_at_every_call(folder, swapping):
    command = [sys.executable, __file__, folder, swapping]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    outcomes = done.stdout.split()
    assert {*outcomes} == {"old", "new"} and len(outcomes) > 60
    assert outcomes == sorted(outcomes, reverse=True)  # old until the swap, new from then on
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.every_day("aside-28")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("swapping", ["exchange", "aside"])
def test_failing_at_every_call(folder, swapping, number, monkeypatch):
    if swapping == "aside":
        monkeypatch.setattr(atomic_folder, "_exchange", lambda one, other: False)

    def fail():
        raise OSError(number, os.strerror(number))

    points, failed = 0, 0
    while True:
        old, new, has_failed = value_of(folder), points + 1.0, False
        with Faults(points + 1, fail) as faults:
            try:
                save(folder, new)
            except CheckpointError as error:
                has_failed = True
                assert str(error).startswith(f"{folder}: saving failed: ")
                assert os.strerror(number) in str(error) and str(error).count("\n") < 3
        if faults.count <= points:
            break
        assert value_of(folder) in ((old, new) if has_failed else (new,))  # what is reported as saved is saved
        points, failed = points + 1, failed + has_failed
    assert points > 60 and failed > 40
    assert os.listdir(folder.parent) == ["model"]


def test_a_disk_that_fills_up_while_writing(folder, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="saving failed: No space left on device"):
        save(folder, 1.0)
    assert value_of(folder) == 0.0
    assert os.listdir(folder.parent) == ["model"]
