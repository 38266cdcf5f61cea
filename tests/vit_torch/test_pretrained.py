"""Saving and loading: what only this backend has."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from sameness import check_tensors
from torch_models import make_config, make_inputs, make_model

import vit_torch
from vit_core import CheckpointError, InputError
from vit_core.tensors import to_numpy


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
    check_tensors(loaded.canonical_tensors(), model.to(expected).canonical_tensors())


def test_bfloat16_arrays_become_bfloat16_tensors():
    config = make_config("ViTModel")
    tensors = {
        key: value.numpy().astype(ml_dtypes.bfloat16) for key, value in make_model("ViTModel").state_dict().items()
    }
    assert vit_torch.ViTModel.from_tensors(config, tensors).dtype == torch.bfloat16


def test_a_subclass_with_parameters_of_its_own_is_refused(tmp_path):
    class Wider(vit_torch.ViTForImageClassification):
        def __init__(self, config):
            super().__init__(config)
            self.adapter = torch.nn.Linear(3, 3)

    make_model("ViTForImageClassification").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"adapter\.weight, adapter\.bias"):
        Wider.from_pretrained(tmp_path)


def test_models_are_loaded_onto_the_default_device(tmp_path, monkeypatch):
    saved = make_model("ViTModel", options={"add_pooling_layer": False})
    saved.save_pretrained(tmp_path)
    default, moved = torch.device("cpu", 1), []
    monkeypatch.setattr(torch, "get_default_device", lambda: default)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: moved.append(device) or self)
    vit_torch.ViTModel.from_pretrained(tmp_path)  # its pooler is initialised anew
    vit_torch.ViTModel.from_tensors(saved.config, saved.canonical_tensors(), add_pooling_layer=False)
    assert moved == [default, default]


def test_nothing_is_loaded_onto_a_default_device_that_holds_no_values(tmp_path):
    saved = make_model("ViTModel", options={"add_pooling_layer": False})
    saved.save_pretrained(tmp_path)
    tensors = saved.canonical_tensors()
    loads = {
        "folder": lambda: vit_torch.ViTModel.from_pretrained(tmp_path),
        "auto": lambda: vit_torch.AutoModel.from_pretrained(tmp_path),
        "state_dict": lambda: vit_torch.ViTModel.from_pretrained(None, config=saved.config, state_dict=tensors),
        "tensors": lambda: vit_torch.ViTModel.from_tensors(saved.config, tensors, add_pooling_layer=False),
    }
    for load in loads.values():
        with torch.device("meta"), pytest.raises(InputError, match=r'outside of torch\.device.*device_map="cpu"'):
            load()
    with torch.device("meta"):
        model = vit_torch.ViTModel.from_pretrained(tmp_path, device_map="cpu")  # its pooler is initialised anew
        assert vit_torch.ViTModel(saved.config).device.type == "meta"
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    np.testing.assert_array_equal(to_numpy(model.layernorm.weight), tensors["layernorm.weight"])


def test_loaded_models_train_what_the_table_says(name, tmp_path):
    make_model(name).save_pretrained(tmp_path)
    loaded = getattr(vit_torch, name).from_pretrained(tmp_path)
    assert not loaded.training
    frozen = {key for key, p in loaded.named_parameters() if not p.requires_grad}
    assert frozen == {key for key, row in loaded.parameter_table().items() if not row.trainable}


def test_the_documented_call_in_half_precision(tmp_path):
    make_model("ViTMAEForPreTraining").save_pretrained(tmp_path)
    model = vit_torch.ViTMAEModel.from_pretrained(tmp_path, attn_implementation="sdpa", torch_dtype=torch.float16)
    outputs = model(**make_inputs("ViTMAEModel"))
    assert outputs[0].dtype == torch.float16
    assert all(value.isfinite().all() for value in outputs.to_tuple())


@pytest.mark.parametrize(
    ("device_map", "needle"),
    [("balanced", "device_map.*\n.*dispatch_model"), ({"vit": "cpu", "classifier": "cpu"}, "device_map")],
)
def test_models_are_not_spread_over_devices(device_map, needle, tmp_path):
    make_model("ViTModel").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=needle):
        vit_torch.ViTModel.from_pretrained(tmp_path, device_map=device_map)


def test_little_memory_is_what_loading_takes_anyway(tmp_path):
    make_model("ViTModel").save_pretrained(tmp_path)
    vit_torch.ViTModel.from_pretrained(tmp_path, low_cpu_mem_usage=True)
