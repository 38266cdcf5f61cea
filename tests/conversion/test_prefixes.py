"""What stands in front of names: taken off where that explains one whole model, said, and never guessed at."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES, FOLDER, keywords, source
from refusing import refusal
from weight_files import torch_tree

import conversion
from conversion.detecting import detect, kinds, open_source
from conversion.dialects import DIALECTS
from conversion.layouts import from_canonical
from conversion.naming import template
from vit_core.errors import CheckpointError
from vit_core.files.containers import open_any
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces

CLS = "ViTForImageClassification"
CONFIG = make_config(CLS)
TENSORS = make_tensors(CLS, CONFIG)
BARE = {name.removeprefix("vit."): array for name, array in TENSORS.items() if name.startswith("vit.")}
OTHERS = {name: -array for name, array in TENSORS.items()}
PREFIXES = (
    *("module.", "_orig_mod.", "model.", "backbone.", "net.", "encoder.", "vit.", "base_model.model.", "my_own.name."),
    *("module._orig_mod.model.backbone.", "a.b.c.d.e.f.", "teacher.vit.", "image_encoder.", "layers/my_model/", "vit/"),
)


FILES = {  # dialect -> a file of one of its libraries
    "google": "bigvision_tok",
    "hf": "hf4_vit_cls",
    "hf_flax": "flax_vit_cls",
    "hf_tf": "tf_vit_cls",
    "keras_hub": "keras_hub_preset_cls",
    "mae": "mae_full_normpix_true_train_checkpoint",
    "timm": "deit3_layerscale",
    "torchvision": "torchvision_vit",
}
WRITTEN = {"vitriad_tf"}


def save(path, tensors, form="pt"):
    path.unlink(missing_ok=True)
    held = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_pieces(path, serialised(held, lambda size: None, metadata={"format": form}))
    return path


RELATIVES = {"hf_dinov2", "hf_deit", "hf_ijepa"}  # in test_relatives.py


def behind(prefix, tensors=TENSORS):
    return {prefix + name: array for name, array in tensors.items()}


def in_keras_names(tensors):
    """The variables of a classifier of vit_tf, as Keras numbers them."""
    rows, found = DIALECTS[-2].rows, {}
    for name, array in tensors.items():
        bare = name.removeprefix("vit.")
        number = next((word for word in bare.split(".") if word.isdecimal()), "0")
        spelled = rows[template(bare)][-1 if number != "0" else 0].replace("{i}", number)
        spelled = f"vit/{spelled}" if name.startswith("vit.") else spelled
        found[spelled] = from_canonical(array, kinds()[template(bare)], "keras")
    return found


@pytest.fixture
def folder(tmp_path):
    CONFIG.save_pretrained(tmp_path)
    return tmp_path


def same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def refused(read, *matches):
    text = refusal(read, CheckpointError)
    assert all(match in text for match in matches), text
    return text


def test_every_dialect_is_tried():
    assert {*FILES} | WRITTEN | RELATIVES == {dialect.name for dialect in DIALECTS}


@pytest.mark.parametrize("dialect", FILES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_on_every_dialect(tmp_path, dialect, prefix):
    entry = next(entry for entry in ENTRIES if entry["name"] == FILES[dialect])
    plain = open_source(source(entry), verify=False).weights
    for name in ("config.json", "task.json"):
        if (FOLDER / entry["name"] / name).exists():
            shutil.copy(FOLDER / entry["name"] / name, tmp_path)
    path = save(
        tmp_path / "x.safetensors", behind(prefix, {name: tensor.read() for name, tensor in plain.infos.items()})
    )
    config, tensors, report = conversion.load(path, **keywords(entry))
    expected_config, expected, expected_report = conversion.load(source(entry), **keywords(entry))
    same(tensors, expected)
    assert config.to_dict() == expected_config.to_dict() | {"name_or_path": str(path)}
    assert (report.dialect, report.model) == (expected_report.dialect, expected_report.model)
    (note,) = [note for note in report.notes if note.startswith("prefix taken off: ")]
    assert note == f"prefix taken off: {prefix} of {len(plain)} names"
    assert not any("prefix" in note for note in expected_report.notes)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_and_on_the_names_that_keras_gives_vit_tf(folder, prefix):
    path = save(folder / "x.safetensors", behind(prefix, in_keras_names(TENSORS)))
    _, tensors, report = conversion.load(path)
    same(tensors)
    assert report.dialect == "vitriad_tf" and any(note.startswith("prefix taken off") for note in report.notes)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_class(saved, cls, prefix):
    folder, tensors = saved(cls, lambda tensors: behind(prefix, tensors))
    loaded = conversion.load_pretrained(folder, cls, {})
    same(loaded.tensors, tensors)
    assert not any(loaded.info.values())
    if not any(name.startswith("vit.") for name in tensors):  # in front of an encoder the word is transformers' own
        prefix = prefix.removesuffix("vit.")
    said = [note for note in loaded.report.notes if note.startswith("prefix taken off: ")]
    assert said == ([f"prefix taken off: {prefix} of {len(tensors)} names"] if prefix else [])
    held = conversion.load_pretrained(folder, cls, {}, tensors=behind(prefix, tensors))
    same(held.tensors, tensors)


def test_what_stands_beside_the_model_is_listed(folder):
    others = {"logit_scale": np.ones(1, np.float32), "text.blocks.0.w": np.ones(3, np.float32)}
    save(folder / "model.safetensors", {**behind("visual."), **others})
    loaded = conversion.load_pretrained(folder, CLS, {})
    same(loaded.tensors)
    assert loaded.info["unexpected_keys"] == [*others]
    assert loaded.report.notes[:2] == (
        f"prefix taken off: visual. of {len(TENSORS)} names",
        "left out, of other modules: logit_scale, text.blocks.0.w",
    )


@pytest.mark.parametrize("prefix", ["encoder.", "vit._orig_mod.", "net.backbone."])
def test_a_head_beside_the_prefix_is_neither_taken_nor_drawn_anew_silently(folder, prefix):
    outer = prefix.partition(".")[0] + "." if prefix.startswith("net") else ""
    heads = {f"{outer}{name}": TENSORS[name] for name in ("classifier.weight", "classifier.bias")}
    save(folder / "model.safetensors", {**behind(prefix, BARE), **heads})
    load = partial(conversion.load_pretrained, folder, CLS)
    refused(lambda: load({}), f"needs a head behind {prefix!r}", f"{outer}classifier.", "strict=False")
    loaded = load({"strict": False})
    assert loaded.missing == ["classifier.weight", "classifier.bias"]
    same(conversion.load_pretrained(folder, "ViTModel", {"add_pooling_layer": False}).tensors, BARE)
    save(folder / "model.safetensors", behind(prefix, BARE))  # with none there, a fresh one is what is meant
    assert load({}).missing == ["classifier.weight", "classifier.bias"]


def test_what_stands_inside_the_model_is_no_other_module(folder):
    extra = {"visual.vit.strange": np.ones(3, np.float32)}
    path = save(folder / "model.safetensors", {**behind("visual."), **extra})
    refused(lambda: conversion.load(path), "1 unexpected: visual.vit.strange")
    register = {"visual.vit.embeddings.register_tokens": np.ones(3, np.float32)}
    refused(lambda: conversion.load(save(path, {**behind("visual."), **register})), "1 unexpected", "register_tokens")
    beside = {"text.embeddings.register_tokens": np.ones(3, np.float32)}
    same(conversion.load(save(path, {**behind("visual."), **beside}))[1])


def test_names_are_never_merged(folder):
    strays = {"vit.layernorm.weight": np.ones(12, np.float32), "classifier.bias": np.ones(5, np.float32)}
    path = save(folder / "model.safetensors", {**strays, **behind("student.")})
    _, tensors, report = conversion.load(path)
    same(tensors)
    assert any(note == "left out, of other modules: classifier.bias, vit.layernorm.weight" for note in report.notes)
    stray = {"module.classifier.bias": np.ones(5, np.float32)}
    refused(lambda: conversion.load(save(path, {**TENSORS, **stray})), "1 unexpected: module.classifier.bias")
    both = {**behind("m."), "m.classifier.kernel": np.ones(3, np.float32), "m.layernorm.bias": np.ones(12, np.float32)}
    refused(lambda: conversion.load(save(path, both)), "two names for the same parameter: m.layernorm.bias, m.vit.")


@pytest.mark.parametrize(
    "lost", ["attention.query.weight", "patch_embeddings.projection.weight", "1.output.dense.weight"]
)
@pytest.mark.parametrize("prefix", ["module.", "a.b."])
def test_a_model_that_is_not_whole_stays_behind_its_prefix(folder, lost, prefix):
    tensors = {name: array for name, array in behind(prefix).items() if not name.endswith(lost)}
    path = save(folder / "model.safetensors", tensors)
    text = refused(lambda: conversion.load(path), lost)
    is_said = f"Behind {prefix!r} are names of 'hf', but of no whole model: {prefix}vit." in text
    assert is_said or "1 missing: vit.encoder.layer.1." in text  # what a layer lacks that the first one has
    halves = {(prefix if i % 2 else "") + name: array for i, (name, array) in enumerate(TENSORS.items())}
    refused(lambda: conversion.load(save(path, halves)), "missing: vit.")


def test_a_prefix_is_whole_words(folder):
    path = save(folder / "model.safetensors", behind("my_", BARE))
    refused(lambda: conversion.load(path), "not a known dialect: ")
    path = save(path, behind("my_vit.", BARE))
    assert (
        conversion.load(path, cls="ViTModel", add_pooling_layer=False)[2]
        .notes[0]
        .startswith("prefix taken off: my_vit. ")
    )


# --- several models in one file --------------------------------------------------------------------------------------


def npz(path, tensors):
    with open(path, "wb") as file:
        np.savez(file, **tensors)
    return path


def h5(path, tensors):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            file[name] = array
    return path


def msgpack(path, tensors):
    tree = {}
    for name, array in tensors.items():
        *outer, last = name.split(".")
        inner = tree
        for word in outer:
            inner = inner.setdefault(word, {})
        inner[last] = array
    path.write_bytes(packed_tree(tree))
    return path


def packed_tree(tree):
    """What Flax writes of nested dictionaries of arrays of float32."""
    if not isinstance(tree, dict):
        shape = b"".join(b"\xce" + side.to_bytes(4, "big") for side in tree.shape)
        data = tree.tobytes()
        inner = b"\x93" + bytes([0x90 | tree.ndim]) + shape + b"\xa7float32\xc6" + len(data).to_bytes(4, "big") + data
        return b"\xc9" + len(inner).to_bytes(4, "big") + b"\1" + inner
    items = (b"\xd9" + bytes([len(key)]) + key.encode() + packed_tree(value) for key, value in tree.items())
    return b"\xdf" + len(tree).to_bytes(4, "big") + b"".join(items)


CONTAINERS = {
    "safetensors": (save, "."),
    "npz": (npz, "."),
    "h5": (h5, "/"),
    "msgpack": (msgpack, "."),
    "pth": (torch_tree, "."),
    "pth with a key": (lambda path, tensors: torch_tree(path, {"epoch": 1, "state_dict": tensors}), "."),
    "pth with a key of its own": (lambda path, tensors: torch_tree(path, {"mine": tensors, "step": 1}), "."),
}


def two(dot, first="student", second="net.teacher"):
    return {**behind(f"{first}{dot}"), **behind(f"{second}{dot}", OTHERS)}


@pytest.mark.parametrize("container", CONTAINERS)
def test_several_models_are_named_and_one_is_chosen(folder, container):
    writer, dot = CONTAINERS[container]
    path = writer(folder / "x.bin", two(dot, second=f"net{dot}teacher"))
    key = {"weights": "mine"} if container.endswith("its own") else {}
    names = ("'student'", f"'net{dot}teacher'")
    refused(lambda: conversion.load(path, **key), "several sets of weights: ", *names, "\nSay which one: weights=")
    said = "mine." if key else ""
    for weights, expected in ((f"{said}student", TENSORS), (f"{said}net.teacher", OTHERS), (f"{said}net", OTHERS)):
        _, tensors, report = conversion.load(path, weights=weights)
        same(tensors, expected)
        assert any(note.startswith("left out, of other modules: ") for note in report.notes)
    for wrong in ("teach", "stud", "teacher", "student.vit", "none"):
        load = partial(conversion.load, path, weights=said + wrong)
        refused(load, f"no weights in it under {said + wrong!r}; ", *names)


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "pth with a key of its own"])
def test_what_weights_names_is_there_or_is_refused(folder, container):
    writer, dot = CONTAINERS[container]
    path = writer(folder / "x.bin", TENSORS)
    for wrong in ("teacher", "vit", "classifier", "state_dict.teacher", "x.y"):
        text = refused(partial(conversion.load, path, weights=wrong), f"under {wrong!r}", "one set of weights")
        assert text.startswith(f"{path}: no weights in it ")
    path = writer(path, behind(f"module{dot}"))
    same(conversion.load(path, weights="module")[1])
    refused(lambda: conversion.load(path, weights="teacher"), "under 'teacher'; there is 'module'")


def test_scopes_of_one_name_in_h5_stay_apart(folder):
    conversion.convert(write_ours(folder), folder / "tf", to="hf_tf")
    plain = open_any(folder / "tf" / "tf_model.h5").tensors
    scoped = {
        f"{name.split('/')[0]}/{scope}/{name}": sign * tensor.read()
        for scope, sign in (("one", 1), ("two", -1))
        for name, tensor in plain.items()
    }
    path = h5(folder / "x.h5", scoped)
    refused(lambda: conversion.load(path), "several sets of weights: 'vit/one', 'vit/two'")
    _, tensors, _ = conversion.load(path, cls="ViTModel", weights="vit/two", add_pooling_layer=False)
    same(tensors, {name: -array for name, array in BARE.items()})


def write_ours(folder):
    write(folder / "ours", CONFIG, TENSORS)
    return folder / "ours"


@pytest.mark.parametrize("max_shard_size", ["1MB", 4000])
def test_and_of_a_folder(folder, max_shard_size):
    from vit_core.files.saving import save_folder

    files = {"config.json": CONFIG.to_json_string()}
    save_folder(folder / "m", files=files, tensors=two("."), max_shard_size=max_shard_size)
    refused(lambda: conversion.load(folder / "m"), "several sets of weights: 'net.teacher', 'student'")
    same(conversion.load_pretrained(folder / "m", CLS, {"weights": "net.teacher"}).tensors, OTHERS)
    refused(lambda: conversion.load(folder / "m", weights="x"), "no weights in it under 'x'")


def test_a_key_and_a_prefix(folder):
    tree = {"student": two("."), "teacher": {name: 2 * array for name, array in two(".").items()}}
    path = torch_tree(folder / "x.pth", tree)
    refused(lambda: conversion.load(path), "several sets of weights: 'teacher', 'student'")
    refused(lambda: conversion.load(path, weights="student"), "several sets of weights: 'net.teacher', 'student'")
    same(conversion.load(path, weights="student.net.teacher")[1], OTHERS)
    same(conversion.load(path, weights="student.student")[1])


def test_a_model_without_a_prefix_is_one_of_several(folder):
    path = save(folder / "model.safetensors", {**TENSORS, **behind("ema.", OTHERS)})
    refused(lambda: conversion.load(path), "several sets of weights: '', 'ema'")
    same(conversion.load(path, weights="")[1])
    same(conversion.load(path, weights="ema")[1], OTHERS)


def test_a_model_inside_another_one(folder):
    path = save(folder / "model.safetensors", {**behind("model."), **behind("model.ema.", OTHERS)})
    refused(lambda: conversion.load(path), "several sets of weights: 'model', 'model.ema'")
    same(conversion.load(path, weights="model")[1])
    same(conversion.load(path, weights="model.ema")[1], OTHERS)


def test_prefixes_that_differ_in_their_ends_are_two(folder):
    path = save(folder / "model.safetensors", {**behind("a."), **behind("a/", OTHERS)})
    refused(lambda: conversion.load(path), "several sets of weights: 'a', 'a/'")
    same(conversion.load(path, weights="a.")[1])
    same(conversion.load(path, weights="a/")[1], OTHERS)


def test_two_dialects_in_one_file(folder):
    timm = {"blocks.0.attn.qkv.weight": (36, 12), "blocks.0.attn.proj.weight": (12, 12), "cls_token": (1, 1, 12)}
    timm |= {"blocks.0.mlp.fc1.weight": (14, 12), "blocks.0.mlp.fc2.weight": (12, 14)}
    timm |= {"patch_embed.proj.weight": (12, 3, 4, 4)}
    other = {f"a.{name}": np.ones(shape, np.float32) for name, shape in timm.items()}
    path = save(folder / "model.safetensors", {**behind("b."), **other})
    refused(lambda: conversion.load(path), "several sets of weights: 'a', 'b'")
    assert (detect(path, weights="a"), detect(path, weights="b")) == ("timm", "hf")


def test_a_note_of_another_program_is_no_key(folder):
    path = folder / "model.safetensors"
    held = serialised(behind("weights."), lambda size: None, metadata={"format": "pt", "weights": "weights"})
    write_pieces(path, held)
    _, tensors, report = conversion.load(path, weights="weights")
    same(tensors)
    assert not any(note.startswith("weights: ") for note in report.notes) and json.loads(
        (folder / "config.json").read_text()
    )
