"""Image processors in conversions: carried if they can be read, made where something tells, else said to be missing."""

import json
import os
import shutil

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES, FOLDER, keywords, source

import conversion
from conversion.detecting import open_source
from conversion.processors import find_processor
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.errors import ImageError, UnsafeFileError, VitError
from vit_core.limits import Limits

CLS = "ViTForImageClassification"
NAME = "preprocessor_config.json"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALVES = ([0.5] * 3, [0.5] * 3)


@pytest.fixture
def model(tmp_path):
    config = make_config(CLS, image_size=12, layer_norm_eps=1e-6)
    write(tmp_path / "sub" / "model", config, make_tensors(CLS, config))
    return tmp_path / "sub" / "model"


def carried(src, dst, **options):
    conversion.convert(src, dst, **{"to": "hf", "force": True, **options})
    return ViTImageProcessor.from_pretrained(dst)


def note(report):
    notes = [line for line in report.notes if line.startswith("image processor: ")]
    assert len(notes) <= 1
    return notes[0].removeprefix("image processor: ") if notes else None


# Carried


@pytest.mark.parametrize("to", ["hf", "hf_tf", "hf_flax", "timm"])
def test_its_own_is_carried_from_folder_file_and_subfolder(model, tmp_path, to):
    own = ViTImageProcessor(size=12, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3, note="kept")
    own.save_pretrained(model)
    assert carried(model, tmp_path / "new", to=to) == own
    assert carried(model / "model.safetensors", tmp_path / "new", to=to) == own
    assert carried(tmp_path / "sub", tmp_path / "new", to=to, subfolder="model") == own
    assert carried(tmp_path / "new", tmp_path / "again", to="hf") == own


def test_timm_reads_it_in_its_own_words(model, tmp_path):
    ViTImageProcessor(size=12, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=2).save_pretrained(model)
    conversion.convert(model, tmp_path / "timm", to="timm")
    said = json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]
    assert (said["mean"], said["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (said["interpolation"], said["crop_pct"]) == ("bilinear", 1.0)
    os.unlink(tmp_path / "timm" / NAME)
    assert carried(tmp_path / "timm", tmp_path / "back").image_std == [0.4, 0.5, 0.6]


BAD = {
    "no text": (b"\xff\xfe\x00", ImageError, "expected UTF-8 text"),
    "no JSON": (b"{", ImageError, "not valid JSON"),
    "no object": (b"[]", ImageError, "expected a JSON object"),
    "another processor": (b'{"image_processor_type": "CLIPImageProcessor"}', ImageError, "CLIPImageProcessor"),
    "a bad option": (b'{"image_mean": "x"}', ImageError, "image_mean"),
    "of 3 GB": (3 * 10**9, ImageError, "3000000000 bytes, above"),
}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_one_that_cannot_be_used_is_an_error_before_anything_is_written(model, tmp_path, name, dry_run):
    content, error, match = BAD[name]
    if isinstance(content, int):
        (model / NAME).touch()
        os.truncate(model / NAME, content)
    else:
        (model / NAME).write_bytes(content)
    with pytest.raises(error, match=match):
        conversion.convert(model, tmp_path / "new", dry_run=dry_run)
    assert not (tmp_path / "new").exists()


def test_limits_are_the_caller_s(model, tmp_path):
    ViTImageProcessor(size=12).save_pretrained(model)
    with pytest.raises(VitError, match="above"):
        conversion.convert(model, tmp_path / "new", limits=Limits(config_bytes=10))


@pytest.mark.parametrize("name", ["config.json", NAME, "manifest.json"])
def test_a_link_out_of_the_folder_is_refused_and_one_within_followed(model, tmp_path, name):
    ViTImageProcessor(size=12).save_pretrained(model)
    shutil.move(model, tmp_path / "moved")
    folder, outside = tmp_path / "moved", tmp_path / "outside.json"
    if name == "manifest.json":
        (folder / name).write_text("{}")
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    readers = [lambda: conversion.convert(folder, tmp_path / "new")]
    readers += [lambda: ViTConfig.from_pretrained(folder)] if name == "config.json" else []
    readers += [lambda: ViTImageProcessor.from_pretrained(folder)] if name == NAME else []
    for read in readers:
        with pytest.raises(UnsafeFileError, match=f"{name}: a symbolic link out of its folder"):
            read()
    os.unlink(folder / name)
    shutil.move(outside, folder / "real.json")
    (folder / name).symlink_to("real.json")
    assert carried(folder, tmp_path / "new").size == {"height": 12, "width": 12}


def test_a_link_that_the_user_names_is_followed(model, tmp_path):
    (tmp_path / "link.json").symlink_to(model / "config.json")
    assert ViTConfig.from_pretrained(tmp_path / "link.json").hidden_size == 12


# Made

MADE = {  # golden checkpoint -> mean and deviation, filter, what is said
    "google_vit_prelinen": (*HALVES, 2, "mean and deviation of Google's models"),
    "torchvision_vit": (*IMAGENET, 2, "mean and deviation of torchvision's models"),
    "mae_full_normpix_false": (*IMAGENET, 3, "mean and deviation of MAE"),
    "mae_linear_probe_batchnorm": (*IMAGENET, 3, "mean and deviation of MAE"),
    "deit_distilled": (*IMAGENET, 3, "mean and deviation of DeiT"),
    "deit3_layerscale": (*IMAGENET, 3, "mean and deviation of DeiT"),
    "dino_full_checkpoint": (*IMAGENET, 3, "mean and deviation of DINO"),
    "dinov2_small": (*IMAGENET, 3, "mean and deviation of DINOv2"),
    "timm_hub_folder": (*HALVES, 3, "config.json of timm"),
    "keras_hub_preset_cls": (
        *HALVES,
        2,
        "image_converter.json, which keeps the aspect ratio; here images are stretched",
    ),
}


def opened(name):
    (entry,) = (entry for entry in ENTRIES if entry["name"] == name)
    options = {
        **keywords(entry, *entry.get("choices", [None])[:1]),
        "allow": ("distillation", "pre_logits", "numerics"),
    }
    return source(entry), options


@pytest.mark.parametrize("name", MADE)
def test_what_a_program_s_models_want_is_known(tmp_path, name):
    mean, std, resample, said = MADE[name]
    src, options = opened(name)
    report = conversion.convert(src, tmp_path / "new", **options)
    found = ViTImageProcessor.from_pretrained(tmp_path / "new")
    assert (found.image_mean, found.image_std, found.resample) == (mean, std, resample)
    size = conversion.load(tmp_path / "new")[0].image_size
    assert found.size == {"height": size, "width": size} and note(report) == f"by {said}"


@pytest.mark.parametrize("name", ["dino_vitbase16_pretrain.pth", "deit_base_patch16_224-b5f2ef4d.pth"])
def test_published_names_tell_what_no_tensor_does(tmp_path, name):
    src, options = opened("dino_backbone")
    shutil.copy(src, tmp_path / name)
    report = conversion.convert(tmp_path / name, tmp_path / "new", **options)
    assert note(report) == f"by mean and deviation of the {name.partition('_')[0]} release"
    assert ViTImageProcessor.from_pretrained(tmp_path / "new").image_mean == IMAGENET[0]


@pytest.mark.parametrize("file", ["image_converter.json", "preprocessor.json"])
def test_the_arithmetic_of_keras_hub_is_kept(tmp_path, file):
    """pixel * scale + offset, by channel, with the numbers of ImageNet."""
    folder = shutil.copytree(
        FOLDER / "keras_hub_preset_cls", tmp_path / "preset", ignore=shutil.ignore_patterns("io.npz")
    )
    mean, std = map(np.array, IMAGENET)
    data = json.loads((folder / file).read_text())
    inner = data["config"].get("image_converter", data)["config"]
    inner |= {"scale": (1 / 255 / std).tolist(), "offset": (-mean / std).tolist(), "interpolation": "bicubic"}
    (folder / file).write_text(json.dumps(data))
    if file == "preprocessor.json":
        os.unlink(folder / "image_converter.json")
    found = carried(folder, tmp_path / "new")
    np.testing.assert_allclose(found.image_mean, mean, rtol=1e-10)
    np.testing.assert_allclose(found.image_std, std, rtol=1e-10)
    assert found.resample == 3


@pytest.mark.parametrize(
    "change", [{"scale": 0}, {"scale": "x"}, {"scale": [1, 2]}, {"offset": [1e9] * 3}, {"offset": {}}]
)
def test_a_converter_that_makes_no_sense_is_refused(tmp_path, change):
    folder = shutil.copytree(
        FOLDER / "keras_hub_preset_cls", tmp_path / "preset", ignore=shutil.ignore_patterns("io.npz")
    )
    data = json.loads((folder / "image_converter.json").read_text())
    data["config"] |= change
    (folder / "image_converter.json").write_text(json.dumps(data))
    with pytest.raises(ImageError, match=rf"image_converter\.json: {next(iter(change))}: expected "):
        conversion.convert(folder, tmp_path / "new")


# None


def test_where_nothing_tells_the_report_says_so(model, tmp_path):
    new = tmp_path / "new"
    said = note(conversion.convert(model, new))
    assert (
        said.startswith("none, nothing tells how images for it are prepared; ViTImageProcessor(") and str(new) in said
    )
    ViTImageProcessor(size=12).save_pretrained(new)
    said = note(conversion.convert(model, new, force=True))
    assert "preprocessor_config.json of what was there stays" in said and (new / NAME).exists()
    ViTImageProcessor(size=12).save_pretrained(model)
    report = conversion.convert(model, tmp_path / "x.npz", to="google", allow=("numerics",))
    assert note(report) == "none, the file has no place for one"


def test_three_means_are_of_no_use_to_one_channel(tmp_path):
    config = make_config(CLS, image_size=12, num_channels=1)
    write(tmp_path / "gray", config, make_tensors(CLS, config))
    conversion.convert(tmp_path / "gray", tmp_path / "gray.npz", to="google", allow=("numerics",))
    opened = open_source(tmp_path / "gray.npz")
    found = find_processor(opened, conversion.load(tmp_path / "gray.npz")[0])
    assert found.processor is None and found.said.endswith("are for three channels, and it has 1")
