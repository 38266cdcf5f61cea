"""Layers that are recomputed, and the folders that transformers' Trainer saves."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch_models import make_inputs, make_model

import vit_torch
from vit_core import CheckpointError, InputError, MissingFileError
from vit_core.files.containers import open_any
from vit_torch.training import ModelFolders

CLASSIFIER = "ViTForImageClassification"


def gradients(model: torch.nn.Module, inputs: dict) -> tuple[list[torch.Tensor], dict[str, int]]:
    """The gradients of a step, and how often each layer ran in it."""
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "ViTLayer":
            counts[name] = 0
            module.register_forward_pre_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
    model.zero_grad()
    model(**inputs)[0].square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], counts


@pytest.mark.parametrize("method", ["gradient_checkpointing", "activation_checkpointing"])
@pytest.mark.parametrize("offload", [False, True])
def test_every_so_many_layers_are_recomputed(name, method, offload):
    model = make_model(name, dtype="float64", num_hidden_layers=3).train()
    inputs = make_inputs(name)
    expected, once = gradients(model, inputs)
    assert {*once.values()} == {1}
    getattr(model, f"{method}_enable")({"use_reentrant": False}, every_n_layers=2, offload=offload)
    assert model.is_gradient_checkpointing and model.is_activation_checkpointing
    found, counts = gradients(model, inputs)
    assert counts == {layer: 1 if layer.endswith(".1") else 2 for layer in once}
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    getattr(model, f"{method}_disable")()
    assert not model.is_gradient_checkpointing
    assert {*gradients(model, inputs)[1].values()} == {1}


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2"])
def test_every_n_layers_is_a_count(count):
    with pytest.raises(InputError, match="every_n_layers: expected an int of at least 1, got "):
        make_model("ViTModel").gradient_checkpointing_enable(every_n_layers=count)


def save_as_trainer(folder, model) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "training_args.bin").write_bytes(b"")


def events(folder, step: int = 4, main: bool = True) -> tuple:
    return SimpleNamespace(output_dir=str(folder)), SimpleNamespace(global_step=step, is_world_process_zero=main), None


def test_what_trainer_saves_alone_explains_itself(tmp_path):
    save_as_trainer(tmp_path / "bare", make_model(CLASSIFIER))
    with pytest.raises(MissingFileError, match=r"no config\.json.*\n.*Trainer.*ModelFolders of vit_torch\.training"):
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path / "bare")
    os.remove(tmp_path / "bare" / "training_args.bin")
    with pytest.raises(MissingFileError, match=r"pass config=\.$"):
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path / "bare")


def check_loads(folder, model) -> None:
    loaded = vit_torch.ViTForImageClassification.from_pretrained(folder)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert loaded.config.architectures == [CLASSIFIER] and loaded.config.dtype == "float32"
    assert vit_torch.ViTImageProcessor.from_pretrained(folder).size == {"height": 12, "width": 20}


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "torch.compile"])
def test_model_folders_complete_what_trainer_saves(wrapped, tmp_path):
    folders = ModelFolders(vit_torch.ViTImageProcessor(size={"height": 12, "width": 20}))
    model = make_model(CLASSIFIER)
    for folder in ("checkpoint-4", ".", "elsewhere"):
        save_as_trainer(tmp_path / "out" / folder, model)
    folders.on_init_end(*events(tmp_path / "out"), model=torch.compile(model) if wrapped else model)
    folders.on_save(*events(tmp_path / "out"))
    folders.on_train_end(*events(tmp_path / "out"))
    folders.save_pretrained(tmp_path / "out" / "elsewhere")  # as processing_class
    for folder in ("checkpoint-4", ".", "elsewhere"):
        check_loads(tmp_path / "out" / folder, model)


ON_THE_MEAN = {"use_mean_pooling": True, "norm_before_pooling": True}


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_model_folders_mark_weights_that_transformers_would_take_for_a_vit(dtype, pickled, tmp_path):
    folders, model = ModelFolders(), make_model(CLASSIFIER, dtype=dtype, **ON_THE_MEAN)
    folders.on_init_end(*events(tmp_path), model=model)
    save_as_trainer(tmp_path / "checkpoint-4", model)
    if pickled:
        os.remove(tmp_path / "checkpoint-4" / "model.safetensors")
        torch.save(model.state_dict(), tmp_path / "checkpoint-4" / "pytorch_model.bin")
    for _ in range(2):  # as processing_class, and as callback
        folders.on_save(*events(tmp_path))
    said = json.loads((tmp_path / "checkpoint-4" / "config.json").read_text())
    assert said["model_type"] == "vitriad_vit"
    stored = open_any(tmp_path / "checkpoint-4" / ("pytorch_model.bin" if pickled else "model.safetensors")).tensors
    assert {*stored} - {*model.state_dict()} == {"mean_pooling"}
    loaded = vit_torch.ViTForImageClassification.from_pretrained(tmp_path / "checkpoint-4", dtype="auto")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    loaded.save_pretrained(tmp_path / "ours")
    assert {*open_any(tmp_path / "ours" / "model.safetensors").tensors} == {*stored}


@pytest.mark.parametrize("options", [{}, {"num_register_tokens": 2}, {"use_mean_pooling": True}])
def test_model_folders_leave_other_weights_as_they_are(options, tmp_path):
    folders, model = ModelFolders(), make_model(CLASSIFIER, **options)
    folders.on_init_end(*events(tmp_path), model=model)
    save_as_trainer(tmp_path / "checkpoint-4", model)
    before = (tmp_path / "checkpoint-4" / "model.safetensors").read_bytes()
    folders.on_save(*events(tmp_path))
    assert (tmp_path / "checkpoint-4" / "model.safetensors").read_bytes() == before


def test_model_folders_do_nothing_else(tmp_path):
    processor = vit_torch.ViTImageProcessor(size=8)
    folders = ModelFolders(processor)
    for event in ("on_step_end", "on_push_begin", "on_an_event_to_come"):
        assert getattr(folders, event)(*events(tmp_path), model=None) is None
    folders.on_save(*events(tmp_path, main=False))
    folders.on_train_end(*events(tmp_path, main=False))
    assert os.listdir(tmp_path) == []
    assert folders.model_input_names == ["pixel_values"]
    image = np.zeros((9, 9, 3), np.uint8)
    np.testing.assert_array_equal(folders(image)["pixel_values"], processor(image)["pixel_values"])
    assert not hasattr(folders, "pad_token_id")
    folders.on_train_begin(*events(tmp_path), model=torch.nn.Linear(2, 2))  # no model of ours: the processor alone
    folders.save_pretrained(tmp_path)
    assert os.listdir(tmp_path) == ["preprocessor_config.json"]


def test_an_adapter_is_told_from_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    tensors = {"base_model.model.vit.encoder.layer.0.attention.attention.query.lora_A.weight": torch.zeros(2, 24)}
    safetensors.torch.save_file(tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"adapter of PEFT.*\n.*PeftModel\.from_pretrained.*merge_and_unload"):
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="adapter of PEFT"):
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path / "adapter_model.safetensors")
    model = make_model(CLASSIFIER)
    model.save_pretrained(tmp_path)  # a model beside its adapter is a model
    assert (tmp_path / "adapter_model.safetensors").exists()
    vit_torch.ViTForImageClassification.from_pretrained(tmp_path)
