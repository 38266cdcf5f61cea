"""Published weights come back from every dialect that can express them, bit for bit, and compute the same there."""

import numpy as np
import pytest
from backends import INSTALLED
from real import comparing

import conversion
from conversion.dialects import targets
from vit_core.errors import CheckpointError

TARGETS = targets()

pytestmark = pytest.mark.real

AS_THEY_ARE = ("hf", "hf_tf", "hf_flax", "timm", "torchvision")
FILES = {"torchvision": "model.safetensors", "google": "model.npz", "mae": "model.safetensors"}
PLAIN = {"cls": "ViTModel", "add_pooling_layer": False}


def convert(folder, target, tmp_path, **options):
    """Into a dialect; returns where it is."""
    path = tmp_path / target / FILES.get(target, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    report = conversion.convert(folder, path, to=target, **PLAIN, **options)
    assert f"written as {target!r}" in str(report)
    return path


def check_same(path, folder, *, numerics=True):
    """The same tensors, bit for bit, and the same constants."""
    (config, tensors, report), (kept, expected, _) = (conversion.load(p, **PLAIN) for p in (path, folder))
    for field in ("hidden_size", "num_attention_heads", "image_size", *(["layer_norm_eps", "hidden_act"] * numerics)):
        assert getattr(config, field) == getattr(kept, field), field
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor, err_msg=name)
    return report.dialect


@pytest.mark.parametrize("target", AS_THEY_ARE)
def test_back_from_each_dialect(target, folder, tmp_path, images, expected):
    path = convert(folder, target, tmp_path)
    assert check_same(path, folder) == target
    back = tmp_path / "back"
    conversion.convert(path, back, to="hf", **PLAIN)
    check_same(back, folder)
    for backend in INSTALLED:
        got = comparing.states(comparing.load(path, backend), backend, images[:2])
        comparing.check(got, [state[:2] for state in expected])


def test_google_s_programs_have_another_gelu_and_say_so(folder, tmp_path):
    with pytest.raises(CheckpointError, match="hidden_act 'gelu' becomes 'gelu_pytorch_tanh'"):
        convert(folder, "google", tmp_path)
    path = convert(folder, "google", tmp_path, allow=("numerics",))
    assert check_same(path, folder, numerics=False) == "google"


def test_mae_s_programs_have_no_plain_encoder(folder, tmp_path):
    assert {*AS_THEY_ARE, "google", "mae"} == TARGETS.keys()
    with pytest.raises(CheckpointError, match="ViTMAEModel"):
        convert(folder, "mae", tmp_path)
