"""Where a name points, without a network: folders, names that are none, and what a cache holds. `tests/hub` has one."""

import inspect
import os
import socket

import pytest

import conversion
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.errors import CheckpointError, InputError, MissingFileError, VitError
from vit_core.files.weight_files import SUFFIXES
from vit_core.hub.download import HUB_OPTIONS, Repository, commit_of, resolve

FILES = ["config.json"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "model" / "inner").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def test_a_folder_is_itself(folder):
    for name in (folder, str(folder), "model", "./model", "model/"):
        assert resolve(name, FILES).resolve() == folder
        assert resolve(name, FILES, subfolder="inner").resolve() == folder / "inner"
    assert resolve(".", FILES).resolve() == folder.parent


def test_a_local_folder_comes_before_the_hub(folder):
    (folder.parent / "owner" / "name").mkdir(parents=True)
    assert resolve("owner/name", FILES).resolve() == folder.parent / "owner" / "name"


@pytest.mark.parametrize("subfolder", ["../other", "a/../../b", "..", "/etc"])
@pytest.mark.parametrize("name", ["model", "owner/name"])
def test_a_subfolder_stays_inside(name, subfolder, folder):
    with pytest.raises(CheckpointError) as caught:
        resolve(name, FILES, subfolder=subfolder)
    assert str(caught.value) == f"subfolder {subfolder!r}: expected a path inside the checkpoint."


def test_a_file_is_no_folder(folder):
    with pytest.raises(CheckpointError, match="expected a folder or a hub name 'owner/name', got a file"):
        resolve(folder / "config.json", FILES)


NAMES = ["", "a/b/c", "/no/such/folder", "../model2", "./model2", "owner/", "/name", "owner name", "a" * 200, "a/.b"]
NAMES += ["owner/na--me", "x..y", "owner/name.git", "https://huggingface.co/owner/name", "a\0b", "\u00fc/b", "~/model"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_neither(name, folder):
    with pytest.raises(MissingFileError) as caught:
        resolve(name, FILES)
    assert str(caught.value) == f"{name}: no such folder, and not a hub name of the form 'owner/name'."


def load(name):
    return conversion.load(name, cache_dir="cache")


@pytest.mark.parametrize("read", [ViTConfig.from_pretrained, ViTImageProcessor.from_pretrained, load])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_of_weight_files_are_local(suffix, read, folder):
    for name in (f"models/vit{suffix}", f"vit{suffix}"):
        with pytest.raises(MissingFileError, match=f"^{name}: no such file here"):
            read(name)


@pytest.mark.parametrize("read", [ViTConfig.from_pretrained, ViTImageProcessor.from_pretrained, load])
def test_what_exists_is_local(read, folder):
    (folder.parent / "owner").mkdir()
    (folder.parent / "owner" / "name").symlink_to("../gone")
    with pytest.raises(MissingFileError, match=r"^owner/name: a link to \.\./gone, which is not there"):
        read("owner/name")
    os.mkfifo(folder.parent / "pipe")
    with pytest.raises(VitError, match=r"^pipe: expected a (folder or a weight|regular) file"):
        read("pipe")


def test_a_name_of_any_length_is_refused_in_a_short_line(folder):
    for name in (100_000 * "x", 50_000 * "x/"):
        with pytest.raises(MissingFileError) as caught:
            load(name)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["owner/name", "gpt2", "Owner_1/na-me.v2"])
def test_offline_an_empty_cache_says_so(name, tmp_path):
    with pytest.raises(MissingFileError) as caught:
        resolve(name, FILES, local_files_only=True, cache_dir=tmp_path)
    assert str(caught.value) == (
        f"{name}: no folder {name} here; not in the hub's local cache, and the hub cannot be reached "
        "(or local_files_only is set)."
    )
    assert "\n" not in str(caught.value)


@pytest.fixture
def snapshot(tmp_path):
    """One commit in a cache, known as the branch "main"."""
    repository = tmp_path / "models--owner--name"
    (repository / "snapshots" / COMMIT / "inner").mkdir(parents=True)
    for name in ("config.json", "inner/config.json"):
        (repository / "snapshots" / COMMIT / name).write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


def test_a_cached_snapshot_is_found_offline(snapshot, tmp_path):
    offline = {"local_files_only": True, "cache_dir": tmp_path}
    for revision in (None, "main", COMMIT):
        assert resolve("owner/name", FILES, revision=revision, **offline) == snapshot
    assert resolve("owner/name", FILES, subfolder="inner", **offline) == snapshot / "inner"
    assert resolve("owner/name", FILES, subfolder="inner/", **offline) == snapshot / "inner"


@pytest.mark.parametrize("commit", ["../../../elsewhere", "0123", "x" * 40])
def test_a_cache_that_leads_elsewhere_is_refused(snapshot, tmp_path, commit):
    (tmp_path / "models--owner--name" / "refs" / "main").write_text(commit)
    snapshot.rename((snapshot.parent / commit).resolve())
    with pytest.raises((CheckpointError, MissingFileError)):
        resolve("owner/name", FILES, local_files_only=True, cache_dir=tmp_path)


def test_the_commit_of_a_folder_is_in_its_path(snapshot):
    assert commit_of(snapshot) == commit_of(snapshot / "inner") == commit_of(snapshot / "config.json") == COMMIT
    assert commit_of(snapshot.parent) is commit_of(snapshot.parent / "0123") is None


def test_the_options_of_the_hub_are_those_of_a_repository(tmp_path):
    assert set(inspect.signature(Repository).parameters) == {"name", *HUB_OPTIONS}
    with pytest.raises(InputError, match="force_download needs the hub"):
        resolve("owner/name", FILES, local_files_only=True, force_download=True)
