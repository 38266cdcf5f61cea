"""Files that every library wrote: what is in them, what they compute, and what cannot be held."""

import numpy as np
import pytest
from foreign import CASES, ENTRIES, FOLDER, REFUSED, case_name, inputs, keywords, outputs, source

import conversion
from conversion.layouts import from_canonical, to_canonical
from vit_core import reference
from vit_core.errors import CheckpointError
from vit_core.parameters import MODEL_CLASSES, has_pooler

DIALECTS = {  # of the manifest -> ours
    **dict.fromkeys(("huggingface-torch-4.x", "huggingface-torch-5.x"), "hf"),
    **{
        "huggingface-tf": "hf_tf",
        "huggingface-flax": "hf_flax",
        "torchvision": "torchvision",
        "keras-hub": "keras_hub",
    },
    **dict.fromkeys(("google-vit-npz", "google-big_vision-npz"), "google"),
    **dict.fromkeys(("timm", "timm-hub-folder", "timm-train-checkpoint"), "timm"),
    **dict.fromkeys((f"facebookresearch-{name}" for name in ("deit", "dino", "dinov2", "mae")), "timm"),
}


def test_every_folder_has_an_entry():
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {entry["name"] for entry in ENTRIES}
    assert (len(ENTRIES), len(REFUSED)) == (83, 4)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_outputs_are_those_of_the_library(case):
    entry, choice = case
    config, tensors, report = conversion.load(source(entry), cls=entry["target"], **keywords(entry, choice))
    expected, given = outputs(entry, choice), inputs(entry)
    options = {"add_pooling_layer": has_pooler(config, tensors)} if entry["target"] == "ViTModel" else {}
    found = reference.forward(entry["target"], config, tensors, **given, **options)
    shared = found.keys() & expected.keys()
    assert shared and report.model == entry["target"]
    for name in shared:
        scale = max(1, np.abs(expected[name]).max())
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=entry["tolerance"] * scale, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_configuration_is_the_library_s(case):
    entry, choice = case
    config, _, report = conversion.load(source(entry), cls=entry["target"], **keywords(entry, choice))
    assert type(config) is MODEL_CLASSES[entry["target"]]
    for name, value in entry["config"].items():
        if name != "add_pooling_layer":
            found = getattr(config, name)
            assert (list(found) if isinstance(found, tuple) else found) == value, name
    is_mae = entry["dialect"] == "facebookresearch-mae" and entry["target"] == "ViTMAEForPreTraining"
    assert report.dialect == ("mae" if is_mae else DIALECTS[entry["dialect"]])


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_class_is_found_without_being_named(case):
    entry, choice = case
    model = conversion.load(source(entry), **keywords(entry, choice))[2].model
    bare = {"ViTMAEModel": "ViTModel"}  # an encoder of MAE is one of ViT; only a config.json tells
    assert model == entry["target"] or model == bare.get(entry["target"])


REASONS = {
    "bigvision_map": "attention pooling",
    "deit_distilled": "distillation token",
    "keras_hub_deit_backbone": "distillation token",
    "timm_deit_distilled": "distillation token",
}


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry["name"])
@pytest.mark.parametrize("cls", [None, "ViTModel", "ViTForImageClassification"])
def test_what_cannot_be_held_is_refused_by_name(entry, cls):
    with pytest.raises(CheckpointError, match=REASONS[entry["name"]]) as caught:
        conversion.load(source(entry), cls=cls, num_attention_heads=entry["config"]["num_attention_heads"])
    assert str(source(entry)) in str(caught.value) and str(caught.value).count("\n") < 3


@pytest.mark.parametrize(
    ("name", "cls", "reason"),
    [
        ("google_vit_representation", "ViTForImageClassification", "pre_logits"),
        ("torchvision_vit_representation", "ViTForImageClassification", "pre_logits"),
        ("mae_encoder_only", "ViTMAEForPreTraining", "no decoder weights"),
    ],
)
def test_a_class_that_cannot_hold_it_is_refused(name, cls, reason):
    entry = next(entry for entry in ENTRIES if entry["name"] == name)
    with pytest.raises(CheckpointError, match=reason):
        conversion.load_pretrained(source(entry), cls, keywords(entry))


def test_an_encoder_of_mae_is_a_vit_that_sees_every_patch():
    entry = next(entry for entry in ENTRIES if entry["name"] == "mae_encoder_only")
    options = {"cls": "ViTModel", "add_pooling_layer": False}
    config, tensors, _ = conversion.load(source(entry), **options, **keywords(entry))
    pixels = inputs(entry)["pixel_values"]
    found = reference.forward("ViTModel", config, tensors, pixels, add_pooling_layer=False)
    expected = outputs(entry)["unmasked_last_hidden_state"]
    np.testing.assert_allclose(found["last_hidden_state"], expected, rtol=0, atol=entry["tolerance"])


@pytest.mark.parametrize("convention", ["keras", "flax"])
@pytest.mark.parametrize("shift", [0, 4, 32])
@pytest.mark.parametrize(("kind", "shape"), [("conv", (2, 3, 4, 5)), ("linear", (7, 9))])
def test_what_frameworks_keep_is_aligned_wherever_it_lay_in_a_file(convention, shift, kind, shape):
    stored = np.zeros(4096, np.uint8)
    start = -stored.ctypes.data % 64 + shift
    array = np.ndarray(shape, np.float32, stored, start)
    array[...] = np.arange(array.size).reshape(shape)
    laid_out = from_canonical(to_canonical(array, kind, convention), kind, convention)
    assert laid_out.ctypes.data % 64 == 0 and laid_out.flags.c_contiguous and laid_out.flags.writeable
    np.testing.assert_array_equal(laid_out, array)
