"""A Flax model is what jax2onnx takes: `to_onnx(model, inputs=[...])` gives a program with the same outputs.

Needs jax2onnx in an environment of its own: run by `make test-peers`, not by `make test`.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from flax_models import make_inputs, make_model

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.peers


@pytest.mark.parametrize("name", ["FlaxViTModel", "FlaxViTForImageClassification", "FlaxViTForMaskedImageModeling"])
def test_jax2onnx_traces_the_model_itself_with_any_number_of_images(name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    images = make_inputs(name, batch=3)["pixel_values"]
    np.savez(tmp_path / "inputs.npz", pixel_values=images)
    command = [ROOT / ".venv-jax2onnx" / "bin" / "python", ROOT / "tests" / "peers" / "to_onnx.py", tmp_path, name]
    subprocess.run(command, check=True, capture_output=True, text=True)
    theirs = [*np.load(tmp_path / "peer.npz").values()]
    ours = [np.asarray(value) for value in model(images).values()]
    assert len(theirs) == len(ours)
    for value, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, value, rtol=0, atol=1e-5 * np.abs(value).max())
