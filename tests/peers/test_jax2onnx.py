"""ONNX from a Flax model, by jax2onnx: through `vitriad export` with a certificate, and without vitriad's words.

Needs jax2onnx in an environment of its own: run by `make test-peers`, not by `make test`.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from flax_models import make_inputs, make_model
from programs import FIELDS

from vit_core.images.processor import ViTImageProcessor

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-jax2onnx" / "bin" / "python"
CELLS = [
    ("ViTForImageClassification", "logits"),
    ("ViTForImageClassification", "attentions"),
    ("ViTModel", "features"),
    ("ViTForMaskedImageModeling", "reconstruction"),
    ("ViTMAEModel", "features"),
    ("ViTMAEModel", "attentions"),
    ("ViTMAEForPreTraining", "reconstruction"),
]
SIZE = dict(zip(("height", "width"), FIELDS["image_size"], strict=True))
ANY_SIZE = """
from vitriad.programs import exporting
known = exporting.FORMATS["onnx"]
exporting.FORMATS["onnx"] = known._replace(one_size={})
from vitriad.cli import main
raise SystemExit(main())
"""
pytestmark = pytest.mark.peers


@pytest.mark.parametrize("name", ["FlaxViTModel", "FlaxViTForImageClassification", "FlaxViTForMaskedImageModeling"])
def test_jax2onnx_traces_the_model_itself_with_any_number_of_images(name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    images = make_inputs(name, batch=3)["pixel_values"]
    np.savez(tmp_path / "inputs.npz", pixel_values=images)
    command = [PYTHON, ROOT / "tests" / "peers" / "to_onnx.py", tmp_path, name]
    subprocess.run(command, check=True, capture_output=True, text=True)
    theirs = [*np.load(tmp_path / "peer.npz").values()]
    ours = [np.asarray(value) for value in model(images).values()]
    assert len(theirs) == len(ours)
    for value, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, value, rtol=0, atol=1e-5 * np.abs(value).max())


def export(tmp_path, cls, purpose, *options, program=("-m", "vitriad")):
    """A finished process of `vitriad export`, of a small model of a class."""
    square = {"patch_size": 4, "encoder_stride": 4} if cls == "ViTForMaskedImageModeling" else {}
    make_model(f"Flax{cls}", **{**FIELDS, **square}).save_pretrained(tmp_path / "model")
    words = ["export", tmp_path / "model", tmp_path / "program", "--to", "onnx", "--backend", "flax", "--json"]
    words = [PYTHON, *program, *words, "--outputs", purpose, *options]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_program_computes_what_its_model_does(cell, tmp_path):
    done = export(tmp_path, *cell)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["holds"] and len({row["images"] for row in found["rows"]}) == 3
    assert "jax2onnx" in json.loads((tmp_path / "program" / "vitriad.json").read_text())["versions"]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_every_program_prepares_images_as_the_processor_does(layout, tmp_path):
    processor = ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25], size=SIZE)
    processor.save_pretrained(tmp_path / "model")
    done = export(tmp_path, "ViTForImageClassification", "logits", "--with-preprocessing", layout)
    assert done.returncode == 0 and json.loads(done.stdout)["holds"], done.stderr


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_images_of_any_size_are_still_beyond_jax2onnx(cell, tmp_path):
    """Once this fails, `one_size` in vitriad/programs/exporting.py can go."""
    done = export(tmp_path, *cell, "--dynamic", "size", program=("-c", ANY_SIZE))
    assert done.returncode == 1 and "vitriad: error: onnx: " in done.stderr, done.stderr
    assert not (tmp_path / "program").exists()
