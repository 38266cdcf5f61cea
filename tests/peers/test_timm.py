"""Folders that `convert(to="timm")` writes load in timm, and timm's load here, with equal outputs.

Needs timm in an environment of its own, of 5.5 GB: run by `make test-peers-timm` only.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_models

import conversion
import vit_torch

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timm

SIZES = {**torch_models.SIZES, "layer_norm_eps": 1e-6}
CLASSIFIER = {**SIZES, "id2label": {0: "cat", 1: "dog", 2: "owl"}}
_NORM_FIRST = {"use_mean_pooling": True, "norm_before_pooling": True}
CASES = {
    "classifier": ("ViTForImageClassification", CLASSIFIER),
    "no qkv bias": ("ViTForImageClassification", {**CLASSIFIER, "qkv_bias": False}),
    "another activation": ("ViTForImageClassification", {**CLASSIFIER, "hidden_act": "quick_gelu"}),
    "one channel": ("ViTForImageClassification", {**CLASSIFIER, "num_channels": 1}),
    "encoder": ("ViTModel", SIZES),
    "mean": ("ViTForImageClassification", {**CLASSIFIER, "use_mean_pooling": True}),
    "norm, then mean": ("ViTForImageClassification", {**CLASSIFIER, **_NORM_FIRST, "layerscale_value": 0.5}),
    "patches alone": ("ViTForImageClassification", {**CLASSIFIER, **_NORM_FIRST, "use_class_token": False}),
    "scaled encoder": ("ViTModel", {**SIZES, "layerscale_value": 0.5}),
    "registers": ("ViTForImageClassification", {**CLASSIFIER, "num_register_tokens": 3}),
    "registers and patches": (
        "ViTForImageClassification",
        {**CLASSIFIER, **_NORM_FIRST, "use_class_token": False, "num_register_tokens": 2},
    ),
    "gated": ("ViTForImageClassification", {**CLASSIFIER, "use_swiglu_ffn": True, "hidden_act": "relu"}),
    "DINOv2's giant": (
        "ViTModel",
        {**SIZES, "use_swiglu_ffn": True, "num_register_tokens": 4, "layerscale_value": 0.5, "qkv_bias": False},
    ),
    "all under a mean": (
        "ViTForImageClassification",
        {**CLASSIFIER, "use_mean_pooling": True, "use_swiglu_ffn": True, "num_register_tokens": 1},
    ),
}
_GIANT = {"architecture": "vit_giant_patch14_dinov2"}  # with a gated MLP and LayerScale
THEIRS = {
    "classifier": {"num_classes": 5},
    "encoder": {"num_classes": 0},
    "no qkv bias": {"num_classes": 5, "qkv_bias": False},
    "positions of registers": {"num_classes": 5, "reg_tokens": 3},
    "registers without positions": {"num_classes": 5, "reg_tokens": 3, "no_embed_class": True},
    "registers and patches": {
        **{"num_classes": 5, "reg_tokens": 2, "class_token": False, "global_pool": "avg", "fc_norm": True},
        "no_embed_class": True,
    },
    "positions of registers and patches": {
        **{"num_classes": 5, "reg_tokens": 2, "class_token": False, "global_pool": "avg", "fc_norm": False},
    },
    "giant": {**_GIANT, "num_classes": 0},
    "giant on the mean": {**_GIANT, "num_classes": 5, "global_pool": "avg", "mlp_ratio": 2.5},
    "giant with registers": {
        "architecture": "vit_giant_patch14_reg4_dinov2",
        **{"num_classes": 5, "init_values": 0.3},
    },
    "a named model with registers": {
        "architecture": "vit_medium_patch16_reg4_gap_256",
        **{"num_classes": 5, "mlp_ratio": 2},
    },
}
ARGUMENTS = {"img_size": [12, 20], "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 1.5}


def ask(verb, folder, channels=3):
    images = np.sin(0.05 * np.arange(2 * channels * 12 * 20)).reshape(2, channels, 12, 20).astype(np.float32)
    np.savez(folder / "inputs.npz", pixel_values=images)
    command = [ROOT / ".venv-timm" / "bin" / "python", Path(__file__).parent / "timm_peer.py", verb, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {name: torch.from_numpy(array) for name, array in np.load(folder / "peer.npz").items()}
    return torch.from_numpy(images), found, json.loads((folder / "peer.json").read_text())


def check_same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def check_outputs(model, images, theirs):
    with torch.no_grad():
        found = model.eval()(images, output_hidden_states=True)
    if "logits" in found:
        check_same(found.logits, theirs["logits"])
        norm = getattr(model.vit, "layernorm", None) or torch.nn.Identity()  # else that of the mean
        check_same(norm(found.hidden_states[-1]).detach(), theirs["tokens"])
    else:
        check_same(found.last_hidden_state, theirs["tokens"])


@pytest.mark.parametrize("case", CASES)
def test_ours_loads_there(case, tmp_path):
    name, fields = CASES[case]
    options = {"add_pooling_layer": False} if name == "ViTModel" else {}
    model = getattr(vit_torch, name)(vit_torch.ViTConfig(**fields), **options)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path / "ours")
    conversion.convert(tmp_path / "ours", tmp_path / "timm", to="timm")
    images, theirs, report = ask("load", tmp_path / "timm", fields.get("num_channels", 3))
    check_outputs(model, images, theirs)
    assert report["labels"] == (["cat", "dog", "owl"] if name != "ViTModel" else None)


@pytest.mark.parametrize("case", THEIRS)
def test_theirs_loads_here(case, tmp_path):
    more = THEIRS[case]
    (tmp_path / "arguments.json").write_text(json.dumps({**ARGUMENTS, **more}))
    images, theirs, _ = ask("save", tmp_path)
    assert conversion.detect(tmp_path) == "timm"
    if more["num_classes"]:
        model, info = vit_torch.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    else:
        model, info = vit_torch.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    check_outputs(model, images, theirs)
