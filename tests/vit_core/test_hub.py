"""Where a name points, without a network: folders, names that are none, and a cache that is empty."""

import socket
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from vit_core import hub
from vit_core.errors import CheckpointError, MissingFileError
from vit_core.hub import HUB_OPTIONS, resolve

FILES = ["config.json"]
OFF = {"local_files_only": False, "force_download": False}


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


@pytest.mark.parametrize("name", ["owner/name", "gpt2", "Owner_1/na-me.v2"])
def test_offline_an_empty_cache_says_so(name, tmp_path):
    with pytest.raises(MissingFileError) as caught:
        resolve(name, FILES, local_files_only=True, cache_dir=tmp_path)
    assert str(caught.value) == (
        f"{name}: not in the local cache, and the hub cannot be reached (or local_files_only is set)."
    )
    assert "\n" not in str(caught.value)


def test_a_cached_snapshot_is_found_offline(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    (repository / "snapshots" / commit / "inner").mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for revision in (None, "main", commit):
        found = resolve("owner/name", FILES, revision=revision, local_files_only=True, cache_dir=tmp_path)
        assert (found / "config.json").read_text() == "{}"
    found = resolve("owner/name", FILES, subfolder="inner", local_files_only=True, cache_dir=tmp_path)
    assert found == repository / "snapshots" / commit / "inner"


def test_what_is_asked_of_the_hub(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "_download", lambda *args, **options: asked.append((args, options)) or tmp_path)
    given = {"revision": "v1", "cache_dir": "c", "token": "secret", "local_files_only": True, "force_download": True}
    assert resolve("owner/name", ["a.json", "*.bin"], subfolder="sub", **given) == tmp_path / "sub"
    assert asked == [(("owner/name", ["sub/a.json", "sub/*.bin"]), given)]
    assert {*HUB_OPTIONS} == {*given, "subfolder"}
    assert resolve("owner/name", FILES) == tmp_path
    assert asked[1] == (("owner/name", FILES), dict.fromkeys(["revision", "cache_dir", "token"]) | OFF)


REFUSALS = [
    (RepositoryNotFoundError, "401", MissingFileError, "no such repository on the hub.\nCheck the spelling; a private"),
    (RevisionNotFoundError, "404: no v9\nmore", CheckpointError, "owner/name: the hub refused: 404: no v9"),
    (HfHubHTTPError, "", CheckpointError, "owner/name: the hub refused: no reason given"),
]


@pytest.mark.parametrize(("answer", "text", "error", "part"), REFUSALS)
def test_what_the_hub_refuses_is_an_error_of_ours(answer, text, error, part, monkeypatch):
    def refuse(name, allow_patterns, **options):
        raise answer(text, response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(error) as caught:
        resolve("owner/name", FILES, token="hf_secret", revision="v9")
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
