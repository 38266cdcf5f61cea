"""A save is on the disk, files and folders, before it is put in place: by the order of its system calls."""

import shutil
from pathlib import PurePosixPath

import pytest
from backends import INSTALLED
from reliability import savers
from reliability.durability import Disk, paths
from reliability.strace import Saver
from reliability.test_faults import ASIDE, OTHERS, found

FILES = ["config", "processor", *(name for name in savers.CONVERSIONS if savers.suffix(name))]
FOLDERS = ["single", "sharded", *(name for name in savers.CONVERSIONS if not savers.suffix(name))]
STAY = ["in place", *savers.IN_PLACE]
CASES = [
    *((save, "old", None) for save in (*FILES, *FOLDERS, *STAY)),
    *((save, "old", ASIDE) for save in FOLDERS),
    *((save, "nothing", None) for save in ("single", "config", "convert to google")),
]


@pytest.fixture(scope="module")
def neutral(tmp_path_factory):
    """A process that makes every save which needs no framework."""
    with Saver(tmp_path_factory.mktemp("saver"), *savers.NEUTRAL) as saver:
        yield saver


def recorded(saver, place, save, before="old", always=None):
    """The calls of a save in `place`, over an old one, or the one named, with files that stay; or over nothing."""
    folder = place / "parent" / f"model{savers.suffix(save)}"
    saver.plain(before if before in savers.SAVES else save, folder, 1)
    if before == "nothing":
        shutil.rmtree(folder.parent)
    for name, text in OTHERS.items() if folder.is_dir() else ():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    calls = saver.record(save, folder, 2, always)
    assert found(save, folder) == 2
    return calls


def syncs(calls):
    """The places of the calls that bring something to the disk."""
    return [place for place, call in enumerate(calls) if call.name in ("fsync", "fdatasync")]


@pytest.mark.parametrize(("save", "before", "always"), CASES)
def test_a_save_is_on_the_disk_before_it_is_in_place(neutral, tmp_path, save, before, always):
    calls = recorded(neutral, tmp_path, save, before, always)
    assert Disk(tmp_path).follow(calls).complaints == []
    assert any(call.name.startswith("rename") for call in calls) and len(syncs(calls)) > 1


@pytest.mark.every_day("torch")
@pytest.mark.parametrize("backend", INSTALLED)
def test_the_save_of_a_model_is_on_the_disk_before_it_is_in_place(backend, tmp_path):
    with Saver(tmp_path / "saver", backend) as saver:
        calls = recorded(saver, tmp_path / "place", backend)
    assert Disk(tmp_path / "place").follow(calls).complaints == []
    assert len(syncs(calls)) > 4


EACH = [
    ("single", "old", None),
    ("sharded", "single", ASIDE),
    ("config", "nothing", None),
    ("convert to mae", "old", None),
]
EACH += [("convert to hf in place", "sharded", None)]  # shards that are to be removed


@pytest.mark.parametrize(("save", "before", "always"), EACH)
def test_any_sync_left_out_is_noticed(neutral, tmp_path, save, before, always):
    """Unless the same file or folder is synced once more before anything is renamed."""
    calls = recorded(neutral, tmp_path, save, before, always)
    assert Disk(tmp_path).follow(calls).complaints == []
    for place in syncs(calls):
        rest = calls[place + 1 :]
        until = next((i for i, call in enumerate(rest) if call.name.startswith("rename")), len(rest))
        is_repeated = paths(calls[place]) in [paths(rest[i]) for i in syncs(rest[:until])]
        complaints = Disk(tmp_path).follow([*calls[:place], *rest]).complaints
        assert bool(complaints) != is_repeated, calls[place]


def test_files_written_in_place_are_noticed(neutral, tmp_path):
    complaints = Disk(tmp_path).follow(recorded(neutral, tmp_path, "naive")).complaints
    assert len(complaints) == 1 and "model.safetensors" in complaints[0] and "config.json" in complaints[0]


def test_what_removes_the_old_too_early_is_noticed(neutral, tmp_path):
    """The same calls with the last sync of the folder above put to the end."""
    calls = recorded(neutral, tmp_path, "single")
    parent = [PurePosixPath(tmp_path / "parent")]
    (place,) = (place for place in syncs(calls) if paths(calls[place]) == parent)
    moved = [*calls[:place], *calls[place + 1 :], calls[place]]
    assert any("is removed before" in complaint for complaint in Disk(tmp_path).follow(moved).complaints)
