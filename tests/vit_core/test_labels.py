"""Labels of classes: what a table of them may look like, and how id2label, label2id and num_labels keep together."""

import json

import numpy as np
import pytest
from refusing import refusal

from vit_core.config import ViTConfig
from vit_core.config.labels import label_table
from vit_core.limits import LIMITS

COUNT = f"expected an int from 0 to {LIMITS.labels}"


# One table

TABLES = [
    ({}, []),
    ([], []),
    ({0: "a", 1: "b"}, ["a", "b"]),
    ({"1": "b", "0": "a", "2": "c"}, ["a", "b", "c"]),
    ({np.int64(1): "b", "0": np.str_("a")}, ["a", "b"]),
    (["a", "b"], ["a", "b"]),
    (("a", "a"), ["a", "a"]),
    ([7, 1.5, np.float32(0.5), np.int64(3), -1], ["7", "1.5", "0.5", "3", "-1"]),
    ({str(i): i for i in reversed(range(12))}, [str(i) for i in range(12)]),
]


@pytest.mark.parametrize(("given", "labels"), TABLES)
def test_a_table_in_any_form(given, labels):
    assert label_table("here", given) == label_table("here", given, classes=len(labels)) == dict(enumerate(labels))
    assert [*label_table("here", given)] == [*range(len(labels))]  # in this order
    assert {type(label) for label in label_table("here", given).values()} <= {str}


REFUSED = [
    ({"0": "cat", "2": "dog"}, None, "the indices 0 to 1 for 2 classes, but 1 is missing and 2 does not belong"),
    ({1: "a", 2: "b", 3: "c"}, None, "the indices 0 to 2 for 3 classes, but 0 is missing and 3 does not belong"),
    ({0: "a"}, 3, "the indices 0 to 2 for 3 classes, but 1 is missing"),
    ({0: "a", 1: "b"}, 1, "the indices 0 to 0 for 1 classes, but 1 does not belong"),
    ({0: "a"}, 0, "no labels, but 0 does not belong"),
    (["a", "b"], 3, "3 labels, one for each class, got 2"),
    (["a", "b"], 0, "0 labels, one for each class, got 2"),
    ({-1: "a"}, None, "class indices from 0 on, got -1"),
    ({"-1": "a"}, None, "class indices from 0 on, got '-1'"),
    ({"cat": 0}, None, "class indices from 0 on, got 'cat'"),
    ({0.0: "a"}, None, "class indices from 0 on, got 0.0"),
    ({True: "a"}, None, "class indices from 0 on, got True"),
    ({"9" * 5000: "a"}, None, "class indices from 0 on, got '999"),
    ({"1": "a", 1: "b"}, None, "every class index once, got 1 twice"),
    ({"01": "a", "1": "b"}, None, "every class index once, got 1 twice"),
    ({0: "a", 1: None}, None, "text for class 1, got None"),
    (["a", True], None, "text for class 1, got True"),
    (["a", []], None, "text for class 1, got []"),
    ([float("nan")], None, "text for class 0, got nan"),
    ([10**5000], None, "text for class 0, got a very large int"),
    ("ab", None, "labels by index (a dict), or a list of them, got 'ab'"),
    ({"a", "b"}, None, "labels by index (a dict), or a list of them, got {"),
    (None, None, "labels by index (a dict), or a list of them, got None"),
    (range(LIMITS.labels + 1), None, "labels by index (a dict), or a list of them, got range("),
]


@pytest.mark.parametrize(("given", "classes", "part"), REFUSED)
def test_a_table_that_is_refused_names_what_is_wrong_first(given, classes, part):
    message = refusal(lambda: label_table("here", given, classes=classes))
    assert message.startswith(f"here: expected {part}")
    if classes is None:
        if given is not None:
            assert f"1 invalid setting:\nid2label: expected {part}" in refusal(lambda: ViTConfig(id2label=given))
        assert refusal(lambda: setattr(ViTConfig(), "id2label", given)) == f"ViTConfig.id2label: expected {part}" + (
            message.removeprefix(f"here: expected {part}")
        )


def test_too_many_labels_are_counted_not_read():
    message = refusal(lambda: label_table("here", [None] * (LIMITS.labels + 1)))
    assert message == f"here: expected at most {LIMITS.labels} labels, got {LIMITS.labels + 1}"


# The three fields


@pytest.mark.parametrize(
    ("given", "id2label", "label2id"),
    [
        ({}, {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}),
        ({"num_labels": 0}, {}, {}),
        ({"num_labels": np.int64(1)}, {0: "LABEL_0"}, {"LABEL_0": 0}),
        ({"id2label": {"1": "b", "0": "a", "2": "c"}}, {0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2}),
        ({"id2label": ["a", "b"], "num_labels": 2}, {0: "a", 1: "b"}, {"a": 0, "b": 1}),
        ({"id2label": {0: "a"}, "label2id": None}, {0: "a"}, {"a": 0}),
        ({"label2id": {"b": "1", "a": 0}}, {0: "a", 1: "b"}, {"a": 0, "b": 1}),
        ({"label2id": {3: 1, "a": 0}}, {0: "a", 1: "3"}, {"a": 0, "3": 1}),
        ({"id2label": {0: "a", 1: "a"}}, {0: "a", 1: "a"}, {"a": 1}),
        ({"id2label": {0: "a"}, "label2id": {"A": 0, "a": 0}}, {0: "a"}, {"A": 0, "a": 0}),
    ],
)
def test_label_maps(given, id2label, label2id, config_class):
    config = config_class(**given)
    assert (config.id2label, config.label2id, config.num_labels) == (id2label, label2id, len(id2label))
    assert [*config.id2label] == sorted(config.id2label)
    assert config_class.from_dict(json.loads(config.to_json_string(use_diff=False))) == config


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels: expected the 1 of id2label, got 3; give one of the two"),
        ({"num_labels": 3, "id2label": ["a", "b"]}, "num_labels: expected the 2 of id2label, got 3"),
        ({"num_labels": 3, "label2id": {"a": 0}}, "num_labels: expected the 1 of id2label, got 3"),
        ({"num_labels": True}, f"num_labels: {COUNT}, got True"),
        ({"num_labels": LIMITS.labels + 1}, f"got {LIMITS.labels + 1}"),
        ({"num_labels": "3"}, "got '3'"),
        ({"label2id": {"a": {}}}, "label2id: expected class indices from 0 on, got {}"),
        ({"label2id": {"a": 0, "b": 2}}, "label2id: expected the indices 0 to 1 for 2 classes, but 1 is missing and 2"),
        ({"label2id": {"a": 0, "b": 0}}, "label2id: expected every class index once, got 0 twice"),
        ({"label2id": {None: 0}}, "label2id: expected text for class 0, got None"),
        ({"label2id": ["a"]}, "label2id: expected a dict of label to class index, got ['a']"),
        ({"id2label": ["a"], "label2id": {"a": {}}}, "label2id: expected a dict of label to class index"),
        ({"id2label": ["a"], "label2id": {"a": 9}}, "label2id: expected classes of id2label, 0 to 0, got {'a': 9}"),
        ({"id2label": ["a"], "label2id": {"a": -1}}, "label2id: expected classes of id2label, 0 to 0, got {'a': -1}"),
    ],
)
def test_label_maps_refused(given, part, config_class):
    message = refusal(lambda: config_class(**given))
    assert f"1 invalid setting:\n{part}" in message or message.endswith(f"{part}.")


@pytest.mark.parametrize("labels", [{0: "x", 1: "y", 2: "z"}, ["x", "y", "z"], {"2": "z", "0": "x", "1": "y"}])
def test_label2id_follows_every_change_of_id2label(labels, config_class):
    follows = {"x": 0, "y": 1, "z": 2}
    config = config_class(id2label=["a", "b"], label2id={"mine": 1})
    config.id2label = labels
    assert (config.id2label, config.label2id) == ({0: "x", 1: "y", 2: "z"}, follows)
    for fields in {"id2label": labels}, {"num_labels": 3, "id2label": labels}, {"id2label": labels, "num_labels": 3}:
        config = config_class(id2label=["a", "b"], label2id={"mine": 1})
        config.update(fields)
        assert (config.num_labels, config.label2id) == (3, follows)
    stored = config_class(id2label=["a", "b"], label2id={"mine": 1}).to_dict()
    assert config_class.from_dict(stored, id2label=labels).label2id == follows
    config.num_labels = 1
    assert config.label2id == {"LABEL_0": 0}


@pytest.mark.parametrize("order", [("id2label", "label2id"), ("label2id", "id2label")])
def test_both_may_be_assigned_in_any_order(order, config_class):
    both = {"id2label": {0: "x", 1: "y", 2: "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    config = config_class()
    for name in order:
        setattr(config, name, both[name])
    config.validate()
    assert (config.id2label, config.label2id) == (both["id2label"], both["label2id"])
    updated = config_class()
    updated.update({name: {**both, "label2id": {"Y": 1}}[name] for name in order})
    assert updated.label2id == {"Y": 1}


def test_an_update_of_labels_that_disagree_changes_nothing(config_class):
    config = config_class(id2label=["a", "b"])
    for fields in {"id2label": ["x", "y"], "num_labels": 3}, {"id2label": None}, {"num_labels": None}:
        refusal(lambda fields=fields: config.update(fields))
    assert config == config_class(id2label=["a", "b"])


def test_a_label_changed_in_place_is_checked_and_label2id_stays(config_class):
    config = config_class(id2label=["a", "b"])
    config.id2label[1] = "c"
    config.validate()
    assert config.label2id == {"a": 0, "b": 1}
    config.id2label[3] = "d"
    assert "expected the indices 0 to 2 for 3 classes, but 2 is missing and 3" in refusal(config.validate)
    config.id2label = {0: "a", 1: "c"}
    assert config.label2id == {"a": 0, "c": 1}


def test_setting_the_number_of_labels():
    config = ViTConfig(id2label={0: "a", 1: "b"})
    config.num_labels = 2
    assert config.id2label == {0: "a", 1: "b"}
    config.num_labels = 3
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert refusal(lambda: setattr(config, "num_labels", -1)) == f"ViTConfig.num_labels: {COUNT}, got -1"
    assert refusal(lambda: setattr(config, "num_labels", None)) == "ViTConfig.num_labels: expected an int, got None"
    assert config.num_labels == 3


def test_a_stale_label2id_of_a_file_is_refused_or_left_out(config_class):
    stored = {**config_class(id2label=["a", "b"]).to_dict(), "label2id": {"n01440764": 999}}
    assert "label2id: expected classes of id2label, 0 to 1, got" in refusal(lambda: config_class.from_dict(stored))
    assert config_class.from_dict(stored, label2id=None).label2id == {"a": 0, "b": 1}
