"""Models with options are saved as the type of transformers that has them, or as one that transformers refuses.

Needs transformers in environments of its own: run by `make test-peers`, not by `make test`.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_models
from peers.test_exchange import PEERS, ask, check_same, randomised, write_inputs

import vit_torch
from vit_core.config.relatives import OF_DINOV2_HEADS, gated_width

pytestmark = pytest.mark.peers

SIZES = {**torch_models.SIZES, "image_size": 16}
PLAIN = {**SIZES, "intermediate_size": 2 * SIZES["hidden_size"]}
GATED = {**SIZES, "use_swiglu_ffn": True, "intermediate_size": gated_width(SIZES["hidden_size"], 2)}
ALONE = {"use_class_token": False, "use_mean_pooling": True, "norm_before_pooling": True}
_CLASSIFIER = "ViTForImageClassification"
UNSAID = {*ALONE, *OF_DINOV2_HEADS, "intermediate_size"}  # what their classes imply
THEIRS = {  # class of transformers -> class here, its configuration; what of transformers' has no name here
    "Dinov2Model": ("ViTModel", GATED),
    "Dinov2WithRegistersModel": ("ViTModel", {**PLAIN, "num_register_tokens": 4, "layerscale_value": 0.5}),
    "Dinov2ForImageClassification": (_CLASSIFIER, {**PLAIN, **OF_DINOV2_HEADS, "num_labels": 5}),
    "Dinov2WithRegistersForImageClassification": (
        _CLASSIFIER,
        {**GATED, **OF_DINOV2_HEADS, "num_register_tokens": 3, "layerscale_value": 0.5, "num_labels": 5},
    ),
    "IJepaModel": ("ViTModel", {**SIZES, **ALONE}),
    "IJepaForImageClassification": (_CLASSIFIER, {**SIZES, **ALONE, "num_labels": 5}),
}
OURS = {  # options that no type of transformers has so
    "registers and a pooler": ("ViTModel", {"num_register_tokens": 2}),
    "registers under a head": ("ViTForImageClassification", {"num_register_tokens": 2}),
    "a mean": ("ViTModel", {"use_mean_pooling": True}),
    "a head on the mean": ("ViTForImageClassification", {"use_mean_pooling": True}),
    "a head on the mean of normed patches": (
        "ViTForImageClassification",
        {"use_mean_pooling": True, "norm_before_pooling": True},
    ),
    "a head on the class token and the mean, with a pruned head": (
        "ViTForImageClassification",
        {**OF_DINOV2_HEADS, "pruned_heads": {0: [1]}},
    ),
    "a pooler of class token and mean": ("ViTModel", {**OF_DINOV2_HEADS}),
    "LayerScale under a head": ("ViTForImageClassification", {"layerscale_value": 0.1}),
    "a gated MLP under a head": ("ViTForImageClassification", {"use_swiglu_ffn": True}),
    "masked images with registers": ("ViTForMaskedImageModeling", {"num_register_tokens": 1, "encoder_stride": 4}),
}


def made(name: str, fields: dict) -> torch.nn.Module:
    """A random model; a bare encoder has no pooler, as those of transformers."""
    if name != "ViTModel":
        return randomised(name, fields)
    model = vit_torch.ViTModel(vit_torch.ViTConfig(**fields), add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def only_shared(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without their pooler_output, which is the class token's row as it is."""
    return {name: value for name, value in theirs.items() if name in ("last_hidden_state", "logits")}


@pytest.mark.parametrize("version", PEERS)
@pytest.mark.parametrize("other", THEIRS)
def test_ours_loads_there_as_the_type_that_has_the_options(version, other, tmp_path):
    name, fields = THEIRS[other]
    model = made(name, fields)
    model.save_pretrained(tmp_path)
    inputs = write_inputs(tmp_path, name)
    theirs, report = ask(version, "load", tmp_path, other)
    assert not any(report.values()), report
    check_same(model, inputs, only_shared(theirs))
    again = getattr(vit_torch, name).from_pretrained(
        tmp_path, **({"add_pooling_layer": False} if name == "ViTModel" else {})
    )
    assert again.config.family_options == model.config.family_options


@pytest.mark.parametrize("version", PEERS)
@pytest.mark.parametrize("other", THEIRS)
def test_theirs_loads_here(version, other, tmp_path):
    name, fields = THEIRS[other]
    said = {key: value for key, value in fields.items() if key not in UNSAID}
    said |= {"intermediate_size": fields["intermediate_size"]} if "IJepa" in other else {"mlp_ratio": 2}
    (tmp_path / "fields.json").write_text(json.dumps(said))
    inputs = write_inputs(tmp_path, name)
    theirs, _ = ask(version, "save", tmp_path, other)
    options = {"add_pooling_layer": False} if name == "ViTModel" else {}
    model = getattr(vit_torch, name).from_pretrained(tmp_path, **options)
    check_same(model, inputs, only_shared(theirs))


@pytest.mark.parametrize("version", PEERS)
@pytest.mark.parametrize("what", OURS)
def test_what_no_type_of_theirs_has_is_refused_there_or_told_of(version, what, tmp_path):
    name, options = OURS[what]
    randomised(name, {**SIZES, **options}).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "vitriad_vit"
    command = [PEERS[version], Path(__file__).parent / "peer.py", "refuse", tmp_path, name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads((tmp_path / "peer.json").read_text())
    assert "vitriad_vit" in said["auto"]
    assert said["direct"], "the class loads it and says nothing"
