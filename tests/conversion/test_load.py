"""Where checkpoints come from, the keywords of from_pretrained, and saving."""

import json
import logging
import os
import sys
import threading

import numpy as np
import pytest
import refusing

import conversion
from conversion.detecting import open_source
from conversion.keywords import LOADING
from vit_core.config import AutoConfig, ViTConfig
from vit_core.errors import CheckpointError, ConfigError, InputError, MissingFileError, UnsafeFileError
from vit_core.files.folders import open_weights
from vit_core.limits import Limits
from vit_core.parameters import parameter_table


def refusal(src, cls="ViTModel", error=CheckpointError, **keywords):
    return refusing.refusal(lambda: conversion.load_pretrained(src, cls, keywords), error)


# Places


def test_a_single_file_needs_a_configuration(saved, config_of, tmp_path):
    folder, tensors = saved("ViTModel")
    (tmp_path / "alone").mkdir()
    file = (folder / "model.safetensors").rename(tmp_path / "alone" / "model.safetensors")
    assert refusal(file, error=MissingFileError) == f"{file}: no config.json beside the weights; pass config=."
    for config in (config_of("ViTModel"), folder, str(folder), folder / "config.json"):
        loaded = conversion.load_pretrained(file, "ViTModel", {"config": config})
        np.testing.assert_array_equal(loaded.tensors["layernorm.bias"], tensors["layernorm.bias"])
        assert loaded.config.name_or_path == str(file)
    assert conversion.load(file, config=folder)[2].model == "ViTModel"


def test_a_folder_without_configuration_is_never_a_default_model(saved):
    folder, _ = saved("ViTModel")
    (folder / "config.json").unlink()
    assert "no config.json beside the weights" in refusal(folder, error=MissingFileError)


def test_a_subfolder_and_a_variant(saved, tmp_path):
    folder, _ = saved("ViTModel", name="sub")
    os.rename(folder / "model.safetensors", folder / "model.fp16.safetensors")
    keywords = {"subfolder": "sub", "variant": "fp16"}
    assert conversion.load_pretrained(tmp_path, "ViTModel", keywords).missing == []
    refusal(tmp_path, error=MissingFileError, subfolder="sub")
    refusal(tmp_path, error=MissingFileError, subfolder="none")


@pytest.mark.parametrize("src", [None, 3, b"bytes", ["list"]])
def test_what_names_nothing_is_refused(src):
    assert refusal(src, error=InputError).startswith("checkpoint: expected a folder or a hub name, got ")


@pytest.mark.parametrize("src", ["", "a\0b", "no/such/folder", "./none"])
def test_what_is_not_there_is_refused(src, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal(src, error=MissingFileError)


def test_an_interrupted_save_is_finished_by_the_loader(saved):
    folder, _ = saved("ViTModel")
    os.rename(folder, folder.with_name(f".model.old-{2**70}"))
    assert conversion.load_pretrained(folder, "ViTModel", {}).missing == []
    assert os.listdir(folder.parent) == ["model"]


# Containers


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "weights.npz", "x.pth"])
def test_what_a_file_is_called_says_nothing_of_what_is_in_it(saved, name):
    folder, tensors = saved("ViTModel")
    os.rename(folder / "model.safetensors", folder / name)
    (folder / "training_args.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    loaded = conversion.load_pretrained(folder, "ViTModel", {"verify": False})
    np.testing.assert_array_equal(loaded.tensors["layernorm.bias"], tensors["layernorm.bias"])
    (folder / name).unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert f"{folder / name}: of no known kind: it starts with" in refusal(folder)
    (folder / name).unlink()
    assert "no weights here" in refusal(folder, error=MissingFileError)


def test_of_several_weight_files_none_is_chosen(saved):
    folder, _ = saved("ViTModel")
    for name in ("a.pth", "b.pth"):
        os.link(folder / "model.safetensors", folder / name)
    (folder / "model.safetensors").unlink()
    assert "several weight files: a.pth, b.pth.\nName the one to load." in refusal(folder)


def set_metadata(folder, metadata):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = {**json.loads(content[8 : 8 + length]), "__metadata__": metadata}
    if metadata is None:
        del header["__metadata__"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"format": "mlx"}, {"author": "me"}])
def test_layouts_of_torch_are_read(saved, metadata):
    folder, _ = saved("ViTModel")
    set_metadata(folder, metadata)
    assert conversion.load_pretrained(folder, "ViTModel", {}).missing == []


@pytest.mark.parametrize("layout", ["tf", "flax", "np", ""])
def test_other_layouts_are_refused(saved, layout):
    folder, _ = saved("ViTModel")
    set_metadata(folder, {"format": layout})
    message = refusal(folder)
    assert message.startswith(
        f"{folder / 'model.safetensors'}: its layout is said to be {layout!r}, its names are those of 'hf'."
    )


def test_another_model_is_refused(saved):
    folder, _ = saved("ViTModel", lambda tensors: {f"blocks_{name}": array for name, array in tensors.items()})
    message = refusal(folder)
    assert message.startswith(
        f"{folder}: not a known dialect: of 40 names, no dialect explains any; unknown are blocks_"
    )
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, "model_type": "bert"}))
    folder, _ = saved("ViTModel", name="bert")
    (folder / "config.json").write_text(json.dumps({**data, "model_type": "bert"}))
    refusal(folder, error=ConfigError)


def test_readers_never_see_a_mixture(saved, tmp_path):
    """A save replaces the folder while it is read, again and again: config and weights are of one checkpoint."""
    folder, tensors = saved("ViTMAEModel")
    stop = threading.Event()

    def write():
        step = 0
        while not stop.is_set():
            step += 1
            config = conversion.load(tmp_path / "first")[0]
            config.layer_norm_eps = float(step)
            values = {name: np.full_like(array, step) for name, array in tensors.items()}
            conversion.save_pretrained(folder, config, values, class_name="ViTMAEModel", max_shard_size=2000)

    saved("ViTMAEModel", name="first")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            loaded = conversion.load_pretrained(folder, "ViTMAEModel", {})
            values = {float(array.flat[0]) for array in loaded.tensors.values()}
            assert values == {loaded.config.layer_norm_eps} or loaded.config.layer_norm_eps == 1e-12
    finally:
        stop.set()
        writer.join()


def test_a_folder_that_never_stands_still_is_given_up(saved, monkeypatch):
    folder, _ = saved("ViTModel")
    original = open_weights

    def replace(path, **options):
        weights = original(path, **options)
        os.rename(folder, folder.with_name("gone"))
        folder.mkdir()
        for name in os.listdir(folder.with_name("gone")):
            os.rename(folder.with_name("gone") / name, folder / name)
        folder.with_name("gone").rmdir()
        return weights

    monkeypatch.setattr(sys.modules["conversion.places"], "open_weights", replace)
    assert refusal(folder) == f"{folder}: replaced again and again while it was read."


# Keywords


def test_fields_override_those_of_the_file(saved, config_of):
    folder, _ = saved("ViTModel")
    keywords = {"hidden_act": "relu", "attn_implementation": "eager", "output_attentions": True, "foo": None}
    assert "no keyword 'foo'" in refusal(folder, error=InputError, **keywords)
    del keywords["foo"]
    for extra in ({}, {"config": config_of("ViTModel", layer_norm_eps=0.5)}):
        config = conversion.load_pretrained(folder, "ViTModel", keywords | extra).config
        assert {name: getattr(config, name) for name in keywords} == keywords
        assert config.layer_norm_eps == (0.5 if extra else 1e-12)
        assert config.name_or_path == str(folder)


def test_the_caller_s_configuration_is_left_alone(saved, config_of):
    folder, _ = saved("ViTModel")
    config = config_of("ViTModel")
    before = config.to_dict()
    loaded = conversion.load_pretrained(
        folder, "ViTModel", {"config": config, "dtype": "float64", "hidden_act": "relu"}
    )
    assert config.to_dict() == before and loaded.config is not config
    assert "config: expected a configuration or the path of one, got dict" in refusal(
        folder, error=InputError, config={}
    )


NEAREST = {"ignore_mismatched_size": "ignore_mismatched_sizes", "hidden_sise": "hidden_size", "num_label": "num_labels"}


@pytest.mark.parametrize("name", NEAREST)
def test_an_unknown_keyword_is_told_its_neighbour(saved, name):
    folder, _ = saved("ViTModel")
    message = refusal(folder, error=InputError, **{name: 3})
    assert message.startswith(f"ViTModel.from_pretrained: no keyword {name!r}; did you mean {NEAREST[name]!r}?")


def test_a_misspelt_key_of_the_file_is_said_once(saved, caplog):
    folder, _ = saved("ViTForImageClassification")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "hidden_droput": 0.1}))

    with caplog.at_level(logging.WARNING, logger="vitriad"):
        AutoConfig.from_pretrained(folder)
        loaded = conversion.load_pretrained(folder, "ViTForImageClassification", {})
        assert loaded.config.extra["hidden_droput"] == 0.1
        assert conversion.load(folder)[0].extra["hidden_droput"] == 0.1

    assert len(caplog.records) == 1 and "kept, but no fields: 'hidden_droput'" in caplog.messages[0]


def test_keys_that_ask_for_another_model_are_refused_as_keywords_too(saved):
    folder, _ = saved("ViTForImageClassification")
    message = refusal(folder, "ViTForImageClassification", ConfigError, layerdrop=0.5, pool="mean")
    for part in (
        "2 invalid settings",
        "layerdrop: expected 0, or none at all, got 0.5: no model",
        "pool: expected",
    ):
        assert part in message
    for value in (0.0, None):
        assert conversion.load_pretrained(folder, "ViTForImageClassification", {"layerdrop": value}).missing == []


@pytest.mark.parametrize("name", ["add_pooling_layer", "use_mask_token"])
def test_options_of_another_class_are_refused(saved, name):
    folder, _ = saved("ViTForImageClassification")
    assert f"no keyword {name!r}" in refusal(folder, "ViTForImageClassification", InputError, **{name: True})


@pytest.mark.parametrize("name", LOADING)
def test_keywords_that_mean_nothing_here_say_what_to_do(saved, name):
    folder, _ = saved("ViTModel")
    passes = LOADING[name].passes
    for value in (True, False, "auto", {}, 0):
        if any(value is passing for passing in passes):
            assert conversion.load_pretrained(folder, "ViTModel", {name: value}).missing == []
            continue
        message = refusal(folder, error=InputError, **{name: value})
        assert message.startswith(f"ViTModel.from_pretrained: delete {name}=: ") and message.count("\n") == 0
    assert conversion.load_pretrained(folder, "ViTModel", {name: None}).missing == []


def test_all_keywords_that_are_refused_are_named_at_once(saved):
    folder, _ = saved("ViTModel")
    given = {"proxies": {}, "device_map": "auto", "use_safetensors": False, "weights_only": False}
    message = refusal(folder, error=InputError, **given)
    found = [message.find(f"delete {name}=") for name in ("proxies", "device_map", "weights_only", "use_safetensors")]
    assert min(found) > 0 and found == sorted(found)
    unknown = refusal(folder, error=InputError, foo=1, hidden_sise=2, bar=3)
    assert "no keyword 'foo'; no keyword 'hidden_sise'; did you mean 'hidden_size'?; no keyword 'bar'\n" in unknown
    with pytest.raises(InputError, match=r"no option 'device_map', 'proxies', 'strict'\.$"):
        conversion.load(folder, strict=True, proxies=1, device_map=2)


def test_keywords_that_ports_carry(saved, tmp_path):
    folder, _ = saved("ViTModel")
    for name in ("from_pt", "from_tf", "from_flax", "trust_remote_code"):
        for value in (False, None):
            conversion.load_pretrained(folder, "ViTModel", {name: value})
    for value in (True, None):
        conversion.load_pretrained(folder, "ViTModel", {"use_safetensors": value})
    conversion.load_pretrained(folder, "ViTModel", {"from_pt": True})
    for name in ("from_tf", "from_flax"):
        message = refusal(folder, error=InputError, **{name: True})
        assert f"{name}=True, but its weights are of the dialect 'hf'.\nDelete {name}=" in message
    conversion.save_pretrained(tmp_path / "ours", *conversion.load(folder)[:2], class_name="TFViTModel")
    for name in ("from_pt", "from_tf", "from_flax"):
        conversion.load_pretrained(tmp_path / "ours", "ViTModel", {name: True})
        conversion.load_pretrained(tmp_path / "ours" / "model.safetensors", "ViTModel", {name: True})
    (tmp_path / "ours" / "manifest.json").write_text('{"name": "of another program"}')
    assert "from_tf=True, but" in refusal(tmp_path / "ours", error=InputError, from_tf=True)
    assert "delete trust_remote_code=" in refusal(folder, error=UnsafeFileError, trust_remote_code=True)
    assert "delete use_safetensors=False" in refusal(folder, error=InputError, use_safetensors=False)


@pytest.mark.parametrize("dtype", ["bfloat16", np.float16, np.dtype("float64"), "torch.float16", "fp16"])
def test_dtypes_have_many_names(saved, dtype):
    folder, _ = saved("ViTModel")
    for keyword in ("dtype", "torch_dtype"):
        loaded = conversion.load_pretrained(folder, "ViTModel", {keyword: dtype})
        assert loaded.config.dtype == loaded.tensors["layernorm.bias"].dtype.name != "float32"
    both = {"dtype": dtype, "torch_dtype": dtype}
    assert conversion.load_pretrained(folder, "ViTModel", both).config.dtype == loaded.config.dtype
    both["torch_dtype"] = "float32"
    assert "dtype and torch_dtype: expected one of them" in refusal(folder, error=InputError, **both)


@pytest.mark.parametrize(
    "keywords",
    [{"dtype": "int8"}, {"dtype": "float8"}, {"position_kernel": "cubic"}, {"verify": "no"}, {"variant": "/"}],
)
def test_values_that_mean_nothing_are_refused(saved, keywords):
    folder, _ = saved("ViTModel")
    assert "expected" in refusal(folder, error=InputError, **keywords)


def test_options_reach_the_reader(saved):
    folder, tensors = saved("ViTModel")
    assert f"above the limit of {len(tensors) - 1}" in refusal(folder, limits=Limits(tensors=len(tensors) - 1))
    assert "verify=True needs" in refusal(folder, error=MissingFileError, verify=True)
    loaded = conversion.load_pretrained(folder, "ViTModel", {"mmap": False})
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(0)  # nothing is left under a map
    np.testing.assert_array_equal(loaded.tensors["layernorm.bias"], tensors["layernorm.bias"])
    with pytest.raises(InputError, match=r"conversion\.load: no option 'dtype'"):
        conversion.load(folder, dtype="float32")


def test_names_shapes_and_dtypes_without_data(saved):
    folder, tensors = saved("ViTModel")
    source = open_source(folder, verify=False)
    assert source.config["model_type"] == "vit" and source.dialect.name == "hf"
    assert {name: source.weights.infos[stored].shape for name, stored in source.names.items()} == {
        name: array.shape for name, array in tensors.items()
    }


# Saving


@pytest.fixture
def model(config_of, cls):
    config = config_of(cls)
    random = np.random.default_rng(5)
    table = parameter_table(config, cls, add_pooling_layer=False)
    return cls, config, {name: random.standard_normal(row.shape).astype(np.float32) for name, row in table.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_loaded(model, tmp_path, dtype, caplog):
    cls, config, tensors = model
    backwards = {name: tensors[name].astype(dtype) for name in reversed(tensors)}
    conversion.save_pretrained(tmp_path / "out", config, backwards, class_name=f"TF{cls}", max_shard_size="4KB")
    assert config.architectures is None and config.dtype is None  # the caller's is left alone
    options = {"add_pooling_layer": False} if cls == "ViTModel" else {}
    loaded = conversion.load_pretrained(tmp_path / "out", cls, {"dtype": "auto", "verify": True, **options})
    assert loaded.config.architectures == [cls] and loaded.config.dtype == dtype
    assert [*loaded.tensors] == [*tensors] and caplog.text == "" and loaded.report.notes == ()
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], array.astype(dtype))
    assert "model.safetensors.index.json" in os.listdir(tmp_path / "out")


def test_nothing_is_written_for_a_model_that_could_not_be_loaded(tmp_path, config_of, saved):
    _, tensors = saved("ViTModel")
    save = conversion.save_pretrained
    config = config_of("ViTModel")
    with pytest.raises(ConfigError, match="A callable activation lives in code only"):
        save(tmp_path / "out", config_of("ViTModel", hidden_act=np.tanh), tensors, class_name="ViTModel")
    for wrong in ({**tensors, "x": np.ones(1)}, {**tensors, "layernorm.bias": np.ones(3)}, {}):
        with pytest.raises(CheckpointError, match="ViTModel: the tensors do not fit the model"):
            save(tmp_path / "out", config, wrong, class_name="ViTModel")
    with pytest.raises(ConfigError, match="model class: expected one of"):
        save(tmp_path / "out", config, tensors, class_name="BertModel")
    assert not (tmp_path / "out").exists()


def test_a_save_keeps_the_other_files_of_the_folder(tmp_path, config_of, saved):
    folder, tensors = saved("ViTModel")
    (folder / "preprocessor_config.json").write_text("{}")
    conversion.save_pretrained(folder, ViTConfig(**{**config_of("ViTModel").to_dict()}), tensors, class_name="ViTModel")
    assert (folder / "preprocessor_config.json").read_text() == "{}"


def test_loading_says_nothing_when_all_is_well(saved, cls, caplog):
    folder, _ = saved(cls)
    with caplog.at_level(logging.DEBUG):
        loaded = conversion.load_pretrained(folder, cls, {})
    assert caplog.text == "" and str(loaded.report) == f"{folder} (dialect hf) as {cls}"


def test_a_task_json_of_something_else_is_not_read(saved):
    folder, _ = saved("ViTModel")
    (folder / "task.json").write_text("no JSON")
    assert conversion.load_pretrained(folder, "ViTModel", {}).missing == []
