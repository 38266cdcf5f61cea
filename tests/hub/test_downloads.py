"""What is asked of a hub, and what comes back: only the files needed, of one commit, each whole."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from backends import canonical
from hub.conftest import CONFIG
from hub.loopback import Hub, failing, sending

import conversion
import vitriad
from vit_core import AutoImageProcessor, ViTConfig, ViTImageProcessor
from vit_core.hub.download import Repository
from vit_core.parameters import draw

NAME = "owner/name"
NOISE = {"README.md": b"#", "modeling.py": b"raise SystemExit", "pytorch_model.bin": b"cos\nsystem\n"}
NOISE |= {"flax_model.msgpack": b"x", "tf_model.h5": b"x", "training_args.bin": b"x", "model.fp16.safetensors": b"x"}


def tensors(seed=0):
    return draw(CONFIG, "ViTForImageClassification", seed=seed)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def test_configuration_processor_and_model_come_from_the_hub(hub, options, files, backend, classifier):
    commit = hub.commit(NAME, {**NOISE, **files()})
    config = ViTConfig.from_pretrained(NAME, **options)
    assert config == CONFIG and config.hub_commit == commit
    assert ViTImageProcessor.from_pretrained(NAME, **options) == ViTImageProcessor(size=8)
    assert AutoImageProcessor.from_pretrained(NAME, **options) == ViTImageProcessor(size=8)
    for model in (
        classifier.from_pretrained(NAME, **options),
        vitriad.load(NAME, backend, **options),
        vitriad.AutoModelForImageClassification.from_pretrained(NAME, backend, **options),
    ):
        assert_same(canonical(backend, model), tensors())
        assert model.config.name_or_path == NAME and model.config.hub_commit == commit


def test_only_the_files_needed_are_asked_for(hub, options, files):
    hub.commit(NAME, {**NOISE, **files()})
    conversion.load(NAME, **options)
    wanted = ["config.json", "manifest.json", "model.safetensors"]
    assert sorted(path for _, path in hub.asked("GET")) == wanted
    assert {path for _, path in hub.asked()} == {*wanted}
    assert hub.log[0].headers["user-agent"].startswith("vitriad/")


def test_what_is_cached_is_not_asked_for_again(hub, options, files):
    commit = hub.commit(NAME, files())
    conversion.load(NAME, **options)
    hub.log.clear()
    conversion.load(NAME, **options)
    assert hub.asked() == [("HEAD", "config.json")]
    conversion.load(NAME, revision=commit, **options)
    assert len(hub.log) == 1
    conversion.load(NAME, force_download=True, **options)
    assert sorted(hub.asked("GET")) == [("GET", n) for n in ("config.json", "manifest.json", "model.safetensors")]


def test_of_shards_only_those_that_the_index_names(hub, options, files):
    sharded = files(max_shard_size=4000)
    shards = sorted(name for name in sharded if name.startswith("model-"))
    hub.commit(NAME, {**NOISE, **sharded, "model-00009-of-00009.safetensors": b"stale"})
    assert_same(conversion.load(NAME, **options)[1], tensors())
    got = [path for _, path in hub.asked("GET")]
    assert len(shards) > 1 and got == ["config.json", "manifest.json", "model.safetensors.index.json", *shards]
    hub.log.clear()
    assert_same(conversion.load(NAME, **options)[1], tensors())
    assert hub.asked() == [("HEAD", "config.json")]


def test_variant_and_subfolder_choose_among_files(hub, options, files):
    inner = {f"a/b/{name}": content for name, content in files(1, "inner", variant="fp16").items()}
    hub.commit(NAME, {**files(), **inner})
    options |= {"subfolder": "a/b"}
    config, found, report = conversion.load(NAME, variant="fp16", **options)
    assert_same(found, tensors(1))
    assert report.commit == config.hub_commit == hub.branches[NAME, "main"]
    assert ViTConfig.from_pretrained(NAME, **options) == CONFIG
    assert ViTImageProcessor.from_pretrained(NAME, **options) == ViTImageProcessor(size=8)
    assert all(path.startswith("a/b/") for _, path in hub.asked())


@pytest.mark.parametrize("subfolder", ["", "a/b"])
def test_a_conversion_carries_the_processor_of_the_same_commit(hub, options, files, tmp_path, subfolder):
    made = {**files(), "preprocessor_config.json": ViTImageProcessor(size=8, image_mean=0.25).to_json_string().encode()}
    hub.commit(NAME, {f"{subfolder}/{name}".lstrip("/"): content for name, content in made.items()})
    conversion.convert(NAME, tmp_path / "new", to="hf_flax", **{**options, "subfolder": subfolder})
    assert ViTImageProcessor.from_pretrained(tmp_path / "new").image_mean == 0.25
    hub.commit(NAME, {f"{subfolder}/{name}".lstrip("/"): made[name] for name in made if name[0] != "p"})
    report = conversion.convert(NAME, tmp_path / "other", **{**options, "subfolder": subfolder})
    assert any(line.startswith("image processor: none, nothing tells") for line in report.notes)


def test_all_files_are_of_one_commit_even_if_the_branch_moves(hub, options, files, backend):
    first = hub.commit(NAME, files())
    later = files(1, "later")

    def moving(answer):
        hub.commit(NAME, later)
        return answer

    hub.faults["GET", "config.json"] = [moving]
    assert_same(conversion.load(NAME, **options)[1], tensors())
    config, found, _ = conversion.load(NAME, **options)
    assert_same(found, tensors(1))
    assert config.hub_commit == hub.branches[NAME, "main"] != first
    hub.commit(NAME, files(2, "latest"))
    hub.faults["HEAD", "config.json"] = [lambda answer: answer, moving]  # after the last question for this file
    assert_same(canonical(backend, vitriad.load(NAME, backend, **options)), tensors(2))


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, options, files):
    first, second = hub.commit(NAME, files()), hub.commit(NAME, files(1, "next"), "dev")
    hub.branches[NAME, "refs/pr/1"] = second
    for revision, commit, seed in [(None, first, 0), ("dev", second, 1), ("refs/pr/1", second, 1), (second, second, 1)]:
        for offline in ({}, {"local_files_only": True}):
            config, found, _ = conversion.load(NAME, revision=revision, **options, **offline)
            assert config.hub_commit == commit
            assert_same(found, tensors(seed))


def test_a_saved_model_names_the_commit_that_it_is_from(hub, options, files, tmp_path, classifier):
    commit = hub.commit(NAME, {**files(), "config.json": json.dumps({**CONFIG.to_dict(), "hub_commit": "x"}).encode()})
    model = classifier.from_pretrained(NAME, **options)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "manifest.json").read_text())["source"] == f"{NAME}@{commit}"
    assert "hub_commit" not in (tmp_path / "saved" / "config.json").read_text()
    again = classifier.from_pretrained(tmp_path / "saved")
    assert again.config.hub_commit is None


def test_large_files_from_another_host_do_not_get_the_token(hub, options, files):
    hub.is_private = True
    hub.commit(NAME, files())
    with Hub() as hub.storage:
        assert_same(conversion.load(NAME, **options)[1], tensors())
        (request,) = hub.storage.log
        assert request.path.startswith("/storage/") and "authorization" not in request.headers
        assert Hub.TOKEN not in str(request)
    assert all(request.headers["authorization"] == f"Bearer {Hub.TOKEN}" for request in hub.log)


def test_an_interrupted_download_goes_on_where_it_was_cut(hub, options):
    content = np.random.default_rng(0).bytes(12_000_000)  # the client writes down 10 MiB at a time
    hub.commit(NAME, {"model.safetensors": content})
    hub.faults["GET", "model.safetensors"] = [sending(lambda body: body[:11_000_000])]
    assert Repository(NAME, **options).fetch("model.safetensors").read_bytes() == content
    assert [r.headers.get("range") for r in hub.log if r.method == "GET"] == [None, f"bytes={10 * 2**20}-"]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 429), ("HEAD", 500), ("HEAD", 503), ("GET", 429)])
def test_a_hub_that_fails_once_is_asked_again(hub, options, files, method, status):
    hub.commit(NAME, files())
    hub.faults[method, "model.safetensors"] = [failing(status)]
    assert_same(conversion.load(NAME, **options)[1], tensors())


@pytest.mark.parametrize("status", [429, 500])
def test_a_hub_that_fails_is_replaced_by_the_cache(hub, options, files, status, caplog):
    hub.commit(NAME, files())
    conversion.load(NAME, **options)
    hub.faults["HEAD", "config.json"] = [failing(status)]
    assert_same(conversion.load(NAME, **options)[1], tensors())
    assert "owner/name: the hub cannot be reached; taken from the cache." in caplog.text


def test_the_token_is_written_nowhere(hub, options, files, caplog, tmp_path, classifier):
    caplog.set_level("DEBUG")
    hub.is_private = True
    hub.commit(NAME, files())
    config, _, report = conversion.load(NAME, **options)
    model = classifier.from_pretrained(NAME, **options)
    model.save_pretrained(tmp_path / "saved")
    texts = [caplog.text, str(report), repr(report), repr(config), str(config.to_dict()), *(r.path for r in hub.log)]
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(stored) > 5 and not any(Hub.TOKEN.encode() in content for content in stored)
    assert "owner/name" in caplog.text and not any(Hub.TOKEN in text for text in texts)


def test_the_environment_names_hub_cache_and_token(hub, files, tmp_path):
    hub.is_private = True
    commit = hub.commit(NAME, files())
    program = f"import conversion; print(conversion.load({NAME!r})[2].commit)"
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": Hub.TOKEN}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{commit}\n", done.stderr
    assert [*(tmp_path / "home" / "hub").rglob("model.safetensors")] and Hub.TOKEN not in done.stderr
