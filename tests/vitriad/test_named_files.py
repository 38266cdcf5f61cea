"""Commands and Auto classes take a weight file as they take its folder."""

import json
import shutil

import numpy as np
import pytest
from backends import INSTALLED
from foreign import FOLDER

import vitriad
from vit_core.tensors import to_numpy
from vitriad import models
from vitriad.cli import main

DIGITS = models.FOLDER / "digits-vit"
# Folder -> its weight file; the second is of another program.
FOLDERS = {DIGITS: "model.safetensors", FOLDER / "timm_hub_folder": "model.safetensors"}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def pair(request, tmp_path):
    """A folder and the file in it."""
    folder = shutil.copytree(request.param, tmp_path / "model", ignore=shutil.ignore_patterns("io.npz"))
    return folder, folder / FOLDERS[request.param]


def said(capsys, *words):
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def test_inspect_and_convert(pair, tmp_path, capsys):
    found = [json.loads(said(capsys, "inspect", "--json", path)) for path in pair]
    for each in found:
        assert each.pop("checkpoint") and each.pop("problems") == []
    assert found[0] == found[1]
    for path, name in zip(pair, ("one", "two"), strict=True):
        said(capsys, "convert", path, tmp_path / name, "--to", "hf")
    for file in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_verify(pair, capsys):
    said(capsys, "verify", *pair, "--backend", INSTALLED[0], "--tolerance", 0)


def test_classify(capsys):
    """The processor beside it, too: another one would give other scores."""
    image = models.digit_files()[0]
    lines = [said(capsys, "classify", "--json", image, "--model", path) for path in (DIGITS, DIGITS / FOLDERS[DIGITS])]
    assert lines[0] == lines[1]


@pytest.mark.every_day("torch", "digits-vit-")
@pytest.mark.parametrize("backend", INSTALLED)
def test_the_auto_classes_and_load(pair, backend):
    classes = (vitriad.AutoModelForImageClassification, vitriad.AutoModel)
    for load in (vitriad.load, *(cls.from_pretrained for cls in classes)):
        one, two = (load(path, backend=backend) for path in pair)
        size = one.config.image_size
        image = np.random.default_rng(0).random((1, one.config.num_channels, size, size)).astype(np.float32)
        first, second = (to_numpy(model(image)[0]) for model in (one, two))  # a pooler would be drawn anew
        np.testing.assert_array_equal(first, second)
        assert type(one) is type(two)


@pytest.mark.parametrize("backend", INSTALLED)
def test_load_takes_the_class_of_the_file_not_of_other_weights(tmp_path, backend):
    """A config.json beside it that names the class of another file's weights says nothing of this one."""
    vitriad.AutoModel.from_pretrained(DIGITS, backend=backend).save_pretrained(tmp_path)
    vitriad.convert(DIGITS, tmp_path / "digits.npz", to="google", allow=("numerics",))
    model = vitriad.load(tmp_path / "digits.npz", backend=backend)
    assert type(model).__name__.endswith("ViTForImageClassification")
    assert model.config.num_labels == 10
