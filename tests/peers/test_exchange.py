"""Checkpoints saved here load in transformers (torch, TensorFlow, Flax), and theirs load here, with equal outputs.

Needs transformers in environments of its own: run by `make test-peers`, not by `make test`.
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
from vit_core.masking import noise

ROOT = Path(__file__).parent.parent.parent
PEERS = {version: ROOT / f".venv-{version}" / "bin" / "python" for version in ("hf4", "hf5")}
pytestmark = pytest.mark.peers

SIZES = {**torch_models.SIZES, "image_size": 16}
CASES = {
    "ViTModel": SIZES,
    "ViTForImageClassification": {**SIZES, "num_labels": 5, "qkv_bias": False},
    "ViTForMaskedImageModeling": {**SIZES, "encoder_stride": 4},
    "ViTMAEModel": {**SIZES},
    "ViTMAEForPreTraining": {**SIZES, **torch_models.DECODER, "norm_pix_loss": True},
}


def write_inputs(folder: Path, name: str) -> dict[str, torch.Tensor]:
    inputs = {"pixel_values": np.sin(0.05 * np.arange(2 * 3 * 16 * 16)).reshape(2, 3, 16, 16).astype(np.float32)}
    if "MAE" in name:
        inputs["noise"] = noise(3, 2, 16)
    if name == "ViTForMaskedImageModeling":
        inputs["bool_masked_pos"] = noise(3, 2, 16) < 0.5
    np.savez(folder / "inputs.npz", **inputs)
    return {key: torch.from_numpy(array) for key, array in inputs.items()}


def ask(version: str, verb: str, folder: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    command = [PEERS[version], Path(__file__).parent / "peer.py", verb, folder, name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / "peer.npz")), json.loads((folder / "peer.json").read_text())


def check_same(model: torch.nn.Module, inputs: dict[str, torch.Tensor], theirs: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        ours = {key: value for key, value in model(**inputs).items() if isinstance(value, torch.Tensor)}
    assert sorted(ours) == sorted(theirs)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=key)


def randomised(name: str, fields: dict | None = None) -> torch.nn.Module:
    cls = getattr(vit_torch, name)
    model = cls(cls.config_class(**(fields or CASES[name]))).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("version", PEERS)
@pytest.mark.parametrize("name", CASES)
def test_ours_loads_there(version, name, tmp_path):
    model = randomised(name)
    model.save_pretrained(tmp_path)
    inputs = write_inputs(tmp_path, name)
    theirs, report = ask(version, "load", tmp_path, name)
    assert report == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    check_same(model, inputs, theirs)


@pytest.mark.parametrize("version", PEERS)
@pytest.mark.parametrize("name", CASES)
def test_theirs_loads_here(version, name, tmp_path):
    (tmp_path / "fields.json").write_text(json.dumps(CASES[name]))
    inputs = write_inputs(tmp_path, name)
    theirs, _ = ask(version, "save", tmp_path, name)
    model, info = getattr(vit_torch, name).from_pretrained(tmp_path, output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    check_same(model, inputs, theirs)


# transformers' classes of the other frameworks, which 4.57.6 is the last to have -> the dialect that is theirs
OTHERS = {
    **{f"TF{name}": "hf_tf" for name in CASES if name != "ViTForMaskedImageModeling"},
    **{f"Flax{name}": "hf_flax" for name in ("ViTModel", "ViTForImageClassification")},
}
# TensorFlow's have no word for attention without biases, and normalise pixels by the biased variance (numerics.md).
KNOWN = {
    **CASES,
    "ViTForImageClassification": {**SIZES, "num_labels": 5},
    "ViTMAEForPreTraining": {**SIZES, **torch_models.DECODER},
}


@pytest.mark.parametrize("other", OTHERS)
def test_ours_converted_loads_in_their_other_frameworks(other, tmp_path):
    name = other.removeprefix("TF").removeprefix("Flax")
    model = randomised(name, KNOWN[name])
    model.save_pretrained(tmp_path / "ours")
    conversion.convert(tmp_path / "ours", tmp_path / "theirs", to=OTHERS[other])
    inputs = write_inputs(tmp_path / "theirs", name)
    theirs, report = ask("hf4", "load", tmp_path / "theirs", other)
    assert {key: names for key, names in report.items() if names} == {}
    check_same(model, inputs, theirs)


@pytest.mark.parametrize("other", [name for name in OTHERS if name.startswith("Flax")])
def test_ours_loads_in_their_flax_as_it_is_saved(other, tmp_path):
    name = other.removeprefix("Flax")
    model = randomised(name)
    model.save_pretrained(tmp_path)
    inputs = write_inputs(tmp_path, name)
    theirs, report = ask("hf4", "load", tmp_path, other)
    assert {key: names for key, names in report.items() if names} == {}
    check_same(model, inputs, theirs)


@pytest.mark.parametrize("other", OTHERS)
def test_theirs_of_other_frameworks_loads_here(other, tmp_path):
    name = other.removeprefix("TF").removeprefix("Flax")
    (tmp_path / "fields.json").write_text(json.dumps(KNOWN[name]))
    inputs = write_inputs(tmp_path, name)
    theirs, _ = ask("hf4", "save", tmp_path, other)
    assert conversion.detect(tmp_path) == OTHERS[other]
    model, info = getattr(vit_torch, name).from_pretrained(tmp_path, output_loading_info=True)
    assert {key: value for key, value in info.items() if value} == {}
    check_same(model, inputs, theirs)


@pytest.mark.parametrize("version", PEERS)
def test_their_trainer_trains_ours(version, tmp_path):
    script = ROOT / "docs" / "examples" / "finetune_with_trainer.py"
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [PEERS[version], "-W", "ignore", script, "--output", tmp_path / "out", "--steps", "60"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    first, last = json.loads(done.stdout.splitlines()[-1])
    assert last < 0.7 * first
