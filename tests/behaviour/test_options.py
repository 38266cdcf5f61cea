"""Options of the family in every backend: registers, means, LayerScale, gated MLPs; loaded, looked into, pruned."""

import json
from pathlib import Path

import numpy as np
import pytest
from sameness import check_same

from vit_core import ConfigError, InputError
from vit_core.tensors import from_numpy, to_numpy

GOLDEN = Path(__file__).parent.parent / "golden" / "relatives"
REGISTERS = {"num_register_tokens": 3, "layerscale_value": 0.1, "use_swiglu_ffn": True, "num_hidden_layers": 3}
ALONE = {"use_class_token": False, "use_mean_pooling": True, "norm_before_pooling": True}


def images(backend, height=12, width=20):
    pixels = np.random.default_rng(height * width).standard_normal((2, 3, height, width), np.float32)
    return from_numpy(pixels, backend.tensors_word)


@pytest.mark.every_day("torch", "tf dinov2_registers", "flax dinov2_swiglu")
@pytest.mark.parametrize("name", ["dinov2_5", "dinov2_registers", "dinov2_swiglu", "ijepa"])
@pytest.mark.parametrize("is_kept", [False, True])
def test_files_of_transformers_compute_what_they_do_there(backend, name, is_kept):
    if name == "ijepa" and is_kept:  # which has no LayerScale
        return
    options = {"layerscale_value": 1.0} if is_kept else {}
    model = backend.cls("ViTModel").from_pretrained(GOLDEN / name, add_pooling_layer=False, **options)
    stored = np.load(GOLDEN / name / "outputs.npz")
    pixels = from_numpy(stored["pixel_values"].astype(np.float32), backend.tensors_word)
    check_same(model(pixel_values=pixels).last_hidden_state, stored["last_hidden_state"], 1e-5)
    assert any("lambda1" in key for key in model.canonical_tensors()) == is_kept


@pytest.mark.every_day("torch", "tf-False", "flax-True")
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_classifier_of_dinov2_computes_what_it_does_there_and_is_saved_as_one(backend, is_kept, tmp_path):
    options = {"layerscale_value": 1.0} if is_kept else {}
    classifier = backend.cls("ViTForImageClassification")
    model = classifier.from_pretrained(GOLDEN / "dinov2_classifier", **options)
    stored = np.load(GOLDEN / "dinov2_classifier" / "outputs.npz")
    pixels = from_numpy(stored["pixel_values"].astype(np.float32), backend.tensors_word)
    check_same(model(pixel_values=pixels).logits, stored["logits"], 1e-5)
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert (said["model_type"], said["architectures"]) == ("dinov2", ["Dinov2ForImageClassification"])
    again = classifier.from_pretrained(tmp_path)
    assert again.config.family_options == model.config.family_options
    check_same(again(pixel_values=pixels).logits, to_numpy(model(pixel_values=pixels).logits), 0.0)


@pytest.mark.every_day("torch", "[flax]")
def test_features_from_inside_are_without_registers(backend):
    model = backend.make_model("ViTModel", **REGISTERS)
    pixels = images(backend, 8, 28)
    whole = model(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True)
    states = [to_numpy(state) for state in whole.hidden_states[1:]]
    assert states[0].shape[1] == 1 + 3 + 14
    _, found = model.forward_intermediates(pixels, [1], output_format="NLC", return_prefix_tokens=True)
    check_same(found[0][0], states[1][:, 4:], 0.0)
    check_same(found[0][1], states[1][:, :4], 0.0)
    ((patches, token),) = model.get_intermediate_layers(pixels, [2], return_class_token=True, norm=False)
    check_same(patches, states[2][:, 4:], 1e-6)
    check_same(token, states[2][:, 0], 1e-6)
    (maps,) = model.get_intermediate_layers(pixels, 1, reshape=True)
    normed = to_numpy(whole.last_hidden_state)[:, 4:]
    check_same(maps, normed.transpose(0, 2, 1).reshape(2, -1, 2, 7), 1e-5)


@pytest.mark.every_day("torch", "[flax]")
def test_patches_alone_have_features_and_no_class_token(backend):
    model = backend.make_model("ViTModel", **ALONE)
    pixels = images(backend)
    output = model(pixel_values=pixels)
    last = to_numpy(output.last_hidden_state)
    check_same(output.pooler_output, last.mean(axis=1), 1e-6)
    (patches,) = model.get_intermediate_layers(pixels, 1)
    check_same(patches, last, 1e-5)
    with pytest.raises(InputError, match="return_class_token: the model has none"):
        model.get_intermediate_layers(pixels, 1, return_class_token=True)


@pytest.mark.every_day("torch")
def test_a_mean_without_its_norm_is_read_as_the_last_block_gives_it(backend):
    model = backend.make_model("ViTModel", use_mean_pooling=True)
    last, (patches,) = model.forward_intermediates(images(backend), 1, norm=True, output_format="NLC")
    check_same(patches, to_numpy(last)[:, 1:], 1e-6)


@pytest.mark.every_day("torch", "[tf]")
def test_heads_are_pruned_and_saved_with_options(backend, tmp_path):
    model = backend.make_model("ViTModel", **REGISTERS)
    pixels, heads = images(backend), model.config.num_attention_heads
    mask = np.ones((3, heads), np.float32)
    mask[1, 0] = 0
    silenced = to_numpy(model(pixel_values=pixels, head_mask=from_numpy(mask, backend.tensors_word)).last_hidden_state)
    model.prune_heads({1: [0]})
    check_same(model(pixel_values=pixels).last_hidden_state, silenced, 1e-5)
    model.save_pretrained(tmp_path)
    again = backend.cls("ViTModel").from_pretrained(tmp_path)
    assert again.config.family_options == model.config.family_options
    check_same(again(pixel_values=pixels).last_hidden_state, silenced, 1e-5)


@pytest.mark.every_day("torch")
def test_a_masked_image_model_has_no_mean_to_normalise(backend):
    with pytest.raises(ConfigError, match="ViTForMaskedImageModeling: use_mean_pooling: the final norm is that of the"):
        backend.make_model("ViTForMaskedImageModeling", use_mean_pooling=True)
