"""`adapt=`: a checkpoint for other channels or patches than its own, only where it is asked for."""

import json

import numpy as np
import pytest

import conversion
from vit_core.config import patch_grid
from vit_core.errors import CheckpointError, InputError
from vit_core.positions import resize_table
from vit_core.projections import with_channels, with_patches

PROJECTION = "vit.embeddings.patch_embeddings.projection.weight"
POSITIONS = "vit.embeddings.position_embeddings"
CLASSIFIER = "ViTForImageClassification"
CHANGES = [
    ({"num_channels": 1}, "channels", ("channels",)),
    ({"num_channels": 4}, ["channels"], ("channels",)),
    ({"patch_size": 2}, "patches", ("patches",)),
    ({"patch_size": (2, 6), "image_size": (4, 18)}, ("patches", "channels"), ("patches",)),
    ({"num_channels": 6, "patch_size": 2}, {"channels", "patches"}, ("channels", "patches")),
]
NOTES = {  # of a file with 3 channels and patches of 4 x 4
    "num_channels": {
        1: "from 3 to 1 channels: their sum, exact for images whose channels are all alike",
        2: "from 3 to 2 channels: repeated, times 3/2, an approximation",
        4: "from 3 to 4 channels: repeated, times 3/4, an approximation",
        6: "from 3 to 6 channels: repeated, times 3/6, exact for images whose channels repeat after 3",
    },
    "patch_size": {
        8: "from patches of 4 x 4 to 8 x 8: pseudo-inverse of resizing, "
        "exact for patches enlarged bilinearly one by one",
        2: "from patches of 4 x 4 to 2 x 2: pseudo-inverse of resizing, an approximation by least squares",
        (2, 6): "from patches of 4 x 4 to 2 x 6: pseudo-inverse of resizing, an approximation by least squares",
    },
}


@pytest.mark.parametrize(("fields", "adapt", "needed"), CHANGES)
def test_a_checkpoint_becomes_one_for_other_images(saved, fields, adapt, needed):
    folder, tensors = saved(CLASSIFIER)
    loaded = conversion.load_pretrained(folder, CLASSIFIER, {**fields, "adapt": adapt, "dtype": "float64"})
    patch = fields.get("patch_size", 4)
    patch = patch if isinstance(patch, tuple) else (patch, patch)
    kernel = with_patches(with_channels(tensors[PROJECTION], fields.get("num_channels", 3)), patch)
    table = resize_table(tensors[POSITIONS], (2, 3), patch_grid(loaded.config))
    for name, array in loaded.tensors.items():
        expected = {PROJECTION: kernel, POSITIONS: table}.get(name, tensors[name])
        np.testing.assert_array_equal(array, expected)
    assert not any(loaded.info.values())
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        conversion.load_pretrained(folder, CLASSIFIER, fields)
    value = repr(needed[0]) if len(needed) == 1 else repr(needed)
    assert str(caught.value).endswith(
        f"adapt={value} ({' '.join(f'--adapt {name}' for name in needed)}) brings the patch projection to it."
    )


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in NOTES for value in NOTES[field]])
def test_the_report_says_where_it_is_exact(saved, field, value):
    folder, _ = saved("ViTModel")
    loaded = conversion.load_pretrained(folder, "ViTModel", {field: value, "adapt": ("channels", "patches")})
    assert loaded.report.notes[0] == f"patch projection {NOTES[field][value]}"


@pytest.mark.parametrize("fields", [{"num_channels": 1}, {"patch_size": 2}])
def test_one_adaptation_is_not_the_other(saved, fields):
    folder, _ = saved("ViTModel")
    other = "patches" if "num_channels" in fields else "channels"
    with pytest.raises(CheckpointError, match=f"adapt='{({'channels', 'patches'} - {other}).pop()}'"):
        conversion.load_pretrained(folder, "ViTModel", {**fields, "adapt": other})


def test_nothing_changes_where_nothing_has_to(saved):
    folder, tensors = saved("ViTModel")
    loaded = conversion.load_pretrained(folder, "ViTModel", {"adapt": ("channels", "patches")})
    assert loaded.report.notes == ()
    for name, array in loaded.tensors.items():
        np.testing.assert_array_equal(array, tensors[name])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_rounded_once(saved, dtype):
    folder, tensors = saved("ViTModel")
    loaded = conversion.load_pretrained(folder, "ViTModel", {"num_channels": 1, "adapt": "channels", "dtype": dtype})
    name = PROJECTION.removeprefix("vit.")
    expected = tensors[name].astype(np.float64).sum(axis=1, keepdims=True).astype(loaded.tensors[name].dtype)
    np.testing.assert_array_equal(loaded.tensors[name], expected)


# A head that makes pixels


@pytest.mark.parametrize("cls", ["ViTMAEForPreTraining", "ViTForMaskedImageModeling"])
@pytest.mark.parametrize("fields", [{"num_channels": 1}, {"patch_size": 8}, {"num_channels": 12, "patch_size": 2}])
def test_a_head_that_makes_pixels_is_refused_by_name(saved, cls, fields):
    folder, _ = saved(cls)
    stride = {"encoder_stride": fields.get("patch_size", 4)} if cls == "ViTForMaskedImageModeling" else {}
    options = {**fields, **stride, "image_size": 16, "adapt": ("channels", "patches")}
    head = "decoder.0.weight" if stride else "decoder.decoder_pred.weight"
    with pytest.raises(CheckpointError, match="a head that makes pixels") as caught:
        conversion.load_pretrained(folder, cls, options)
    assert head in str(caught.value)
    anew = conversion.load_pretrained(folder, cls, {**options, "ignore_mismatched_sizes": True})
    assert anew.missing == [head, head.replace("weight", "bias")]


def test_the_encoder_of_a_masked_autoencoder_follows(saved):
    folder, tensors = saved("ViTMAEForPreTraining")
    loaded = conversion.load_pretrained(folder, "ViTMAEModel", {"num_channels": 1, "adapt": "channels"})
    name = PROJECTION.removeprefix("vit.")
    np.testing.assert_allclose(loaded.tensors[name], tensors[PROJECTION].sum(axis=1, keepdims=True), rtol=1e-6)


# What is refused


@pytest.mark.parametrize("adapt", ["images", ("channels", "size"), 3, True])
def test_other_words_are_refused(saved, adapt):
    folder, _ = saved("ViTModel")
    for call in (
        lambda: conversion.load_pretrained(folder, "ViTModel", {"adapt": adapt}),
        lambda: conversion.load(folder, adapt=adapt),
    ):
        with pytest.raises(InputError, match="adapt: expected 'channels' or 'patches', or both, got"):
            call()


def test_channels_without_a_rule_stay_an_error(saved):
    folder, _ = saved("ViTModel", num_channels=5)
    with pytest.raises(CheckpointError, match="of another shape") as caught:
        conversion.load_pretrained(folder, "ViTModel", {"num_channels": 3, "adapt": "channels"})
    assert "brings" not in str(caught.value)


# conversion.load and convert, in names of other programs too


@pytest.mark.parametrize("dialect", ["hf", "timm"])
def test_load_and_convert_adapt_too(saved, tmp_path, dialect):
    folder, tensors = saved(CLASSIFIER)
    conversion.convert(folder, tmp_path / "theirs", to=dialect, allow=("numerics",))
    options = {"patch_size": 2, "num_channels": 1, "adapt": ("channels", "patches")}
    config, found, report = conversion.load(tmp_path / "theirs", **options)
    expected = with_patches(with_channels(tensors[PROJECTION], 1), (2, 2))
    np.testing.assert_allclose(found[PROJECTION], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found[POSITIONS], resize_table(tensors[POSITIONS], (2, 3), patch_grid(config)))
    assert str(report).count("patch projection from") == 2
    conversion.convert(tmp_path / "theirs", tmp_path / "new", to="hf", **options)
    _, again, _ = conversion.load(tmp_path / "new")
    for name, array in found.items():
        np.testing.assert_array_equal(again[name], array)


def test_an_image_processor_of_other_channels_is_not_carried(saved, tmp_path):
    folder, _ = saved("ViTModel")
    said = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    report = conversion.convert(folder, tmp_path / "grey", to="hf", num_channels=1, adapt="channels")
    assert f"image processor: none, the one of {folder} is for 3 channels; " in str(report)
    assert not (tmp_path / "grey" / "preprocessor_config.json").exists()
    conversion.convert(folder, tmp_path / "same", to="hf")
    assert (tmp_path / "same" / "preprocessor_config.json").exists()
