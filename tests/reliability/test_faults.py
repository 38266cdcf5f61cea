"""A save is killed, or fails, at every system call it makes: what a reader finds then is the old one or the new, whole.

The faults are real: `strace` puts them into a process that saves (`savers.py`). A reader is another process than the
one that saved: this one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import pytest
from backends import INSTALLED, canonical
from reliability import savers
from reliability.savers import CRASHED, REFUSED, SAVED
from reliability.strace import FAULTS, Saver

import conversion
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.errors import CheckpointError, MissingFileError, VitError
from vitriad.auto import model_class

ASIDE = "renameat2:error=ENOSYS"  # a system that cannot swap folders
# Calls that cannot fail, and those for memory: their errors are no input or output, and end in a MemoryError.
NEVER_FAIL, MEMORY = {"getpid"}, {"mmap", "mremap", "munmap", "brk", "madvise"}
OUTCOMES = ("old", "new", "mixed", "broken", "lost", "lied")
OTHERS = {"vocabulary.txt": "kept", "sub/notes.txt": "kept too"}


# What is found


def tensors_and_config(folder):
    config, tensors, _ = conversion.load(folder, verify=True)
    return {config.extra["generation"], *(float(value) for array in tensors.values() for value in {*array.flat})}


def found_by(backend):
    def read(folder):
        model = model_class("ViTModel", backend).from_pretrained(folder)
        values = {float(value) for tensor in canonical(backend, model).values() for value in {*tensor.flat}}
        return {model.config.extra["generation"], *values}

    return read


def unverified(folder):
    config, tensors, _ = conversion.load(folder)
    return {config.extra["generation"], *(float(value) for array in tensors.values() for value in {*array.flat})}


def converted(dialect):
    """What a reader of a dialect finds: weights, and the label where its configuration has labels."""

    def read(path):
        given, target = savers.told(dialect), savers.TARGETS[dialect]
        config, tensors, _ = conversion.load(path, verify=target.file is not None, **given)
        labels = {int(label.split()[1]) for label in config.id2label.values() if label.startswith("generation")}
        assert bool(labels) == (target.file is not None)
        return labels | {float(value) for array in tensors.values() for value in {*array.flat}}

    return read


READERS = {
    "config": lambda folder: {ViTConfig.from_pretrained(folder).extra["generation"]},
    "processor": lambda folder: {round(1 / ViTImageProcessor.from_pretrained(folder).rescale_factor - 1)},
    "naive": unverified,
    **{name: converted(dialect) for name, dialect in {**savers.CONVERSIONS, **savers.IN_PLACE}.items()},
    **{name: found_by(name) for name in INSTALLED},
}


def found(save, folder):
    """The value of the one save that is there, whole; "absent", "mixed" or "broken"."""
    try:
        values = READERS.get(save, tensors_and_config)(folder)
    except MissingFileError:
        return "broken" if [*folder.glob("[!.]*")] or folder.is_file() else "absent"
    except VitError:
        return "broken"
    return values.pop() if len(values) == 1 else "mixed"


def others_are_kept(folder):
    return all((folder / name).read_text() == text for name, text in OTHERS.items())


# The faults


class Case(NamedTuple):
    """A kind of save; what is there before it; an injection that goes with every fault; where faults are put.

    `before`: "old" is a checkpoint, "nothing" not even the parent folder, and a system call is one at which a save over
    a checkpoint was killed, so that the save to be interrupted, or the reader after it, has that one to finish.
    `at`: "every call", "every change" (the calls that change what is on the disk), or so many faults, spread over these
    to the last one.
    """

    save: str
    before: str | tuple[str, int] = "old"
    always: str | None = None
    at: str | int = "every call"

    def __str__(self):
        before = self.before if isinstance(self.before, str) else "one that was killed"
        return f"{self.save} over {before}" + (", rename aside" if self.always else "")


class Trial:
    """One kind of save, to be interrupted again and again by `saver`; counts what is found then."""

    def __init__(self, case, place, saver):
        self.case, self.value, self.counts, self.complaints, self.saver = case, 0, Counter(), [], saver
        self.is_file = bool(savers.suffix(case.save))
        self.folder = place / "parent" / f"model{savers.suffix(case.save)}"

    def run(self):
        self.prepare()
        calls = self.saver.record(self.case.save, self.folder, self.value, self.case.always)
        reported = {call for before, call in pairwise([None, *calls]) if is_reported(call, before)}
        for fault, call in self.chosen(calls):
            self.prepare()
            self.interrupt(fault, call, is_reported=call in reported)
        self.prepare()
        return self

    def chosen(self, calls):
        """Pairs of a fault and a call."""
        at = self.case.at
        calls = calls if at == "every call" else [call for call in calls if call.changes]
        if isinstance(at, str):
            return [pair for pair in product(FAULTS, calls) if is_possible(*pair, self.case.always)]
        pairs = [(list(FAULTS)[i % len(FAULTS)], calls[i * (len(calls) - 1) // (at - 1)]) for i in range(at)]
        return [pair for pair in pairs if is_possible(*pair, self.case.always)]

    def prepare(self):
        """Puts in place what is there before a fault: with a save, as the next save after a fault must work."""
        self.value += 1
        ending = self.saver.plain(self.case.save, self.folder, self.value)
        self.expect(ending.code == SAVED and found(self.case.save, self.folder) == self.value, f"next save: {ending}")
        left = os.listdir(self.folder.parent)
        self.expect(left == [self.folder.name] and not [*self.folder.glob(".*")], f"left over: {left}")
        if self.case.before == "nothing":
            shutil.rmtree(self.folder.parent)
            return
        for name, text in OTHERS.items() if not self.is_file else ():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)
        if self.case.before != "old":
            self.value += 1
            self.saver.run(self.case.save, self.folder, self.value, self.case.before, FAULTS["kill"], self.case.always)

    def interrupt(self, fault, call, *, is_reported):
        old = "absent" if self.case.before == "nothing" else self.value
        self.value += 1
        ending = self.saver.run(self.case.save, self.folder, self.value, call, FAULTS[fault], self.case.always)
        now = found(self.case.save, self.folder)
        outcome = {old: "old", self.value: "new"}.get(now, now)
        if ending.code == SAVED and (outcome != "new" or is_reported):
            outcome = "lied"
        if self.case.before != "nothing" and not self.is_file and not others_are_kept(self.folder):
            outcome = "lost"
        self.counts[fault, outcome] += 1
        where = f"{fault} at {call}: {outcome}, {ending}"
        self.expect(outcome in ("old", "new"), where)
        self.expect(ending.code != CRASHED or call.name in MEMORY, f"{where}: not an error of vitriad")
        is_clear = str(self.folder) in ending.text and ending.text.count("\n") < 3
        self.expect(ending.code != REFUSED or is_clear, f"{where}: an unclear message")

    def expect(self, condition, complaint):
        self.complaints.extend([] if condition else [complaint])


def is_possible(fault, call, always):
    return not (always or "").startswith(call.name) and (fault == "kill" or call.name not in NEVER_FAIL)


def is_reported(call, before):
    """Whether a save cannot have worked without this call; a file is closed right after it is brought to the disk."""
    if call.name == "close":
        return before is not None and before.name == "fsync"
    return call.name in ("write", "fsync", "rename", "renameat2")


def judge(trial, figure):
    total = sum(trial.counts.values())
    for fault in FAULTS:
        counts = [f"{trial.counts[fault, outcome]} {outcome}" for outcome in OUTCOMES]
        figure(f"saves: {trial.case}: {fault}", ", ".join(counts))
    assert not trial.complaints, "\n".join([f"{len(trial.complaints)} of {total}:", *trial.complaints[:20]])
    assert {outcome for _, outcome in trial.counts} == {"old", "new"}


@pytest.fixture(scope="module")
def neutral(tmp_path_factory):
    """A process that makes every save which needs no framework."""
    with Saver(tmp_path_factory.mktemp("saver"), *savers.NEUTRAL) as saver:
        yield saver


FEW = [Case("single", at="every change"), Case("config"), Case("processor")]
FEW += [Case(name, at=18) for name in savers.CONVERSIONS]


@pytest.mark.every_day("single", "config", "hf_tf")
@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_save_over_an_old_one_is_old_or_new_after_a_fault_at_any_call(case, neutral, tmp_path, figure):
    judge(Trial(case, tmp_path, neutral).run(), figure)


ALL = [
    Case("single"),
    Case("single", "nothing"),
    Case("single", "old", ASIDE),
    Case("sharded", "nothing"),
    Case("sharded", "old"),
    Case("sharded", "old", ASIDE),
    Case("sharded", ("rename", 2), ASIDE),  # the old one is aside, the new one not yet in place
    Case("in place", "old"),
    Case("in place", ("rename", 3)),  # some files are in place
    Case("config", "nothing"),
    *(Case(name, at="every change") for name in savers.CONVERSIONS),
    *(Case(name, at="every change") for name in savers.IN_PLACE),
]


@pytest.mark.reliability
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_save_is_old_or_new_after_a_fault_at_any_call(case, neutral, tmp_path, figure):
    judge(Trial(case, tmp_path, neutral).run(), figure)


@pytest.mark.every_day("torch")
@pytest.mark.parametrize("count", [6, pytest.param(60, marks=[pytest.mark.reliability, pytest.mark.timeout(1200)])])
@pytest.mark.parametrize("backend", INSTALLED)
def test_the_save_of_a_model_is_old_or_new_after_a_fault(backend, count, tmp_path, figure):
    """Few faults: what a backend adds to `single` is done before anything is written."""
    with Saver(tmp_path / "saver", backend) as saver:
        judge(Trial(Case(backend, at=count), tmp_path, saver).run(), figure)


def test_a_naive_save_does_not_pass(neutral, tmp_path, figure):
    trial = Trial(Case("naive"), tmp_path, neutral).run()
    assert {"old", "new", "mixed", "broken", "lied"} == {outcome for _, outcome in trial.counts}
    with pytest.raises(AssertionError, match=rf"{len(trial.complaints)} of {trial.counts.total()}:"):
        judge(trial, figure)


def test_a_process_that_cannot_be_traced_is_an_error(neutral, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    with pytest.raises(RuntimeError, match=r"strace cannot trace a process here: [^\0]*These tests need ptrace"):
        neutral.attach(2**22 + 1, [])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="strace is missing: install it"):
        Saver(tmp_path)


# Two writers


def test_a_second_process_is_told_who_is_the_first_within_a_second(tmp_path):
    folder = tmp_path / "model"
    with Saver(tmp_path / "a") as first, Saver(tmp_path / "b") as second:
        child = first.start("single", folder, 1, ["fsync:delay_enter=1500000:when=1"])  # microseconds
        lock = folder.with_name(".model.lock")
        while not (lock.exists() and lock.read_text()):
            time.sleep(0.01)
        before = time.monotonic()
        refused = second.plain("single", folder, 2)
        waited = time.monotonic() - before
        assert refused == (REFUSED, f"{folder}: process {child} is saving to it right now.") and waited < 1
        assert first.ending().code == SAVED and found("single", folder) == 1
        assert second.plain("single", folder, 2).code == SAVED and found("single", folder) == 2


# Places that cannot be saved to


def in_own_mounts(commands, folder, value=1, save="single"):
    """What a save says in a process that has run shell commands ("$0" is the folder) in mounts of its own."""
    program = Path(__file__).with_name("savers.py")
    script = f'set -e; {commands}; "$1" "$2" once {save} "$0" {value}'
    command = ["unshare", "-rm", "sh", "-c", script, folder, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"these tests need `unshare -rm` and mounts in it: {done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "model"


def test_a_full_file_system_is_refused_before_anything_is_written(folder):
    said = in_own_mounts(
        'P=$(dirname "$0"); mount -t tmpfs -o size=64k none $P; head -c 57344 /dev/zero > $P/filler', folder
    )
    expected = rf"{folder}: \d+ bytes to save, and only 8192 bytes free\."
    assert said["code"] == REFUSED and re.fullmatch(expected, said["text"]) and said["names"] == ["filler"]


@pytest.mark.parametrize("closed", ["place", "place/model"])
def test_a_read_only_place_is_refused_before_anything_is_written(folder, tmp_path, closed):
    savers.write(folder, 0)
    mount = f"mount --bind {tmp_path / closed} {tmp_path / closed}; mount -o remount,ro,bind {tmp_path / closed}"
    said = in_own_mounts(mount, folder)
    assert said["code"] == REFUSED and said["names"] == ["model"]
    assert said["text"] == f"{folder}: cannot be saved to: {folder} is read-only."
    assert found("single", folder) == 0


def test_a_file_is_refused_as_a_folder(folder):
    folder.write_text("text")
    with pytest.raises(CheckpointError, match="model: expected a folder to save into, got a file"):
        savers.write(folder, 1)
    assert folder.read_text() == "text" and os.listdir(folder.parent) == ["model"]


def test_a_mount_point_is_saved_to(folder):
    folder.mkdir()
    again = "; ".join(f'"$1" "$2" once {save} "$0" 1 > /dev/null' for save in ("sharded", "single", "sharded"))
    said = in_own_mounts(f'mount -t tmpfs none "$0"; echo text > "$0"/other; {again}', folder, 2)
    assert said["code"] == SAVED and said["found"] == [2] and said["names"] == ["model"]


def test_a_folder_mounted_inside_keeps_its_files(folder, tmp_path):
    savers.write(folder, 0)
    (folder / "sub").mkdir()
    inner = tmp_path / "elsewhere"
    inner.mkdir()
    (inner / "file").write_text("text")
    for mount in (f'mount --bind {inner} "$0"/sub', 'mount -t tmpfs none "$0"/sub; echo > "$0"/sub/file'):
        said = in_own_mounts(mount, folder)
        assert (inner / "file").read_text() == "text" and said["names"] == ["model"]
