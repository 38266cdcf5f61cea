"""Checkpoints that transformers 4.57.6 and 5.23.0 wrote: every name of the class, and the same bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import conversion
from vit_core.parameters import MODEL_CLASSES, parameter_table

FOREIGN = Path(__file__).parents[1] / "golden" / "foreign"
ENTRIES = {
    entry["name"]: entry
    for entry in json.loads((FOREIGN / "manifest.json").read_text())["entries"]
    if entry["name"].startswith("hf") and any(name.endswith(".safetensors") for name in entry["checkpoint_files"])
}

# What 5.x calls it -> canonical; a second opinion on the table, for these files only.
SPELLINGS = {
    "decoder.decoder_encoder.layer.": "decoder.decoder_layers.",
    "vit.layers.": "vit.encoder.layer.",
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


def stored(folder):
    """canonical name -> array, as the safetensors library reads the files."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dict
                canonical = f"encoder.layer.{name.removeprefix('layers.')}" if name.startswith("layers.") else name
                for old, new in SPELLINGS.items():
                    canonical = canonical.replace(old, new)
                tensors[canonical] = file.get_tensor(name)
    return tensors


@pytest.mark.parametrize("name", ENTRIES)
def test_the_class_gets_exactly_its_parameters(name):
    target, expected = ENTRIES[name]["target"], stored(FOREIGN / name)
    options = {"add_pooling_layer": "pooler.dense.weight" in expected} if target == "ViTModel" else {}
    loaded = conversion.load_pretrained(FOREIGN / name, target, {"dtype": "auto", **options})
    assert [*loaded.tensors] == [*parameter_table(loaded.config, target, **loaded.options)]
    assert loaded.tensors.keys() == expected.keys()
    assert loaded.missing == [] and not any(loaded.info.values())
    for key, array in expected.items():
        assert loaded.tensors[key].dtype == array.dtype
        assert loaded.tensors[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("name", ENTRIES)
def test_a_checkpoint_knows_its_own_class(name):
    config, tensors, report = conversion.load(FOREIGN / name)
    assert report.model == ENTRIES[name]["target"] and report.dialect == conversion.detect(FOREIGN / name) == "hf"
    assert type(config) is MODEL_CLASSES[report.model]
    assert {key: array.tobytes() for key, array in tensors.items()} == {
        key: array.tobytes() for key, array in stored(FOREIGN / name).items()
    }


@pytest.mark.parametrize("name", ENTRIES)
def test_saved_again_it_is_the_same(name, tmp_path):
    config, tensors, report = conversion.load(FOREIGN / name)
    conversion.save_pretrained(tmp_path / "again", config, tensors, class_name=report.model)
    found, again, other = conversion.load(tmp_path / "again", verify=True)
    assert other.model == report.model and other.notes == ()
    found.dtype = config.dtype
    assert found == config
    for key, array in tensors.items():
        np.testing.assert_array_equal(again[key], array)
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    theirs = json.loads((FOREIGN / name / "config.json").read_text())
    assert written["architectures"] == theirs["architectures"]
    assert written["dtype"] == next(iter(tensors.values())).dtype.name
