"""What cannot be written is found out before the work; what is replaced keeps its permissions."""

import json
import logging
import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from refusing import as_nobody

import conversion
from vit_core.errors import CheckpointError, InputError
from vit_core.files.saving import save_folder
from vit_core.files.targets import check_target
from vitriad.cli import main

CLASSIFIER = "ViTForImageClassification"


@pytest.fixture
def place(tmp_path):
    """A read-only folder in a folder that everybody may look into, and a checkpoint."""
    for folder in (tmp_path, *tmp_path.parents):  # each test process has a folder of its own among them
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    config = make_config(CLASSIFIER, image_size=8)
    write(tmp_path / "m", config, make_tensors(CLASSIFIER, config))
    (tmp_path / "locked" / "old").mkdir(parents=True)
    for folder in (tmp_path / "locked" / "old", tmp_path / "locked"):
        folder.chmod(0o555)
    return tmp_path


@pytest.mark.parametrize("to", ["hf", "timm", "hf_tf", "google"])
@pytest.mark.parametrize("where", ["locked/new", "locked/old", "locked/a/b", "m/config.json/x"])
def test_a_dry_run_finds_what_cannot_be_written(where, to, place):
    target = place / (f"{where}.npz" if to == "google" else where)
    before = sorted(map(str, place.rglob("*")))
    with as_nobody(), pytest.raises(CheckpointError, match=r"read-only|a file is there"):
        conversion.convert(place / "m", target, to=to, dry_run=True, force=True, allow=["numerics"])
    assert sorted(map(str, place.rglob("*"))) == before


def test_a_dry_run_makes_nothing_where_it_could(place):
    report = conversion.convert(place / "m", place / "a" / "b", to="hf", dry_run=True)
    assert "nothing written" in report.notes and not (place / "a").exists()


COMMANDS = {
    "--html": ["parity", "--checks", "forward", "--html"],
    "--json": ["parity", "--checks", "forward", "--json"],
    "--output": ["demo", "--output"],
}


@pytest.mark.parametrize("option", COMMANDS)
def test_targets_of_commands_are_looked_at_before_the_work(option, place, capsys, monkeypatch):
    for name in ("vitriad.parity.compare", "vitriad.demo.find"):
        monkeypatch.setattr(name, lambda *arguments: pytest.fail("the work was begun"))
    taken = place / "m" if option != "--output" else place / "m" / "config.json"
    for target, match in (
        (place / "locked" / "x", "is read-only"),
        (taken, "to write, a f"),
        (f"{place}/a\0b", "name"),
    ):
        with as_nobody():
            assert main([*COMMANDS[option], str(target)]) == 1
        text = capsys.readouterr().err
        assert text.startswith("vitriad: error: ") and match in text and text.count("\n") == 1


def test_what_can_be_written_passes(tmp_path):
    for name, is_folder in (("new", True), ("new.json", False), ("a/b/new", True)):
        check_target(tmp_path / name, is_folder=is_folder, error=InputError)
    assert os.listdir(tmp_path) == []


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}


@pytest.mark.parametrize("in_place", [False, True])
def test_a_save_keeps_the_permissions_of_what_it_replaces(in_place, tmp_path, monkeypatch):
    def save(seed):
        tensors = {"a": np.full(3, seed, np.float32)}
        save_folder(tmp_path / "m", files={"config.json": json.dumps({"a": seed})}, tensors=tensors)

    save(1)
    (tmp_path / "m" / "notes.txt").touch()
    wanted = {"m": 0o750, "model.safetensors": 0o640, "config.json": 0o600, "manifest.json": 0o664, "notes.txt": 0o604}
    for name, mode in wanted.items():
        (tmp_path / "m" / name if name != "m" else tmp_path / "m").chmod(mode)
    if in_place:
        monkeypatch.chdir(tmp_path / "m")
    save(2)
    assert modes(tmp_path / "m") == wanted
    assert json.loads((tmp_path / "m" / "config.json").read_text()) == {"a": 2}


def test_new_files_have_the_permissions_that_the_process_gives(tmp_path):
    before = os.umask(0o027)
    try:
        save_folder(tmp_path / "m", files={"config.json": "{}"}, tensors={"a": np.ones(3, np.float32)})
    finally:
        os.umask(before)
    assert {*modes(tmp_path / "m").values()} == {0o750, 0o640}


def test_what_a_save_had_to_leave_behind_is_said(place, caplog):
    """A folder of another user in the old one can be neither emptied nor removed."""
    tensors = {"a": np.ones(3, np.float32)}
    target = place / "theirs"
    place.chmod(0o777)
    with as_nobody():
        save_folder(target, files={}, tensors=tensors)
    (target / "logs").mkdir()
    (target / "logs" / "x").touch()
    with as_nobody(), caplog.at_level(logging.WARNING, "vitriad"):
        save_folder(target, files={}, tensors=tensors)
    left = [path for path in place.iterdir() if path.name.startswith(".theirs.tmp-")]
    assert len(left) == 1 and f"{left[0]}: could not be removed" in caplog.text
    assert (target / "logs" / "x").exists()
