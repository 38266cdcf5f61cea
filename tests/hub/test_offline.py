"""Without a network nothing is asked of one: in processes where every connection is refused and counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from backends import INSTALLED
from hub.loopback import Hub

import conversion
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.errors import InputError, MissingFileError
from vitriad.backends import BACKENDS

NAME = "owner/name"
PROGRAM = Path(__file__).with_name("offline_loads.py")


def loads(name, **options):
    """What `offline_loads.py` is to load: everything, from one place."""
    return [[what, str(name), options] for what in ("config", "processor", "model", "any")]


def loaded(backend):
    """What all of that is."""
    return ["ViTConfig", "ViTImageProcessor", *[f"{BACKENDS[backend].prefix}ViTForImageClassification"] * 2]


def ending(orders, tmp_path, backend=INSTALLED[0], **environment):
    """What it said. The client is set as for a user: nothing but what the test says is switched off."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**clean, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(PROGRAM), backend, json.dumps(orders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def cache(hub, options, files, tmp_path):
    """A cache that has everything, by the default branch; the hub is gone."""
    hub.commit(NAME, files(max_shard_size=4000))
    conversion.load(NAME, **options)
    ViTImageProcessor.from_pretrained(NAME, **options)
    return str(tmp_path / "cache")


@pytest.mark.every_day("torch", "flax")
def test_neither_a_local_folder_nor_the_cache_opens_a_connection(cache, tmp_path, backend):
    """And for the folder, nothing of ours imports the client; Keras itself does."""
    missing = [["config", "owner/other", {"cache_dir": cache, "local_files_only": True}]]
    orders = [*loads(tmp_path / "made"), *loads(NAME, cache_dir=cache, local_files_only=True), *missing]
    said = ending(orders, tmp_path, backend)
    assert said["endings"][:8] == 2 * loaded(backend)
    assert said["endings"][8].startswith("MissingFileError: owner/other: no folder owner/other here; not in the")
    assert said["tried"] == [] and said["has_client"] == [backend == "tf"] * 4 + [True] * 5


def test_the_environment_can_forbid_connections(cache, tmp_path):
    missing = [["model", "owner/other", {"cache_dir": cache}]]
    said = ending([*loads(NAME, cache_dir=cache), *missing], tmp_path, HF_HUB_OFFLINE="1")
    assert said["endings"][:4] == loaded(INSTALLED[0]) and said["endings"][4].startswith(
        "MissingFileError: owner/other: no folder owner/other here; not in the"
    )
    assert said["tried"] == []


def test_the_count_counts(tmp_path):
    said = ending([["connection", "127.0.0.1", {}]], tmp_path)
    assert said["tried"] and said["endings"][0].startswith("PermissionError")


def test_a_hub_that_is_gone_is_replaced_by_the_cache_at_once(options, files, caplog):
    with Hub() as hub:
        commit = hub.commit(NAME, {name: content for name, content in files().items() if name != "manifest.json"})
        options |= {"endpoint": hub.url}
        conversion.load(NAME, **options)
    for revision in (None, commit):
        assert conversion.load(NAME, revision=revision, **options)[2].commit == commit
    assert "taken from the cache" in caplog.text


def test_offline_what_is_not_cached_is_missing(hub, options, cache):
    offline = {**options, "local_files_only": True}
    for name, more in ((NAME, {"revision": "dev"}), (NAME, {"subfolder": "a"}), ("owner/other", {})):
        with pytest.raises(MissingFileError, match="not in the hub's local cache"):
            ViTConfig.from_pretrained(name, **offline, **more)
    with pytest.raises(InputError, match="force_download needs the hub"):
        ViTConfig.from_pretrained(NAME, force_download=True, **offline)
