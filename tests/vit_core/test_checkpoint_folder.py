"""Folders of weights: shards and their index, variants, links, and the manifest that tells damage."""

import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import refusing

from vit_core.errors import CheckpointError, InputError, MissingFileError, UnsafeFileError
from vit_core.files import manifest
from vit_core.files.folders import open_weights
from vit_core.files.saving import save_folder
from vit_core.limits import LIMITS

TENSORS = {name: np.full(3, value, np.float32) for value, name in enumerate("abcd")}
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """Two shards of two tensors each, and no manifest."""
    save_folder(tmp_path / "model", files={}, tensors=TENSORS, max_shard_size=24)
    (tmp_path / "model" / "manifest.json").unlink()
    return tmp_path / "model"


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def refusal(folder, error=CheckpointError, **options):
    message = refusing.refusal(lambda: open_weights(folder, **options), error)
    assert message.startswith(str(folder))
    return message.removeprefix(str(folder)).removeprefix("/")


def check(weights, tensors=TENSORS):
    assert sorted(weights) == sorted(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(weights[name], array)


# Shards


def test_shards_are_read_with_and_without_the_index_metadata(folder):
    check(open_weights(folder))
    edit_index(folder, lambda index: index.pop("metadata"))
    check(open_weights(folder))
    check(open_weights(folder, mmap=False))


def test_a_single_file_comes_before_an_index(folder):
    (folder / "model.safetensors").write_bytes((folder / SHARDS[0]).read_bytes())
    check(open_weights(folder), {name: TENSORS[name] for name in "ab"})


def test_a_file_of_its_own_is_read(folder):
    check(open_weights(folder / SHARDS[1]), {name: TENSORS[name] for name in "cd"})
    (folder.parent / "link").symlink_to(folder / SHARDS[1])  # named by the caller, so followed
    check(open_weights(folder.parent / "link"), {name: TENSORS[name] for name in "cd"})


CHANGES = {
    "promised, absent": (lambda w: w.update(e=SHARDS[0]), f"{INDEX}: {SHARDS[0]} does not hold 'e' (1 such names)."),
    "extra": (lambda w: w.pop("b"), f"{INDEX}: {SHARDS[0]} also holds 'b' (1 such names)."),
    "in another shard": (lambda w: w.update(b=SHARDS[1]), f"{INDEX}: {SHARDS[0]} also holds 'b' (1 such names)."),
    "no shard": (lambda w: w.update(e="model-3.safetensors"), "model-3.safetensors: no such file."),
    "no names": (lambda w: w.clear(), f"{INDEX}: weight_map: expected file names by tensor name, got {{}}."),
    "no text": (lambda w: w.update(a=1), f"{INDEX}: weight_map: expected file names by tensor name"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_an_index_that_is_wrong_is_refused(folder, kind):
    change, reason = CHANGES[kind]
    edit_index(folder, lambda index: change(index["weight_map"]))
    assert refusal(folder).startswith(reason)


def test_a_tensor_in_two_shards_is_refused(folder):
    save_folder(folder.parent / "other", files={}, tensors={name: TENSORS[name] for name in "bcd"})
    os.replace(folder.parent / "other" / "model.safetensors", folder / SHARDS[1])
    assert refusal(folder) == f"{INDEX}: {SHARDS[1]} also holds 'b' (1 such names)."


@pytest.mark.parametrize("content", ["", "[]", "{", '{"weight_map": []}', '{"weight_map": {"a": 1, "a": 2}}', "\udcff"])
def test_an_index_that_is_none_is_refused(folder, content):
    (folder / INDEX).write_text(content, errors="surrogateescape")
    assert refusal(folder).startswith(INDEX)


NAMES = ["../{0}", "/etc/{0}", "sub/{0}", "..\\{0}", "C:{0}", ".{0}", "{0}.bin", "", "a\0{0}", ".."]


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_is_never_looked_for_elsewhere(folder, name, monkeypatch):
    edit_index(folder, lambda index: index["weight_map"].update(a=name.format(SHARDS[0])))
    opened = []
    original = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *args, **kwargs: opened.append(path) or original(path, *args, **kwargs)
    )
    assert "expected the plain name of a .safetensors file, got" in refusal(folder, UnsafeFileError)
    assert {os.fspath(path) for path in opened} == {str(folder / INDEX)}


def test_limits_of_the_index_hold(folder):
    check(open_weights(folder, limits=replace(LIMITS, shards=2)))
    message = refusal(folder, limits=replace(LIMITS, shards=1))
    assert message == f"{INDEX}: 2 shards, above the limit of 1; to raise it: limits=replace(LIMITS, shards=...)."
    size = (folder / INDEX).stat().st_size
    check(open_weights(folder, limits=replace(LIMITS, index_bytes=size)))
    assert f"{size} bytes, above the limit of" in refusal(folder, limits=replace(LIMITS, index_bytes=size - 1))


def test_nothing_there_is_said_by_name(tmp_path):
    message = refusal(tmp_path, MissingFileError)
    assert message == f": no weights here: neither model.safetensors nor {INDEX}."


# Variants


def test_variants_have_names_of_their_own(tmp_path):
    folder = tmp_path / "model"
    halves = {name: array.astype(np.float16) for name, array in TENSORS.items()}
    save_folder(folder, files={}, tensors=TENSORS)
    save_folder(folder, files={}, tensors=halves, variant="fp16")
    save_folder(folder, files={}, tensors=halves, variant="fp16", max_shard_size=12)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "model.fp16-00001-of-00002.safetensors",
        "model.fp16-00002-of-00002.safetensors",
        "model.safetensors",
        "model.safetensors.index.fp16.json",
    ]
    check(open_weights(folder, verify=True))
    check(open_weights(folder, variant="fp16", verify=True), halves)
    assert "neither model.bf16.safetensors nor" in refusal(folder, MissingFileError, variant="bf16")


@pytest.mark.parametrize("variant", ["", ".", "../x", "a/b", "a.b", "a b", "*", "[a]"])
def test_a_variant_is_part_of_a_file_name(tmp_path, variant):
    with pytest.raises(InputError, match="variant: expected letters, digits, '-' and '_'"):
        open_weights(tmp_path, variant=variant)
    with pytest.raises(InputError, match="variant: expected"):
        save_folder(tmp_path / "model", files={}, tensors=TENSORS, variant=variant)
    assert list(tmp_path.iterdir()) == []


# Links


@pytest.mark.parametrize("name", [SHARDS[1], INDEX, "manifest.json", "model.safetensors"])
def test_links_out_of_the_folder_are_not_followed(folder, name):
    (folder / "manifest.json").write_text('{"vitriad": "0", "files": {}}')
    (folder / "model.safetensors").write_bytes(b"")
    if name != "model.safetensors":
        (folder / "model.safetensors").unlink()
    outside = folder.parent / "outside.safetensors"
    os.replace(folder / name, outside)
    (folder / name).symlink_to(outside)
    assert refusal(folder, UnsafeFileError).startswith(f"{name}: a symbolic link out of its folder")


@pytest.mark.parametrize("is_shared", [False, True])
def test_links_within_the_folder_and_the_cache_of_the_hub_are_followed(folder, is_shared):
    os.replace(folder / SHARDS[1], folder / "other.safetensors")
    (folder / SHARDS[1]).symlink_to("other.safetensors")
    check(open_weights(folder))
    cache = folder.parent / "models--owner--name"
    (cache / "blobs").mkdir(parents=True)
    (folder.parent / "blobs" / "ab").mkdir(parents=True)
    for inner in ("", "sub"):
        snapshot = cache / "snapshots" / ("0" * 40) / inner
        snapshot.mkdir(parents=True, exist_ok=True)
        for name in (*SHARDS, INDEX):
            blob = cache / "blobs" / f"{name}{inner}"
            blob.write_bytes((folder / name).read_bytes())
            if is_shared:  # by all repositories: huggingface_hub 2.4
                os.replace(blob, folder.parent / "blobs" / "ab" / blob.name)
                blob.symlink_to(f"../../blobs/ab/{blob.name}")
            (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
        check(open_weights(snapshot))


def test_a_folder_called_blobs_elsewhere_is_not_the_hub_s(folder):
    (folder.parent / "blobs").mkdir()
    os.replace(folder / SHARDS[1], folder.parent / "blobs" / "x")
    (folder / SHARDS[1]).symlink_to("../blobs/x")
    refusal(folder, UnsafeFileError)


# The manifest


@pytest.fixture
def saved(tmp_path):
    save_folder(tmp_path / "model", files={"config.json": "{}"}, tensors=TENSORS, max_shard_size=24, source="here")
    return tmp_path / "model"


def test_a_manifest_names_sizes_digests_version_and_source(saved):
    said = json.loads((saved / "manifest.json").read_text())
    assert sorted(said["files"]) == [*SHARDS, INDEX]
    assert said["files"][INDEX]["size"] == (saved / INDEX).stat().st_size
    assert len(said["files"][INDEX]["sha256"]) == 64
    assert said["source"] == "here" and said["vitriad"][0].isdigit()
    check(open_weights(saved, verify=True))


@pytest.mark.parametrize("name", [SHARDS[0], INDEX])
def test_damage_and_other_writers_are_told(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[-1] = ord(" ") if name == INDEX else content[-1] ^ 1  # a space for a newline, a bit of a value
    (saved / name).write_bytes(content)
    for verify in ("auto", True):
        message = refusal(saved, verify=verify)
        assert message.startswith(f"{name}: not as manifest.json records it: the file is damaged, or another program")
        assert "delete manifest.json, or pass verify=False" in message
    open_weights(saved, verify=False)
    (saved / "manifest.json").unlink()
    open_weights(saved)


def test_a_file_the_manifest_does_not_know_is_another_program_s(saved):
    (saved / "model.safetensors").write_bytes((saved / SHARDS[0]).read_bytes())
    assert "not as manifest.json records it" in refusal(saved)


def test_verify_true_needs_a_manifest(folder):
    assert "verify=True needs the one that vitriad saves" in refusal(folder, MissingFileError, verify=True)
    with pytest.raises(InputError, match='verify: expected "auto", True or False'):
        open_weights(folder, verify="always")


def test_another_program_s_manifest_is_left_alone(folder):
    (folder / "manifest.json").write_text('{"name": "app"}')
    check(open_weights(folder))
    refusal(folder, MissingFileError, verify=True)


@pytest.mark.parametrize("content", ["", "[]", '{"vitriad": "0"}', '{"vitriad": "0", "files": []}'])
def test_a_broken_manifest_is_damage(folder, content):
    (folder / "manifest.json").write_text(content)
    assert refusal(folder).startswith("manifest.json: ")
    check(open_weights(folder, verify=False))


# Pieces of large files

PAGE = 65_536  # bytes, of any system here


@pytest.fixture
def pieces(tmp_path, monkeypatch):
    """A file of four pieces and a bit, with a manifest that has their digests."""
    monkeypatch.setattr(manifest, "PIECE", PAGE)
    tensors = {name: np.arange(PAGE, dtype=np.uint8) for name in "abcd"}
    save_folder(tmp_path / "model", files={}, tensors=tensors)
    return tmp_path / "model"


def edit_manifest(folder, change):
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_large_files_have_a_digest_for_each_piece(pieces):
    content = (pieces / "model.safetensors").read_bytes()
    said = json.loads((pieces / "manifest.json").read_text())
    assert said["pieces"] == {
        "model.safetensors": [
            hashlib.sha256(content[start : start + PAGE]).hexdigest() for start in range(0, len(content), PAGE)
        ]
    }
    whole = hashlib.sha256(content).hexdigest()
    assert said["files"]["model.safetensors"] == {"sha256": whole, "size": len(content)}  # as without pieces


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("has_pieces", [True, False])
def test_a_flipped_bit_is_told_in_every_piece(pieces, mmap, has_pieces):
    if not has_pieces:  # as saves made them before
        edit_manifest(pieces, lambda said: said.pop("pieces"))
    open_weights(pieces, mmap=mmap)
    path = pieces / "model.safetensors"
    content = path.read_bytes()
    for place in [*range(PAGE, len(content), PAGE), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "not as manifest.json records it" in refusal(pieces, mmap=mmap)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop(),
        lambda found: found.append(found[0]),
        lambda found: found.reverse(),
        lambda found: found.__setitem__(2, None),
    ],
)
def test_digests_of_other_pieces_are_refused(pieces, change):
    edit_manifest(pieces, lambda said: change(said["pieces"]["model.safetensors"]))
    assert "not as manifest.json records it" in refusal(pieces)


def test_pieces_do_not_stand_for_a_file_of_no_record_or_another_size(pieces):
    edit_manifest(pieces, lambda said: said["files"]["model.safetensors"].update(size=PAGE))
    assert "not as manifest.json records it" in refusal(pieces)
    edit_manifest(pieces, lambda said: said["files"].clear())
    assert "not as manifest.json records it" in refusal(pieces)
    edit_manifest(pieces, lambda said: said.update(pieces=[]))
    assert refusal(pieces).startswith("manifest.json: pieces: expected records by file name")
