"""Saving and loading: round trips, reports, dtypes, and what the documentation's own lines do."""

import json
import logging
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch_models import FIELDS, make_config, make_inputs, make_model

import vit_torch
from vit_core import CheckpointError, ConfigError, InputError, MissingFileError
from vit_core.parameters import draw
from vit_core.positions import resize_table
from vit_core.tensors import to_numpy


def check_weights(model: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        np.testing.assert_array_equal(to_numpy(ours[key]), to_numpy(value), err_msg=key)


@pytest.mark.parametrize("shard", ["5GB", 4000])
def test_round_trip(name, shard, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "5GB")
    loaded, info = getattr(vit_torch, name).from_pretrained(tmp_path, output_loading_info=True)
    check_weights(loaded, model)
    assert not loaded.training
    assert {key: value for key, value in info.items() if value} == {}
    assert loaded.config.architectures == [name]
    assert loaded.config.dtype == "float32"
    frozen = {key for key, p in loaded.named_parameters() if not p.requires_grad}
    assert frozen == {key for key, row in loaded.parameter_table().items() if not row.trainable}


def test_nothing_is_initialised_while_loading(name, tmp_path, monkeypatch):
    make_model(name).save_pretrained(tmp_path)

    def forbidden(tensor, *args, **kwargs):
        assert tensor.device.type == "meta", "a tensor with storage was filled at random"
        return tensor

    for method in ("normal_", "uniform_", "trunc_normal_", "fill_", "zero_"):
        if hasattr(torch.Tensor, method):
            monkeypatch.setattr(torch.Tensor, method, forbidden)
    state = torch.get_rng_state()
    getattr(vit_torch, name).from_pretrained(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


def test_weights_are_mapped_not_copied_and_the_file_stays_as_it_is(tmp_path):
    make_model("ViTModel").save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = vit_torch.ViTModel.from_pretrained(tmp_path)
    storages = {p.untyped_storage().data_ptr() for p in model.parameters()}
    span = max(storages) - min(storages)
    assert span < len(before)  # all inside one mapping
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.bfloat16),
        ({"torch_dtype": torch.float16}, torch.float16),
        ({"dtype": "float64"}, torch.float64),
    ],
)
def test_dtypes(keywords, expected, tmp_path):
    model = make_model("ViTModel").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = vit_torch.ViTModel.from_pretrained(tmp_path, **keywords)
    assert {p.dtype for p in loaded.parameters()} == {expected}
    check_weights(loaded, model.to(expected))


# file of this class -> loaded as that class: what is missing and what is left over, as prefixes
HAND_OVERS = [
    ("ViTForImageClassification", "ViTModel", {"pooler.dense"}, {"classifier"}),
    ("ViTModel", "ViTForImageClassification", {"classifier"}, {"pooler.dense"}),
    (
        "ViTForMaskedImageModeling",
        "ViTForImageClassification",
        {"classifier"},
        {"decoder.0", "vit.embeddings.mask_token"},
    ),
    (
        "ViTForImageClassification",
        "ViTForMaskedImageModeling",
        {"decoder.0", "vit.embeddings.mask_token"},
        {"classifier"},
    ),
    ("ViTMAEForPreTraining", "ViTForImageClassification", {"classifier"}, {"decoder"}),
    ("ViTMAEForPreTraining", "ViTMAEModel", set(), {"decoder"}),
    ("ViTModel", "ViTMAEModel", set(), {"pooler.dense"}),
    ("ViTMAEModel", "ViTMAEForPreTraining", {"decoder"}, set()),
]


@pytest.mark.parametrize(("source", "target", "missing", "unexpected"), HAND_OVERS)
def test_hand_overs_between_classes(source, target, missing, unexpected, tmp_path):
    model = make_model(source)
    model.save_pretrained(tmp_path)
    loaded, info = getattr(vit_torch, target).from_pretrained(
        tmp_path, output_loading_info=True, **{k: v for k, v in FIELDS[target].items() if k.startswith("decoder")}
    )
    for found, prefixes in ((info["missing_keys"], missing), (info["unexpected_keys"], unexpected)):
        assert {key for key in found if not key.startswith(tuple(prefixes))} == set()
        assert {prefix for prefix in prefixes if not any(key.startswith(prefix) for key in found)} == set()
    check_encoder(loaded, model)
    assert all(parameter.isfinite().all() for parameter in loaded.parameters())
    assert loaded(**make_inputs(target))[0].isfinite().all()


def check_encoder(loaded: torch.nn.Module, model: torch.nn.Module) -> None:
    theirs = model.base_model.state_dict()
    ours = loaded.base_model.state_dict()
    shared = [key for key in theirs if not key.startswith("pooler") and "mask_token" not in key]
    for key in shared:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def test_missing_parts_are_reported_once_by_name(tmp_path, caplog):
    make_model("ViTMAEForPreTraining").save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="vitriad"):
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path, num_labels=4)
    text = caplog.text
    assert text.count("classifier.weight") == 1
    assert text.count("decoder.decoder_embed.weight") == 1


def test_another_number_of_labels(tmp_path):
    make_model("ViTForImageClassification").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight") as caught:
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert "ignore_mismatched_sizes" in str(caught.value)
    model, info = vit_torch.ViTForImageClassification.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.classifier.weight.shape == (7, 24)
    assert sorted(info["mismatched_keys"]) == ["classifier.bias", "classifier.weight"]


def test_another_image_size_resizes_the_positions(tmp_path):
    model = make_model("ViTForImageClassification")
    model.save_pretrained(tmp_path)
    loaded = vit_torch.ViTForImageClassification.from_pretrained(tmp_path, image_size=(24, 28))
    key = "vit.embeddings.position_embeddings"
    expected = resize_table(model.state_dict()[key].numpy(), (3, 5), (6, 7))
    np.testing.assert_array_equal(loaded.state_dict()[key], expected)


def test_pruned_models_stay_pruned(name, tmp_path):
    model = make_model(name)
    model.prune_heads({0: [0, 2], 1: [1]})
    model.save_pretrained(tmp_path)
    loaded = getattr(vit_torch, name).from_pretrained(tmp_path)
    check_weights(loaded, model)
    assert loaded.config.pruned_heads == {0: [0, 2], 1: [1]}
    inputs = make_inputs(name)
    torch.testing.assert_close(loaded(**inputs).to_tuple(), model(**inputs).to_tuple(), rtol=0, atol=0)


def save_as_published(folder: Path, name: str, **fields: object) -> None:
    make_model(name, **{"image_size": 32, "patch_size": 16, **fields}).save_pretrained(folder)
    vit_torch.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


# The documentation's own calls: class, class of the published file, keywords.
DOCUMENTED = [
    ("ViTModel", "ViTModel", {}),
    ("ViTForMaskedImageModeling", "ViTModel", {"encoder_stride": 16}),
    ("ViTForImageClassification", "ViTForImageClassification", {}),
    ("ViTMAEModel", "ViTMAEForPreTraining", {}),
    ("ViTMAEModel", "ViTMAEForPreTraining", {"attn_implementation": "sdpa", "torch_dtype": torch.float16}),
    ("ViTMAEForPreTraining", "ViTMAEForPreTraining", {}),
]


@pytest.mark.parametrize(("cls", "stored", "keywords"), DOCUMENTED)
def test_documented_calls(cls, stored, keywords, tmp_path):
    save_as_published(tmp_path, stored)
    image_processor = vit_torch.AutoImageProcessor.from_pretrained(tmp_path)
    model = getattr(vit_torch, cls).from_pretrained(tmp_path, **keywords)
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    inputs = image_processor(images=image, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs[0].dtype == keywords.get("torch_dtype", torch.float32) or cls == "ViTMAEForPreTraining"
    assert all(value.isfinite().all() for value in outputs.to_tuple())


@pytest.mark.parametrize(
    ("keywords", "needle"),
    [
        ({"device_map": "balanced"}, "device_map.*\n.*dispatch_model"),
        ({"device_map": {"vit": "cpu", "classifier": "cpu"}}, "device_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"use_safetensors": False}, "use_safetensors"),
        ({"hiden_size": 3}, "hidden_size"),
    ],
)
def test_keywords_that_mean_nothing_here_are_refused(keywords, needle, tmp_path):
    make_model("ViTModel").save_pretrained(tmp_path)
    with pytest.raises((InputError, CheckpointError, ConfigError), match=needle) as caught:
        vit_torch.ViTModel.from_pretrained(tmp_path, **keywords)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "keywords",
    [{"from_pt": True}, {"use_safetensors": True}, {"trust_remote_code": False}, {"low_cpu_mem_usage": True}],
)
def test_keywords_that_hold_are_accepted(keywords, tmp_path):
    make_model("ViTModel").save_pretrained(tmp_path)
    vit_torch.ViTModel.from_pretrained(tmp_path, **keywords)


def test_missing_folders_and_callable_activations(tmp_path):
    with pytest.raises(MissingFileError):
        vit_torch.ViTModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(MissingFileError):
        vit_torch.ViTModel.from_pretrained(tmp_path)
    model = make_model("ViTModel", hidden_act=torch.nn.functional.relu)
    with pytest.raises(ConfigError, match="callable"):
        model.save_pretrained(tmp_path / "callable")
    assert not (tmp_path / "callable").exists()


def test_from_tensors_wants_exactly_the_parameters():
    config = make_config("ViTModel")
    tensors = {key: value.numpy() for key, value in make_model("ViTModel").state_dict().items()}
    tensors["extra"] = tensors.pop("layernorm.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.bias; 1 unknown: extra"):
        vit_torch.ViTModel.from_tensors(config, tensors)


def test_bfloat16_arrays_become_bfloat16_tensors():
    config = make_config("ViTModel")
    tensors = {
        key: value.numpy().astype(ml_dtypes.bfloat16) for key, value in make_model("ViTModel").state_dict().items()
    }
    assert vit_torch.ViTModel.from_tensors(config, tensors).dtype == torch.bfloat16


def test_training_leaves_the_tensors_a_model_was_made_from_alone():
    config = make_config("ViTModel")
    tensors = draw(config, "ViTModel", seed=3)
    tensors["layernorm.bias"].flags.writeable = False
    model = vit_torch.ViTModel.from_tensors(config, tensors)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for key, array in draw(config, "ViTModel", seed=3).items():
        np.testing.assert_array_equal(tensors[key], array, err_msg=key)


def test_subclasses_save_and_load_as_their_class(tmp_path):
    class Mine(vit_torch.ViTForImageClassification):
        pass

    model = Mine(make_config("ViTForImageClassification"))
    model.save_pretrained(tmp_path)
    loaded = Mine.from_pretrained(tmp_path)
    assert type(loaded) is Mine
    assert loaded.config.architectures == ["ViTForImageClassification"]
    check_weights(loaded, model)


def test_a_subclass_with_parameters_of_its_own_is_refused(tmp_path):
    class Wider(vit_torch.ViTForImageClassification):
        def __init__(self, config):
            super().__init__(config)
            self.adapter = torch.nn.Linear(3, 3)

    make_model("ViTForImageClassification").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"adapter\.weight, adapter\.bias"):
        Wider.from_pretrained(tmp_path)


def test_models_are_loaded_onto_the_default_device(tmp_path):
    make_model("ViTModel", options={"add_pooling_layer": False}).save_pretrained(tmp_path)
    with torch.device("meta"):  # stands for an accelerator
        model = vit_torch.ViTModel.from_pretrained(tmp_path)  # its pooler is initialised anew
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    model = vit_torch.ViTModel.from_pretrained(tmp_path)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
