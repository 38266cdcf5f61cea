"""Files as training programs leave them: weights under a key, under a prefix, beside other weights."""

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from weight_files import torch_tree

import conversion
from vit_core.errors import CheckpointError

CLS = "ViTForImageClassification"
CONFIG = make_config(CLS)
TENSORS = make_tensors(CLS, CONFIG)


@pytest.fixture
def folder(tmp_path):
    CONFIG.save_pretrained(tmp_path)
    return tmp_path


def same(found):
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


KEYS = ("model_state_dict", "net_state_dict", "module", "network", "params", "weights", "model_weights")


@pytest.mark.parametrize("key", KEYS)
def test_weights_under_a_usual_key(folder, key):
    for tree in ({key: TENSORS}, {"epoch": 3, "model": {key: TENSORS}, "optimizer": {"state": {}}}):
        path = torch_tree(folder / "run.pth", tree)
        _, found, report = conversion.load(path)
        same(found)
        assert any(key in note and note.startswith("weights: ") for note in report.notes)


@pytest.mark.parametrize("key", KEYS)
def test_a_usual_key_without_weights_hides_none(folder, key):
    same(conversion.load(torch_tree(folder / "run.pth", {**TENSORS, key: {"lr": 0.1}}))[1])


def test_weights_under_a_key_of_ones_own(folder):
    path = torch_tree(folder / "run.pth", {"trainer": {"my.net": TENSORS}, "mine": TENSORS, "n": 1})
    with pytest.raises(CheckpointError, match=r"no weights in it, .*\nSay where they are: weights='mine'"):
        conversion.load(path)
    for weights in ("mine", "trainer.my.net"):
        same(conversion.load(path, weights=weights)[1])
    for weights in ("trainer", "trainer.my", "n", "mine.x", "trainer.my.nets", ".mine"):
        with pytest.raises(CheckpointError, match="no weights in it"):
            conversion.load(path, weights=weights)
    path = torch_tree(folder / "run.pth", {"model": TENSORS, "mine": {name: -array for name, array in TENSORS.items()}})
    np.testing.assert_array_equal(
        conversion.load(path, weights="mine")[1]["classifier.bias"], -TENSORS["classifier.bias"]
    )


def test_two_usual_keys_are_asked_about(folder):
    path = torch_tree(folder / "run.pth", {"model": TENSORS, "network": TENSORS})
    with pytest.raises(CheckpointError, match="several sets of weights: 'model', 'network'"):
        conversion.load(path)
    same(conversion.load(path, weights="network")[1])


@pytest.mark.parametrize("depth", [1, 2])
def test_flax_variables_are_read_as_their_parameters(tmp_path, depth):
    """What `to_bytes` writes of {"params": parameters}, once or as a module's variables inside another's."""
    write(tmp_path / "ours", CONFIG, TENSORS)
    conversion.convert(tmp_path / "ours", tmp_path / "flax", to="hf_flax")
    path = tmp_path / "flax" / "flax_model.msgpack"
    content = depth * b"\x81\xa6params" + path.read_bytes()
    CONFIG.save_pretrained(tmp_path)
    (tmp_path / "state.msgpack").write_bytes(content)
    same(conversion.load(tmp_path / "state.msgpack")[1])
