"""The command to install an extra names the copy that is running."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from vit_core.installing import install_command


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


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"url": "file:///no/such/place", "dir_info": {}}'])
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


def test_repositories_and_downloads_are_named_with_their_address(recorded):
    vcs = {"vcs": "git", "commit_id": "0123abc", "requested_revision": "main"}
    recorded(json.dumps({"url": "https://example.org/vitriad.git", "vcs_info": vcs}))
    assert install_command("flax") == "pip install 'vitriad[flax] @ git+https://example.org/vitriad.git@0123abc'"
    recorded(json.dumps({"url": "https://example.org/vitriad.whl", "archive_info": {}}))
    assert install_command("flax") == "pip install 'vitriad[flax] @ https://example.org/vitriad.whl'"


def test_a_source_tree_that_was_never_installed_is_named(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert install_command("torch").startswith("pip install ") and install_command("torch").endswith("[torch]'")
