"""Whatever a hub answers, it ends in a file that is whole or in an error of ours that says what and why."""

import itertools
import json
import time

import numpy as np
import pytest
from foreign import ENTRIES, source
from hub.loopback import Answer, Hub, failing, saying, sending

import conversion
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.errors import CheckpointError, ConfigError, ImageError, InputError, MissingFileError, UnsafeFileError
from vit_core.hub.download import Repository

NAME = "owner/name"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOO_MUCH = "bytes, got more: the hub promised no more."
UNUSABLE = "the hub cannot be reached, or its answer cannot be used"


def endless():
    return itertools.repeat(bytes(2**20))


def refusal(error, load, *arguments, **options):
    """The text of the error of a load, which is of this very class and keeps to the rules of ours."""
    with pytest.raises(error) as caught:
        load(*arguments, **options)
    assert type(caught.value) is error and caught.value.__cause__ is None
    text = str(caught.value)
    assert text.count("\n") <= 2 and len(text) <= 500 and Hub.TOKEN not in text
    return text


def page(body):
    """Whatever was asked for, this is the answer."""
    return lambda answer: Answer(200, {"Content-Length": str(len(body))}, body)


HTML = page(b"<html>Please log in to this network</html>")


# What the hub says of a file: method, file, change of the answer, error, a part of its text.
SAID = [
    ("HEAD", "config.json", failing(404, X_Error_Code="RepoNotFound"), MissingFileError, "no such repository"),
    (
        "HEAD",
        "config.json",
        failing(404, X_Error_Code="RevisionNotFound"),
        MissingFileError,
        "no branch, tag or commit",
    ),
    ("HEAD", "config.json", failing(404), CheckpointError, "HTTP 404, nothing there"),
    ("HEAD", "config.json", failing(401), CheckpointError, "HTTP 401, the token is missing or wrong"),
    ("HEAD", "config.json", failing(403), CheckpointError, "HTTP 403, the token does not allow this"),
    (
        "HEAD",
        WEIGHTS,
        failing(403, X_Error_Code="GatedRepo"),
        CheckpointError,
        "its owner restricts access.\nAccept the",
    ),
    ("HEAD", WEIGHTS, failing(418), CheckpointError, "HTTP 418."),
    ("GET", WEIGHTS, failing(500), CheckpointError, "HTTP 500."),
    ("GET", WEIGHTS, failing(403), CheckpointError, "HTTP 403"),
    ("HEAD", "config.json", HTML, CheckpointError, "config.json: the answer names no commit: is this a hub?"),
    ("HEAD", WEIGHTS, saying(X_Repo_Commit=None), CheckpointError, "names no commit"),
    ("HEAD", WEIGHTS, saying(X_Linked_Etag=None, ETag=None), CheckpointError, "names no ETag"),
    ("HEAD", WEIGHTS, saying(X_Linked_Size=None, Content_Length=None), CheckpointError, "names no size"),
    ("HEAD", WEIGHTS, saying(X_Repo_Commit="../" * 8 + "x"), CheckpointError, "expected a commit of 40 hexadecimal"),
    (
        "HEAD",
        "config.json",
        saying(ETag='"../../../x"'),
        UnsafeFileError,
        "its ETag cannot be a file name: '../../../x'",
    ),
    ("HEAD", "config.json", saying(ETag='"/etc/x"'), UnsafeFileError, "its ETag cannot be a file name"),
    ("HEAD", "config.json", saying(ETag='"..\\\\x"'), UnsafeFileError, "its ETag cannot be a file name"),
    ("HEAD", "config.json", saying(ETag='"C:x"'), UnsafeFileError, "its ETag cannot be a file name"),
    ("HEAD", "config.json", saying(Content_Length="99999999999"), CheckpointError, "above the limit of 16000000"),
    ("HEAD", "config.json", saying(Content_Length=None), None, ""),  # texts have a limit of their own
    ("HEAD", "config.json", lambda a: Answer(302, {"Location": "ftp://x/"}), CheckpointError, "names no commit"),
    ("GET", WEIGHTS, sending(lambda body: body + b"x"), None, ""),  # the line protocol ends at the promised length
    ("GET", WEIGHTS, sending(lambda body: bytes(len(body))), CheckpointError, "expected SHA-256 "),
    (
        "GET",
        WEIGHTS,
        lambda a: Answer(200, {"Content-Length": "5"}, b"short"),
        CheckpointError,
        "another size than the",
    ),
    ("GET", WEIGHTS, lambda a: Answer(200, {}, b"short"), CheckpointError, "another size than the hub promised"),
    ("GET", WEIGHTS, lambda a: Answer(200, {}, endless()), CheckpointError, TOO_MUCH),
    ("GET", WEIGHTS, lambda a: Answer(200, {"Content-Length": str(2**60)}, endless()), CheckpointError, TOO_MUCH),
]


@pytest.mark.parametrize(("method", "file", "change", "error", "part"), SAID, ids=range(len(SAID)))
def test_what_cannot_be_used_is_refused(hub, options, files, tmp_path, method, file, change, error, part):
    hub.commit(NAME, files())
    hub.faults[method, file] = [change]
    outside = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    start = time.monotonic()
    if error:
        assert part in refusal(error, conversion.load, NAME, **options)
    assert conversion.load(NAME, **options)[2].commit == hub.branches[NAME, "main"]  # nothing damaged was kept
    assert time.monotonic() - start < 10
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == outside
    assert not [*options["cache_dir"].rglob("*.incomplete")]


@pytest.mark.parametrize("load", [ViTConfig.from_pretrained, conversion.load])
def test_a_name_that_could_be_a_folder_s_is_said_to_be_none(load, hub, options):
    hub.commit("nope", {})
    hub.faults["HEAD", "config.json"] = [failing(403)]
    assert refusal(CheckpointError, load, "nope", **options).startswith(
        "nope: no folder nope here; the hub refused: HTTP 403"
    )


def test_a_file_that_is_missing_here_is_not_asked_of_the_hub(hub, options):
    for name in ("nope.safetensors", "models/nope.pth", "a/b/c"):
        refusal(MissingFileError, conversion.load, name, **options)
    assert hub.log == []


def test_a_hub_that_fails_on_and_on_is_given_up(hub, options, files):
    hub.commit(NAME, files())
    hub.faults["HEAD", "config.json"] = [failing(429)] * 20
    text = refusal(CheckpointError, ViTConfig.from_pretrained, NAME, **options)
    assert text == f"{NAME}: no folder {NAME} here; the hub refused: HTTP 429, too many requests; wait a while."
    assert len(hub.log) == 6


def test_a_hub_that_leads_in_circles_is_left(hub, options, files):
    hub.commit(NAME, files())
    circle = Answer(302, {"Location": f"/{NAME}/resolve/main/config.json"})
    hub.faults["HEAD", "config.json"] = [lambda answer: circle] * 50
    assert UNUSABLE in refusal(CheckpointError, ViTConfig.from_pretrained, NAME, **options)


def test_a_private_repository_and_one_that_is_not_there_look_alike(hub, options, files):
    hub.is_private = True
    hub.commit(NAME, files())
    for name, token in ((NAME, "hf_wrong"), (NAME, False), ("owner/other", Hub.TOKEN)):
        text = refusal(MissingFileError, ViTConfig.from_pretrained, name, **{**options, "token": token})
        assert text.startswith(f"{name}: no such folder here and no such repository on the hub.\nCheck the spelling; a")


def test_a_token_that_no_header_can_hold_is_not_shown(hub, options, files):
    hub.commit(NAME, files())
    text = refusal(CheckpointError, ViTConfig.from_pretrained, NAME, **{**options, "token": Hub.TOKEN + "\nx"})
    assert UNUSABLE in text


def test_a_file_that_is_not_there_is_named(hub, options):
    hub.commit(NAME, {"README.md": b"#"})
    for load, file in [
        (ViTConfig.from_pretrained, "config.json"),
        (ViTImageProcessor.from_pretrained, "preprocessor_config.json"),
        (conversion.load, f"{WEIGHTS} nor {INDEX}"),
    ]:
        assert refusal(MissingFileError, load, NAME, **options) == f"{NAME} on the hub, revision main: no {file}."
    text = refusal(MissingFileError, conversion.load, NAME, subfolder="a/", **options)
    assert text == f"{NAME} on the hub, revision main: no a/{WEIGHTS} nor a/{INDEX}."


@pytest.mark.parametrize("other", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "some.pth"])
def test_other_containers_are_fetched_where_there_are_no_safetensors(hub, options, files, tmp_path, other):
    made = {"config.json": files()["config.json"], other: b"cos\nsystem\n", "../../x.bin": b"x", "C:\\y.bin": b"x"}
    hub.commit(NAME, made)
    (tmp_path / "local").mkdir()
    for name in ("config.json", other):
        (tmp_path / "local" / name).write_bytes(made[name])
    local = refusal(CheckpointError, conversion.load, tmp_path / "local")
    remote = refusal(CheckpointError, conversion.load, NAME, **options)
    assert local.partition(other)[2] == remote.partition(other)[2] and other in remote
    asked = [path for _, path in hub.asked("GET")]
    assert len(asked) == 3 and asked[0] == "config.json" and asked[1].startswith("api/models/owner/name/tree/")
    assert asked[2] == other


def test_a_foreign_file_is_loaded_from_the_hub_and_then_from_its_cache(hub, options):
    (entry,) = (entry for entry in ENTRIES if entry["name"] == "google_vit_prelinen")
    path = source(entry)
    hub.commit(NAME, {"README.md": b"#", path.name: path.read_bytes()})
    local = conversion.load(path)
    for more in ({}, {"local_files_only": True}):
        remote = conversion.load(NAME, **options, **more)
        assert remote[0].num_labels == local[0].num_labels and remote[2].dialect == "google"
        np.testing.assert_array_equal(remote[1]["classifier.weight"], local[1]["classifier.weight"])


@pytest.mark.parametrize("change", [HTML, page(b'[{"type": "fi'), page(b'[{"type": "file"}]'), page(b"7")])
def test_a_listing_that_makes_no_sense_is_refused(hub, options, change):
    commit = hub.commit(NAME, {"config.json": b"{}"})
    hub.faults["GET", f"tree/{commit}"] = [change] * 20
    assert UNUSABLE in refusal(CheckpointError, conversion.load, NAME, **options)


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "C:x.safetensors", ".x"]
)
def test_hostile_names_of_shards_are_never_asked_for(hub, options, shard):
    index = json.dumps({"weight_map": {"vit.x": shard}}).encode()
    hub.commit(NAME, {"config.json": b"{}", INDEX: index, shard: b"x"})
    assert "expected the plain name of a" in refusal(UnsafeFileError, conversion.load, NAME, **options)
    assert [path for _, path in hub.asked("GET")] == ["config.json", INDEX]


def test_a_shard_that_is_not_there_is_named(hub, options, files):
    made = files(max_shard_size=4000)
    hub.commit(NAME, {name: content for name, content in made.items() if "-00002-" not in name})
    assert "model-00002-of-" in refusal(MissingFileError, conversion.load, NAME, **options)


@pytest.mark.parametrize("content", [b"", b'{"hidden_size": 1', b"<html>", b"[]", b"\xff"])
def test_texts_that_are_cut_or_none(hub, options, content):
    hub.commit(NAME, {"config.json": content, "preprocessor_config.json": content})
    assert "config.json: " in refusal(ConfigError, ViTConfig.from_pretrained, NAME, **options)
    assert "preprocessor_config.json: " in refusal(ImageError, ViTImageProcessor.from_pretrained, NAME, **options)


@pytest.mark.parametrize("value", ["../x", "/x", "a/../b", "a\\b", "C:x", "a\0b", "a//b", ".."])
def test_options_that_lead_elsewhere_are_refused(hub, options, value):
    hub.commit(NAME, {"config.json": b"{}"})
    with pytest.raises((InputError, CheckpointError), match="expected a"):
        ViTConfig.from_pretrained(NAME, subfolder=value, **options)
    with pytest.raises(InputError, match="revision: expected a name"):
        ViTConfig.from_pretrained(NAME, revision=value, **options)
    with pytest.raises(InputError, match="revision: expected a name"):
        ViTConfig.from_pretrained(NAME, revision=5, **options)
    assert hub.log == []


def test_a_cache_that_cannot_be_written_is_named(hub, options, tmp_path):
    hub.commit(NAME, {"config.json": b"{}"})
    (tmp_path / "cache").write_text("no folder")
    text = refusal(CheckpointError, ViTConfig.from_pretrained, NAME, **options)
    assert text.startswith(f"{NAME}: ") and f": {tmp_path}/cache" in text


def test_a_text_of_unknown_size_that_never_ends_is_cut(hub, options):
    hub.commit(NAME, {"config.json": b"{}"})
    hub.faults["HEAD", "config.json"] = [saying(Content_Length=None)] * 2
    hub.faults["GET", "config.json"] = [lambda answer: Answer(200, {}, endless())]
    text = refusal(CheckpointError, ViTConfig.from_pretrained, NAME, **options)
    assert text == f"{NAME}: config.json: expected 16000000 {TOO_MUCH}"


def test_a_link_out_of_the_cache_is_not_followed(hub, options, files, tmp_path):
    commit = hub.commit(NAME, files())
    path = Repository(NAME, **options).fetch("config.json")
    path.unlink()
    path.symlink_to(tmp_path / "made" / "config.json")
    for revision in (None, commit):
        with pytest.raises(UnsafeFileError, match="lies outside its folder of the cache"):
            ViTConfig.from_pretrained(NAME, revision=revision, **options)


def test_a_hub_that_stops_in_the_middle_is_given_up(hub, options, files):
    hub.commit(NAME, files())

    def stalling():
        yield b"x"
        time.sleep(3)

    hub.faults["GET", WEIGHTS] = [lambda answer: answer._replace(body=stalling())] * 20
    assert UNUSABLE in refusal(CheckpointError, conversion.load, NAME, **options)
