"""The command to install an extra names the copy that is running."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from vit_core.installing import install_command, own_source, own_version


class Recorded:
    """An installed distribution whose direct_url.json holds some text."""

    def __init__(self, text):
        self.text = text

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.text


@pytest.fixture
def recorded(monkeypatch):
    def say(text):
        monkeypatch.setattr("importlib.metadata.distribution", lambda name: Recorded(text))

    return say


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"url": 3}'])
def test_a_copy_from_an_index_or_of_unknown_origin_is_called_by_its_name(recorded, text):
    recorded(text)
    assert install_command("torch") == "pip install 'vitriad[torch]'"


def test_a_checkout_is_installed_from_its_folder(recorded, tmp_path):
    folder = tmp_path / "my vitriad"
    folder.mkdir()
    recorded(json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}}))
    assert install_command("tf", "convert") == f"pip install -e '{folder}[tf,convert]'"
    recorded(json.dumps({"url": folder.as_uri(), "dir_info": {}}))
    assert install_command("tf") == f"pip install '{folder}[tf]'"


def test_a_wheel_is_installed_from_its_file(recorded, tmp_path):
    wheel = tmp_path / "vitriad-0.1.0-py3-none-any.whl"
    wheel.touch()
    recorded(json.dumps({"url": wheel.as_uri(), "archive_info": {"hash": "sha256=0"}}))
    assert install_command("flax") == f"pip install '{wheel}[flax]'"


@pytest.mark.parametrize("mark", ["'", '"'])
def test_a_copy_whose_source_is_gone_gets_what_the_extra_asks_for(recorded, monkeypatch, mark):
    lines = ["numpy>=2.0", *(f"{need}; extra == {mark}{need[:2]}{mark}" for need in ("jax>=1", "tf>=2", "h5>=3"))]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    for kind in ("dir_info", "archive_info"):
        recorded(json.dumps({"url": "file:///no/such/place", kind: {}}))
        assert install_command("tf") == "pip install 'tf>=2'"
        assert install_command("ja", "h5") == "pip install 'jax>=1' 'h5>=3'"


def test_repositories_and_downloads_are_named_with_their_address(recorded, tmp_path):
    vcs = {"vcs": "git", "commit_id": "0123abc", "requested_revision": "main"}
    recorded(json.dumps({"url": f"{tmp_path.as_uri()}/my tree", "vcs_info": vcs}))
    assert install_command("flax") == f"pip install 'vitriad[flax] @ git+{tmp_path.as_uri()}/my%20tree@0123abc'"
    recorded(json.dumps({"url": "https://example.org/vitriad.git", "vcs_info": vcs}))
    assert install_command("flax") == "pip install 'vitriad[flax] @ git+https://example.org/vitriad.git@0123abc'"
    recorded(json.dumps({"url": "https://example.org/vitriad.whl", "archive_info": {}}))
    assert install_command("flax") == "pip install 'vitriad[flax] @ https://example.org/vitriad.whl'"


def missing(name):
    raise PackageNotFoundError(name)


def test_a_source_tree_that_was_never_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert install_command("torch").startswith("pip install ") and install_command("torch").endswith("[torch]'")


def test_the_version_of_a_source_tree_that_was_never_installed_is_unknown(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", missing)
    assert own_version() == "unknown"


def test_pip_is_told_where_to_get_this_copy_again(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
    wheel = tmp_path / "vitriad-0.1.0-py3-none-any.whl"
    wheel.touch()
    vcs = {"vcs": "git", "commit_id": "0123abc"}
    for said, source in (
        ({"url": wheel.as_uri(), "archive_info": {}}, str(wheel)),
        ({"url": "https://example.org/vitriad.git", "vcs_info": vcs}, "git+https://example.org/vitriad.git@0123abc"),
        ({"url": "https://example.org/vitriad.whl", "archive_info": {}}, "https://example.org/vitriad.whl"),
        ({"url": "file:///no/such/place", "dir_info": {}}, "vitriad==0.1.0"),
    ):
        recorded(json.dumps(said))
        assert own_source() == source
