"""A folder that is written holds one checkpoint, whatever weights were there before; everything else in it stays."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write

import conversion
from conversion.dialects import targets
from vit_core.errors import CheckpointError
from vit_core.files.folders import open_weights

TARGETS = targets()

CLS = "ViTForImageClassification"
FOLDERS = [name for name, target in TARGETS.items() if target.file is not None]
# What lies beside weights and is none that a load would take.
OTHERS = (
    *("optimizer.pt", "optimizer_1.bin", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth"),
    *("training_args.bin", "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json", "README.md"),
    *("model.fp16.safetensors", "pytorch_model.fp16.bin", "model.safetensors.index.fp16.json", "notes.txt", "a.npy"),
    "model.fp16-00001-of-00002.safetensors",
)
# What a load could take, were it alone: of every family one file, an index and a shard; and keras-hub's.
TAKEN = (
    *(f"{stem}{suffix}" for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin"))),
    *("tf_model.h5", "flax_model.msgpack", "model.weights.h5", "task.weights.h5", "flax_model.msgpack.index.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json", "tf_model.h5.index.json"),
    *("model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin", "tf_model-00001-of-00001.h5"),
    "flax_model-00001-of-00003.msgpack",
)


@pytest.fixture
def models(tmp_path):
    """Two checkpoints of one configuration: (folder, tensors) of each."""
    config = make_config(CLS, image_size=12, layer_norm_eps=1e-6)
    made = []
    for name in ("old", "new"):
        tensors = {key: tensor + len(made) for key, tensor in make_tensors(CLS, config).items()}
        write(tmp_path / name, config, tensors)
        made.append((tmp_path / name, tensors))
    return made


def save(folder, model):
    config = conversion.load(model[0])[0]
    conversion.save_pretrained(folder, config, model[1], class_name=CLS)


def assert_holds(folder, tensors):
    found = conversion.load(folder, cls=CLS, num_attention_heads=3)[1]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize(("first", "second"), [*product(FOLDERS, repeat=2)])
def test_a_conversion_replaces_the_weights_of_every_dialect(models, tmp_path, first, second):
    folder = tmp_path / "folder"
    conversion.convert(models[0][0], folder, to=first)
    report = conversion.convert(models[1][0], folder, to=second, force=True)
    assert_holds(folder, models[1][1])
    assert f"replaced in {folder}: {TARGETS[first].file}" in report.notes
    assert {TARGETS[name].file for name in FOLDERS} & {*os.listdir(folder)} == {TARGETS[second].file}


@pytest.mark.parametrize("first", FOLDERS)
def test_so_does_a_save_and_says_so(models, tmp_path, first, caplog):
    folder = tmp_path / "folder"
    conversion.convert(models[0][0], folder, to=first)
    save(folder, models[1])
    assert_holds(folder, models[1][1])
    assert sorted(os.listdir(folder)) == ["config.json", "manifest.json", "model.safetensors"]
    file = TARGETS[first].file
    line = f"{folder}: saved in place of other weights, which are gone: {file}"
    assert [record.getMessage() for record in caplog.records] == ([line] if file != "model.safetensors" else [])


@pytest.mark.parametrize("to", FOLDERS)
@pytest.mark.parametrize("stays", [False, True])
def test_everything_else_stays(models, tmp_path, to, stays, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (*OTHERS, *TAKEN):
        (folder / name).write_bytes(name.encode())
    if stays:  # files are moved in, one by one
        monkeypatch.chdir(folder)
    report = conversion.convert(models[1][0], folder, to=to, force=True)
    assert_holds(folder, models[1][1])
    kept = {*os.listdir(folder)} - {"config.json", "manifest.json", "preprocessor_config.json", TARGETS[to].file}
    assert kept == {*OTHERS}
    assert all((folder / name).read_bytes() == name.encode() for name in OTHERS)
    (note,) = (note for note in report.notes if note.startswith("replaced"))
    assert note.startswith(f"replaced in {folder}: flax_model-00001-of-00003.msgpack, ") and "and 4 more" in note


def test_a_save_keeps_them_too(models, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in (*OTHERS, *TAKEN):
        (tmp_path / "folder" / name).write_bytes(name.encode())
    save(tmp_path / "folder", models[1])
    assert {*os.listdir(tmp_path / "folder")} == {*OTHERS, "config.json", "manifest.json", "model.safetensors"}
    assert_holds(tmp_path / "folder", models[1][1])


@pytest.mark.parametrize(("to", "name"), [("google", "ViT.npz"), ("mae", "x.safetensors"), ("torchvision", "vit.pth")])
@pytest.mark.parametrize("action", ["save", "convert"])
def test_a_lone_file_that_a_load_takes_is_replaced(tmp_path, models, to, name, action):
    folder, cls = tmp_path / "folder", "ViTMAEModel" if to == "mae" else CLS
    config = make_config(cls, image_size=12, layer_norm_eps=1e-6)
    write(tmp_path / "source", config, make_tensors(cls, config))
    folder.mkdir()
    conversion.convert(tmp_path / "source", tmp_path / f"x{TARGETS[to].suffix}", to=to, allow=("numerics",))
    os.rename(tmp_path / f"x{TARGETS[to].suffix}", folder / name)
    (folder / "optimizer.pt").touch()
    if action == "convert":
        assert f"replaced in {folder}: {name}" in conversion.convert(models[1][0], folder, force=True).notes
    else:
        save(folder, models[1])
    assert {*os.listdir(folder)} - {"preprocessor_config.json"} == {
        *("config.json", "manifest.json", "model.safetensors", "optimizer.pt")
    }
    assert_holds(folder, models[1][1])


@pytest.mark.parametrize("names", [["yolo.pt"], ["a.npz", "b.npz"], ["model.safetensors", "x.npz"]])
def test_files_that_no_load_takes_are_no_business_of_a_save(models, tmp_path, names):
    """One that holds no ViT; two, of which a load takes none; one beside a file that a load prefers."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        if name.endswith(".npz"):
            conversion.convert(models[0][0], folder / name, to="google", allow=("numerics",))
        else:
            (folder / name).write_bytes(b"anything")
    save(folder, models[1])
    assert {*os.listdir(folder)} == {*names, "config.json", "manifest.json", "model.safetensors"}
    assert_holds(folder, models[1][1])


def test_a_variant_replaces_its_own_alone(models, tmp_path):
    folder = tmp_path / "folder"
    conversion.convert(models[0][0], folder, to="hf")
    (folder / "pytorch_model.fp16.bin").touch()
    config = conversion.load(models[0][0])[0]
    conversion.save_pretrained(folder, config, models[1][1], class_name=CLS, variant="fp16")
    assert_holds(folder, models[0][1])
    assert not (folder / "pytorch_model.fp16.bin").exists()
    np.testing.assert_array_equal(
        open_weights(folder, variant="fp16", verify=True)["classifier.bias"], models[1][1]["classifier.bias"]
    )


def test_a_variant_that_is_not_there_is_not_another_file(models):
    with pytest.raises(CheckpointError, match=r"neither model\.fp16\.safetensors nor"):
        conversion.load(models[0][0], variant="fp16")


def test_a_dry_run_says_what_would_go(models, tmp_path):
    conversion.convert(models[0][0], tmp_path / "folder", to="hf_tf")
    before = {path: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    report = conversion.convert(models[1][0], tmp_path / "folder", to="hf", force=True, dry_run=True)
    assert f"to be replaced in {tmp_path / 'folder'}: tf_model.h5" in report.notes
    assert {path: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == before


def test_a_checkpoint_can_be_converted_where_it_is(models):
    folder, tensors = models[0]
    for to in ("hf_tf", "hf_flax", "timm", "hf"):
        conversion.convert(folder, folder, to=to, force=True)
        assert_holds(folder, tensors)


def failing_at(number, call):
    """`call`, which fails as a broken disk does when it is called for the time of this number."""
    calls = []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) == number:
            raise OSError(5, "injected")
        return call(*args, **options)

    return failing


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize(("place", "call"), [(os, "rename"), (os, "replace"), (Path, "unlink"), (os, "fsync")])
def test_interrupted_it_is_the_old_one_or_the_new_one(models, tmp_path, monkeypatch, stays, place, call):
    folder, outcomes = tmp_path / "folder", []
    while not outcomes or outcomes[-1] != "done":
        conversion.convert(models[0][0], folder, to="hf", force=True)
        with monkeypatch.context() as patch:
            patch.chdir(folder if stays else tmp_path)
            patch.setattr(place, call, failing_at(len(outcomes) + 1, getattr(place, call)))
            try:
                conversion.convert(models[1][0], folder, to="hf_flax", force=True)
                outcomes.append("done")
            except CheckpointError:
                outcomes.append("failed")
        bias = conversion.load(folder)[1]["classifier.bias"]  # finishes what was begun
        is_new = bool((bias == models[1][1]["classifier.bias"]).all())
        assert_holds(folder, models[is_new][1])
        assert outcomes[-1] == "failed" or is_new
        assert (folder / "model.safetensors").exists() != is_new
    assert len(outcomes) > 1 or (place, call, stays) in [(os, "rename", False), (os, "replace", False)]
