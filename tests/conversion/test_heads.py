"""Files with an axis for the heads of attention: every axis of every block, the configuration and the caller agree."""

import json
import shutil

import h5py
import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from foreign import FOLDER

import conversion
from vit_core import ViTConfig
from vit_core.errors import CheckpointError

# Google's names and keras-hub's of the tensors that have the axis, in a block.
GOOGLE = [
    f"MultiHeadDotProductAttention_1/{part}/{what}" for part in ("query", "key", "value") for what in ("kernel", "bias")
]
GOOGLE.append("MultiHeadDotProductAttention_1/out/kernel")
KERAS = [f"mha/{part}_dense/vars/{i}" for part in ("query", "key", "value") for i in (0, 1)]
KERAS.append("mha/output_dense/vars/0")


def in_another_order(array, name):
    """(hidden, heads, head_dim) as (hidden, head_dim, heads), and alike."""
    axes = (1, 0, 2) if "out" in name else (*range(array.ndim - 2), array.ndim - 1, array.ndim - 2)
    return np.ascontiguousarray(array.transpose(axes))


def without_the_axis(array, name):
    return array.reshape(-1, array.shape[-1]) if "out" in name else array.reshape(*array.shape[:-2], -1)


@pytest.fixture
def google(tmp_path):
    """google(name=None, change=...) -> an .npz file with 3 heads of 4, a tensor of it changed."""
    cls = "ViTForImageClassification"
    config = make_config(cls, image_size=12, layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh")
    write(tmp_path / "start", config, make_tensors(cls, config))

    def make(name=None, change=None):
        conversion.convert(tmp_path / "start", tmp_path / "vit.npz", to="google", force=True)
        tensors = dict(np.load(tmp_path / "vit.npz"))
        if name is not None:
            tensors[name] = change(tensors[name], name)
        np.savez(tmp_path / "vit.npz", **tensors)
        return tmp_path / "vit.npz"

    return make


@pytest.fixture
def keras(tmp_path):
    """keras(name, change) -> keras-hub's weights with 4 heads of 7, a tensor of them changed."""

    def make(name, change):
        path = shutil.copy(FOLDER / "keras_hub_backbone_weights_h5" / "model.weights.h5", tmp_path)
        with h5py.File(path, "r+") as file:
            array = change(file[name][()], name)
            del file[name]
            file[name] = array
        return path

    return make


def refused(path, match, **options):
    with pytest.raises(CheckpointError, match=match) as caught:
        conversion.load(path, **options)
    assert str(caught.value).count("\n") < 3
    return str(caught.value)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("name", GOOGLE)
def test_one_tensor_of_google_s_in_another_order(google, block, name):
    full = f"Transformer/encoderblock_{block}/{name}"
    refused(google(full, in_another_order), f"{full}: shape .*: expected 3 heads of 4, as 13 of 14 .*, got 4 of 3")


@pytest.mark.parametrize("name", GOOGLE)
def test_one_without_the_axis(google, name):
    full = f"Transformer/encoderblock_1/{name}"
    refused(google(full, without_the_axis), f"{full}: .*: expected 3 heads of 4, .*, got no axis for them")


@pytest.mark.parametrize("block", ["", "_1"])
@pytest.mark.parametrize("name", KERAS)
def test_one_tensor_of_keras_hub_s_in_another_order(keras, block, name):
    full = f"layers/vi_t_encoder/encoder_layers/vi_t_encoder_block{block}/{name}"
    refused(keras(full, in_another_order), f"{full}: .*: expected 4 heads of 7, as 13 of 14 .*, got 7 of 4")


def test_of_several_the_first_is_named(google):
    """In the order of the layers, not of the file, and by what most have."""
    path = google()
    tensors = dict(np.load(path))
    for name in ("encoderblock_1/{}/query/kernel", "encoderblock_0/{}/value/bias", "encoderblock_1/{}/key/kernel"):
        full = f"Transformer/{name.format('MultiHeadDotProductAttention_1')}"
        tensors[full] = in_another_order(tensors.pop(full), full)
    np.savez(path, **tensors)
    refused(path, "encoderblock_0/MultiHeadDotProductAttention_1/value/bias: .* as 11 of 14 ")


@pytest.mark.parametrize("way", ["keyword", "configuration", "file"])
def test_a_caller_who_says_something_else(google, way):
    path = google()
    config = ViTConfig(**{**conversion.load(path)[0].to_dict(), "num_attention_heads": 4})
    if way == "file":
        config.save_pretrained(path.parent / "other")
    options = {"num_attention_heads": 4} if way == "keyword" else {"config": config}
    message = refused(path, "query/kernel", **({"config": path.parent / "other"} if way == "file" else options))
    assert "has an axis of 3 heads; num_attention_heads is 4 as given." in message
    assert conversion.load(path, num_attention_heads=3)[0].num_attention_heads == 3


def test_a_configuration_beside_it_that_says_something_else(google, tmp_path):
    path = google()
    fields = {**conversion.load(path)[0].to_dict(), "num_attention_heads": 4}
    ViTConfig(**fields).save_pretrained(path.parent / "folder")
    path.rename(path.parent / "folder" / "vit.npz")
    refused(path.parent / "folder", r"query/kernel has an axis of 3 heads; .* is 4 in config\.json")
    folder = shutil.copytree(FOLDER / "keras_hub_preset_backbone", tmp_path / "preset")
    said = json.loads((folder / "config.json").read_text())
    said["config"]["num_heads"] = 2
    (folder / "config.json").write_text(json.dumps(said))
    refused(folder, r"query_dense/vars/0 has an axis of 3 heads; .* is 2 in config\.json")
