"""Keywords of loading and saving that scripts for transformers and accelerate pass: honoured, or refused by name."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch_models import SIZES, make_config, make_inputs, make_model

import vit_torch
from vit_core import CheckpointError, InputError
from vit_core.files.manifest import MANIFEST_NAME
from vit_core.tensors import to_numpy

NAME = "ViTForImageClassification"


def check_state(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(to_numpy(found[key]), to_numpy(value), err_msg=key)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), {"": "cpu"}, "meta"])
def test_device_map_moves_the_loaded_model(device, tmp_path):
    make_model(NAME).save_pretrained(tmp_path)
    model = vit_torch.ViTForImageClassification.from_pretrained(tmp_path, device_map=device)
    wanted = torch.device("meta" if device == "meta" else "cpu")
    assert {parameter.device for parameter in model.parameters()} == {wanted}
    assert model.hf_device_map == {"": wanted}


def test_device_map_auto_takes_the_accelerator(tmp_path, monkeypatch):
    make_model(NAME).save_pretrained(tmp_path)
    there = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model = vit_torch.ViTForImageClassification.from_pretrained(tmp_path, device_map="auto")
    assert model.device.type == there.type
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("meta"))
    model = vit_torch.ViTForImageClassification.from_pretrained(tmp_path, device_map="auto")
    assert model.device.type == "meta"


def test_a_state_dict_alone_becomes_a_model():
    model = make_model(NAME)
    loaded = vit_torch.ViTForImageClassification.from_pretrained(
        None, config=model.config, state_dict=model.state_dict()
    )
    assert not loaded.training and loaded.config.name_or_path == ""
    check_state(loaded.state_dict(), model.state_dict())
    with torch.no_grad():
        loaded.classifier.bias.fill_(7)  # its tensors are its own
    assert not (model.classifier.bias == 7).any()
    with pytest.raises(InputError, match="expected a folder or a hub name"):
        vit_torch.ViTForImageClassification.from_pretrained(None, config=model.config)


def test_a_state_dict_takes_the_place_of_the_stored_weights(tmp_path):
    model = make_model("ViTModel")
    model.save_pretrained(tmp_path)
    wrapped = {f"module.vit.{key}": 2 * value for key, value in model.state_dict().items() if "pooler" not in key}
    loaded, info = vit_torch.ViTForImageClassification.from_pretrained(
        tmp_path, state_dict=wrapped, num_labels=7, output_loading_info=True
    )
    assert sorted(info["missing_keys"]) == ["classifier.bias", "classifier.weight"]
    expected = {key.removeprefix("module.vit."): value for key, value in wrapped.items()}
    check_state(loaded.vit.state_dict(), expected)


def test_saving_the_state_dict_that_is_given(tmp_path):
    model = make_model(NAME)
    doubled = {key: (2 * value).to(torch.bfloat16) for key, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=doubled)
    loaded = vit_torch.ViTForImageClassification.from_pretrained(tmp_path, dtype="auto")
    check_state(loaded.state_dict(), doubled)
    with pytest.raises(CheckpointError, match=r"1 missing: classifier\.bias"):
        model.save_pretrained(tmp_path, state_dict={k: v for k, v in doubled.items() if k != "classifier.bias"})


def test_only_the_main_process_writes(tmp_path):
    make_model(NAME).save_pretrained(tmp_path / "saved", is_main_process=False)
    assert not (tmp_path / "saved").exists()


def both(tensors: dict, path: str, safe_serialization: bool = False) -> None:
    """Writes as accelerator.save does: a pickle unless it is told otherwise."""
    safetensors.torch.save_file(tensors, path, {"format": "pt"}) if safe_serialization else torch.save(tensors, path)


@pytest.mark.parametrize("function", [safetensors.torch.save_file, both], ids=["save_file", "accelerator.save"])
@pytest.mark.parametrize("shard", ["5GB", 9000])
def test_save_function_writes_every_weight_file(function, shard, tmp_path):
    written: list[str] = []

    def counting(tensors, path, **keywords):
        written.append(Path(path).name)
        function(tensors, path, **keywords)

    counting.__signature__ = inspect.signature(function)
    model = make_model(NAME)
    model.save_pretrained(tmp_path, save_function=counting, max_shard_size=shard)
    assert sorted(written) == sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert (len(written) == 1) == (shard == "5GB")
    records = json.loads((tmp_path / MANIFEST_NAME).read_text())["files"]
    assert {*written} <= {*records}
    check_state(vit_torch.ViTForImageClassification.from_pretrained(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (torch.save, "not a safetensors file|header"),
        (lambda tensors, path: None, "no such file"),
        (lambda tensors, path: safetensors.torch.save_file({"x": torch.ones(1)}, path), "other tensors"),
    ],
)
def test_a_save_function_that_writes_something_else_leaves_the_folder_alone(function, why, tmp_path):
    model = make_model(NAME)
    model.save_pretrained(tmp_path / "saved")
    before = (tmp_path / "saved" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=why) as caught:
        make_model(NAME, dtype="float64").save_pretrained(tmp_path / "saved", save_function=function)
    assert "safetensors.torch.save_file" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == before


def test_positional_order_is_that_of_transformers(tmp_path):
    model = make_model(NAME)
    model.save_pretrained(tmp_path, True, model.state_dict(), None, False, 9000, True, "half")
    assert (tmp_path / "model.safetensors.index.half.json").exists()


def test_a_fresh_model_runs_what_it_was_given():
    config = make_config(NAME)
    model = vit_torch.ViTForImageClassification(config)
    loaded = type(model).from_pretrained(None, config=config, state_dict=model.state_dict())
    inputs = make_inputs(NAME)
    np.testing.assert_array_equal(loaded(**inputs).logits.detach(), model.eval()(**inputs).logits.detach())
    assert config.image_size == SIZES["image_size"]
