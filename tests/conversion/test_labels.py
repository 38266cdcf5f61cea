"""Labels that other programs' files name: for just the classes that the classifier has, or an error."""

import json
import shutil

import pytest
from foreign import FOLDER

import conversion
from vit_core.errors import CheckpointError, ConfigError

CLASSES = 11
NAMES = [f"kind {index}" for index in range(CLASSES)]
BY_INDEX = {str(index): name for index, name in enumerate(NAMES)}


@pytest.fixture
def timm(tmp_path):
    """timm(**keys) -> a folder of timm with these keys in its config.json."""

    def write(inner=(), **keys):
        folder = tmp_path / "timm"
        shutil.copytree(FOLDER / "timm_hub_folder", folder, dirs_exist_ok=True)
        path = folder / "config.json"
        data = json.loads(path.read_text(encoding="utf-8")) | keys
        data["pretrained_cfg"] |= dict(inner)
        path.chmod(0o644)
        path.write_text(json.dumps(data), encoding="utf-8")
        return folder

    return write


def labels(folder, **keywords):
    return [*conversion.load(folder, **keywords)[0].id2label.values()]


@pytest.mark.parametrize("key", ["label_names", "labels"])
@pytest.mark.parametrize("table", [NAMES, BY_INDEX, dict(reversed(BY_INDEX.items()))])
def test_every_place_and_form_of_timm(timm, key, table):
    assert labels(timm(**{key: table})) == NAMES
    assert labels(timm(inner={key: table})) == NAMES
    assert labels(timm(inner={key: NAMES[::-1]}, **{key: table})) == NAMES  # the outer place wins, as in timm


def test_the_newer_key_wins_and_numbers_become_text(timm):
    assert labels(timm(labels=NAMES[::-1], label_names=NAMES)) == NAMES
    assert labels(timm(label_names=[*range(CLASSES)])) == [str(index) for index in range(CLASSES)]


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_without_labels_there_is_one_for_each_class(timm, nothing):
    assert labels(timm(label_names=nothing)) == [f"LABEL_{index}" for index in range(CLASSES)]


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({"0": "cat", "2": "dog"}, "expected the indices 0 to 10 for 11 classes, but 1 is missing"),
        ({**BY_INDEX, "11": "x"}, "but 11 does not belong"),
        ({"cat": 0}, "expected class indices from 0 on, got 'cat'"),
        (NAMES[:3], "expected 11 labels, one for each class, got 3"),
        ([*NAMES, "x"], "expected 11 labels, one for each class, got 12"),
        ([*NAMES[:10], None], "expected text for class 10, got None"),
        ("cat", "expected labels by index (a dict), or a list of them, got 'cat'"),
    ],
)
@pytest.mark.parametrize("key", ["label_names", "labels"])
def test_labels_of_timm_that_do_not_fit(timm, key, table, part):
    folder = timm(**{key: table})
    for load in (conversion.load, lambda src: conversion.load_pretrained(src, "ViTForImageClassification", {})):
        with pytest.raises(ConfigError) as caught:
            load(folder)
        assert str(caught.value).startswith(f"{folder}: config.json: {key}: ")
        assert part in str(caught.value) and "pass id2label=" in str(caught.value)
    assert labels(folder, id2label=NAMES) == NAMES


def test_a_count_of_labels_that_is_not_the_classifier_s_says_so(saved):
    folder, _ = saved("ViTForImageClassification", id2label=["a", "b", "c"], num_labels=3)
    for wrong in ["a", "b"], {0: "a", 1: "b"}:
        with pytest.raises(CheckpointError, match=r"\(the configuration has 2 labels, the file 3 classes\)"):
            conversion.load_pretrained(folder, "ViTForImageClassification", {"id2label": wrong})
    loaded = conversion.load_pretrained(folder, "ViTForImageClassification", {"id2label": ["x", "y", "z"]})
    assert loaded.config.label2id == {"x": 0, "y": 1, "z": 2}


@pytest.mark.parametrize("table", [{"0": "a", "2": "c"}, {"1": "a", "2": "b"}, {"0": "a", "1": None}])
def test_a_stored_id2label_that_is_no_table_does_not_load(saved, table):
    folder, _ = saved("ViTForImageClassification", id2label=["a", "b"], num_labels=2)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": table, "label2id": None}))
    with pytest.raises(ConfigError, match="id2label: expected"):
        conversion.load_pretrained(folder, "ViTForImageClassification", {})
    loaded = conversion.load_pretrained(folder, "ViTForImageClassification", {"id2label": ["x", "y"]})
    assert loaded.config.id2label == {0: "x", 1: "y"}
