"""An export that is killed at any moment leaves the old program or the new one, whole."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitriad.artefacts import read_artefact

OLD, NEW = 1, 2
PROGRAM = Path(__file__).with_name("exporter.py")


class Exporter:
    """A process that exports at our word."""

    def __init__(self, folder):
        command = [sys.executable, str(PROGRAM), str(folder)]
        environment = {"PYTHONPATH": ":".join(map(str, [PROGRAM.parent.parent, *sys.path])), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes, env=environment)
        assert self.process.stdout.readline() == "ready\n"

    def export(self, value, fatal=None):
        """The number of changes that an export made; None where it was killed at one of them."""
        self.process.stdin.write(json.dumps([value, fatal]) + "\n")
        self.process.stdin.flush()
        first = json.loads(self.process.stdout.readline())
        if fatal is not None:
            assert first == signal.SIGKILL
            return None
        assert json.loads(self.process.stdout.readline()) == 0
        return first


@pytest.fixture
def exporter(tmp_path):
    (tmp_path / "parent").mkdir()
    made = Exporter(tmp_path / "parent" / "program")
    yield made
    with made.process:
        made.process.stdin.close()
    assert made.process.returncode == 0


def found(folder):
    """Whose export is there, whole."""
    artefact = read_artefact(folder)  # compares every file with its digest
    assert json.loads((folder / "certificate.json").read_text())["holds"]
    return artefact.program.config.generation


def check(exporter, parent, moments):
    """Kills an export at each of some moments; returns what was found after each. Nothing stays behind in the end."""
    after = []
    for moment in moments:
        exporter.export(NEW, moment)
        after.append(found(parent / "program"))
        if after[-1] == NEW:
            exporter.export(OLD)
    exporter.export(OLD)
    assert [path.name for path in parent.iterdir()] == ["program"]
    return after


@pytest.mark.long
def test_an_export_killed_at_some_moments_leaves_the_old_or_the_new(exporter, tmp_path):
    exporter.export(OLD)
    count = exporter.export(OLD)  # over an old one there is more to do
    after = check(exporter, tmp_path / "parent", [count // 3, 2 * count // 3, count])
    assert after[0] == OLD and after == sorted(after)


@pytest.mark.reliability
@pytest.mark.timeout(7200)
def test_an_export_killed_at_every_moment_leaves_the_old_or_the_new(exporter, tmp_path, figure):
    exporter.export(OLD)
    count = exporter.export(OLD)
    after = check(exporter, tmp_path / "parent", range(1, count + 1))
    assert {OLD, NEW} == {*after} and after == sorted(after)
    figure(
        "exports killed, at every change of a file or folder",
        f"{count}, the new one was there after {after.count(NEW)}",
    )
