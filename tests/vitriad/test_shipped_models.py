"""The models that come with vitriad do what their description says, measured anew from the shipped files."""

import json

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image
from sklearn.datasets import load_digits

import vitriad
from vit_core.masking import noise
from vit_core.tensors import to_numpy
from vitriad import models

DIGITS = load_digits()
SCANS = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)
SPLIT = json.loads((models.FOLDER / "digits-vit" / "split.json").read_text())


def pixels_of(indices: list[int], folder) -> np.ndarray:
    processor = vitriad.AutoImageProcessor.from_pretrained(folder)
    return processor(list(SCANS[indices]), input_data_format="none", return_tensors="np")["pixel_values"]


@pytest.fixture(params=models.NAMES)
def folder(request):
    return models.FOLDER / request.param


@pytest.mark.parametrize("backend", INSTALLED)
def test_classifier_is_right_on_at_least_97_percent_of_the_held_out_digits(backend):
    folder, held_out = models.FOLDER / "digits-vit", SPLIT["held_out"]
    logits = to_numpy(vitriad.load(folder, backend)(pixel_values=pixels_of(held_out, folder)).logits)
    assert (logits.argmax(axis=1) == DIGITS.target[held_out]).mean() >= 0.97


@pytest.mark.parametrize("backend", INSTALLED)
def test_reconstruction_is_far_better_than_the_mean_digit(backend):
    folder, held_out = models.FOLDER / "digits-vit-mae", SPLIT["held_out"]
    model, pixels = vitriad.load(folder, backend), pixels_of(held_out, folder)
    output = model(pixel_values=pixels, noise=noise(1, len(held_out), 16))
    mean = pixels_of(SPLIT["train"], folder).mean(axis=0, keepdims=True).repeat(len(held_out), axis=0)
    of_mean = model.forward_loss(pixels, model.patchify(mean), output.mask)
    assert to_numpy(output.loss) < 0.35 * to_numpy(of_mean)


def test_split_is_disjoint_complete_and_as_its_rule_says(folder):
    split = json.loads((folder / "split.json").read_text())
    order = np.argsort(noise(0, 1, len(SCANS))[0], kind="stable")
    assert split["held_out"] == sorted(order[: len(SCANS) // 5].tolist())
    assert sorted(split["train"] + split["held_out"]) == list(range(len(SCANS)))
    assert "noise(seed=0, batch=1, patches=images)" in split["rule"]


def test_files_are_small_and_complete(folder):
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    expected = {"config.json", "manifest.json", "model.safetensors", "preprocessor_config.json", "split.json"}
    assert files.keys() == expected
    assert sum(files.values()) <= 1_000_000


def test_processor_is_for_one_channel(folder):
    processor = vitriad.AutoImageProcessor.from_pretrained(folder)
    assert (processor.image_mean, processor.image_std, processor.size) == ([0.5], [0.5], {"height": 16, "width": 16})
    assert vitriad.AutoConfig.from_pretrained(folder).num_channels == 1


def test_pictures_are_two_held_out_scans_of_every_digit():
    files = models.digit_files()
    indices = [int(file.stem.rpartition("-")[2]) for file in files]
    assert [int(file.name[0]) for file in files] == DIGITS.target[indices].tolist() == sorted([*range(10)] * 2)
    assert {*indices} <= {*SPLIT["held_out"]}
    for file, index in zip(files, indices, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), SCANS[index])
