"""A weight file that is named is read as its folder would be, and a part of several files is refused."""

import json
import os
import shutil

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES, FOLDER

import conversion
from conversion.detecting import open_source
from conversion.dialects import targets
from vit_core import AutoConfig, AutoImageProcessor, ViTConfig, ViTImageProcessor
from vit_core.errors import CheckpointError, ConfigError, MissingFileError, VitError
from vit_core.files.saving import save_folder

TARGETS = targets()

CLS = "ViTForImageClassification"
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".h5", ".keras", ".msgpack")
# Folders of other libraries with a configuration: (folder, file in it); not what a training run put elsewhere.
FOREIGN = [
    (entry["name"], file)
    for entry in ENTRIES
    for file in entry["checkpoint_files"]
    if "config.json" in entry["checkpoint_files"] and file.endswith(SUFFIXES) and "-of-" not in file
]
SHARDED = [entry["name"] for entry in ENTRIES if any("-of-" in file for file in entry["checkpoint_files"])]


def result(src, **options):
    """What loading gives, or the error, each without the name that was given."""
    try:
        config, tensors, report = conversion.load(src, **options)
    except VitError as problem:
        return type(problem), str(problem).replace(str(src), "SRC")
    config.name_or_path = ""
    notes = tuple(note.replace(str(src), "SRC") for note in report.notes)
    return config.to_dict(), {n: t.tobytes() for n, t in tensors.items()}, (report.dialect, report.model, notes)


def without_outputs(name, tmp_path):
    """A copy of a folder without the outputs that are compared elsewhere, which look like weights."""
    return shutil.copytree(FOLDER / name, tmp_path / name, ignore=shutil.ignore_patterns("io.npz"))


@pytest.mark.parametrize(("name", "file"), FOREIGN)
def test_a_file_of_another_library_gives_what_its_folder_gives(tmp_path, name, file):
    folder = without_outputs(name, tmp_path)
    assert result(folder / file) == result(folder)


@pytest.mark.parametrize("to", [name for name, target in TARGETS.items() if target.file])
def test_so_does_every_file_that_is_written_here(tmp_path, to):
    config = make_config(CLS, image_size=12, layer_norm_eps=1e-6, num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    write(tmp_path / "start", config, make_tensors(CLS, config))
    conversion.convert(tmp_path / "start", tmp_path / "new", to=to)
    found = result(tmp_path / "new" / TARGETS[to].file)
    assert found == result(tmp_path / "new") and found[0]["id2label"] == {0: "a", 1: "b", 2: "c"}


def test_the_pooling_of_timm_s_configuration_is_not_lost(tmp_path):
    folder = FOLDER / "timm_hub_folder_avgpool_hidden"
    conversion.convert(folder / "model.safetensors", tmp_path / "new")
    config = ViTConfig.from_pretrained(tmp_path / "new")
    assert config.family_options == {"use_mean_pooling": True, "norm_before_pooling": True}
    with pytest.raises(CheckpointError, match="as 'google': it has no use_mean_pooling, norm_before_pooling"):
        conversion.convert(folder / "model.safetensors", tmp_path / "new.npz", to="google", allow=("numerics",))


def test_configuration_and_processor_are_found_by_a_weight_file(tmp_path, monkeypatch):
    config = make_config(CLS)
    write(tmp_path / "m", config, make_tensors(CLS, config))
    ViTImageProcessor(size=12, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    for file in (tmp_path / "m" / "model.safetensors", "model.safetensors", "./model.safetensors"):
        assert AutoConfig.from_pretrained(file).hidden_size == ViTConfig.from_pretrained(file).hidden_size == 12
        assert AutoImageProcessor.from_pretrained(file).image_mean == [0.1, 0.2, 0.3]
        assert conversion.load(file)[2].model == CLS
    os.unlink("config.json")
    with pytest.raises(MissingFileError, match=r"config\.json: no such file"):
        AutoConfig.from_pretrained("model.safetensors")


# Parts


@pytest.mark.parametrize("name", SHARDED)
def test_a_shard_is_refused_and_its_index_is_read(tmp_path, name):
    folder = without_outputs(name, tmp_path)
    (index,) = folder.glob("*.index.json")
    for shard in folder.glob("*-of-*"):
        with pytest.raises(CheckpointError, match=f"{shard.name}: a shard, .*\nLoad {index.name}, or the folder"):
            conversion.load(shard)
    assert result(index) == result(folder) and len(result(index)) == 3


def test_without_its_index_a_shard_is_still_one(tmp_path):
    config = make_config(CLS)
    save_folder(
        tmp_path / "m",
        files={"config.json": config.to_json_string()},
        tensors=make_tensors(CLS, config),
        max_shard_size=2000,
    )
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    shard = min((tmp_path / "m").glob("*.safetensors"))
    with pytest.raises(CheckpointError, match=r"a shard, .* not beside it\.\nFetch model\.safetensors\.index\.json"):
        conversion.load(shard)


def test_a_shard_of_any_name_and_one_of_one(tmp_path):
    config = make_config(CLS)
    tensors = make_tensors(CLS, config)
    write(tmp_path / "m", config, tensors)
    only = tmp_path / "m" / "model-00001-of-00001.safetensors"
    os.rename(tmp_path / "m" / "model.safetensors", only)
    assert len(conversion.load(only)[1]) == len(tensors)  # another program's, which is whole
    os.rename(only, only.with_name("part.safetensors"))
    weight_map = {"weight_map": dict.fromkeys(tensors, "part.safetensors")}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(weight_map))
    with pytest.raises(CheckpointError, match=r"part\.safetensors: a shard"):
        conversion.load(only.with_name("part.safetensors"))


def test_keras_hub_s_two_files_belong_together(tmp_path):
    folder = without_outputs("keras_hub_preset_cls", tmp_path)
    for file in ("model.weights.h5", "task.weights.h5"):
        assert result(folder / file) == result(folder)
        assert "classifier.weight" in conversion.load(folder / file)[1]


# What stands beside it and is of something else


@pytest.fixture
def shared(tmp_path):
    """A folder of transformers' with Google's weights in it, whose programs compute with other constants."""
    config = make_config(CLS, image_size=12)
    tensors = make_tensors(CLS, config)
    write(tmp_path / "shared", config, tensors)
    conversion.convert(tmp_path / "shared", tmp_path / "shared" / "vit.npz", to="google", allow=("numerics",))
    return tmp_path / "shared"


def test_a_configuration_of_other_weights_is_not_used(shared):
    config, _, report = conversion.load(shared / "vit.npz")
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu_pytorch_tanh", 1e-6)
    assert "config.json: of hf, as other weights beside it, so not used for these" in report.notes
    os.link(shared / "model.safetensors", shared / "best.safetensors")
    assert conversion.load(shared / "best.safetensors")[0].layer_norm_eps == 1e-12


def test_a_configuration_of_no_model_is_not_used(shared, tmp_path):
    (tmp_path / "downloads").mkdir()
    shutil.move(shared / "vit.npz", tmp_path / "downloads")
    (tmp_path / "downloads" / "config.json").write_text('{"port": 8080}')
    for src in (tmp_path / "downloads" / "vit.npz", tmp_path / "downloads"):
        config, _, report = conversion.load(src)
        assert config.layer_norm_eps == 1e-6
        assert "config.json: of no known program, so not used" in report.notes


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [('{"model_type": "bert"}', ConfigError, "bert"), ("{", ConfigError, r"config\.json: not valid JSON")],
)
def test_a_configuration_that_does_not_fit_says_so(shared, text, error, match):
    (shared / "config.json").write_text(text)
    with pytest.raises(error, match=match):
        conversion.load(shared / "model.safetensors")


# Manifest and links


def test_the_manifest_is_compared(tmp_path):
    config = make_config(CLS)
    tensors = make_tensors(CLS, config)
    conversion.save_pretrained(tmp_path / "m", config, tensors, class_name=CLS)
    shutil.copy(tmp_path / "m" / "model.safetensors", tmp_path / "m" / "best.safetensors")
    content = bytearray((tmp_path / "m" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "m" / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not as manifest\.json records it"):
        conversion.load(tmp_path / "m" / "model.safetensors")
    best = tmp_path / "m" / "best.safetensors"  # which the manifest does not know
    np.testing.assert_array_equal(conversion.load(best)[1]["classifier.bias"], tensors["classifier.bias"])
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not as manifest\.json records it"):
        conversion.load(best, verify=True)


def test_a_link_is_read_with_what_stands_beside_it_or_beside_its_target(tmp_path):
    config = make_config(CLS)
    write(tmp_path / "m", config, make_tensors(CLS, config))
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "current.safetensors"
    link.symlink_to(tmp_path / "m" / "model.safetensors")
    assert open_source(link).config["hidden_size"] == 12
    config.initializer_range = 0.5
    config.save_pretrained(tmp_path / "links")
    assert open_source(link).config["initializer_range"] == 0.5


def test_others_may_come_and_go_beside_a_named_file(shared, monkeypatch):
    """A busy folder of downloads is no folder that is being replaced."""
    from conversion import places

    original, count = places.open_any, iter(range(1000))

    def beside(*args, **options):
        (shared / f"{next(count)}.safetensors").touch()
        return original(*args, **options)

    monkeypatch.setattr(places, "open_any", beside)
    assert conversion.load(shared / "vit.npz")[2].model == CLS and next(count) == 1
