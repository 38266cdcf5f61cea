"""Positions of images that are no squares, in files of other programs: the grid is the file's, or is asked for.

A grid of n by n + 2 patches has, with its class token, as many positions as a square of n + 1 has patches.
"""

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write

import conversion
from conversion.dialects import targets
from vit_core.errors import CheckpointError

TARGETS = targets()

CLS, TABLE = "ViTForImageClassification", "vit.embeddings.position_embeddings"
SIZE = (12, 20)  # 3 x 5 patches, 16 positions
HEADS = {"num_attention_heads": 5}


def checkpoint(folder, activation="gelu"):
    config = make_config(CLS, image_size=SIZE, layer_norm_eps=1e-6, hidden_size=20, hidden_act=activation, **HEADS)
    tensors = make_tensors(CLS, config)
    write(folder, config, tensors)
    return tensors


@pytest.mark.parametrize("to", [name for name, target in TARGETS.items() if target.file is not None])
def test_a_folder_says_its_grid(tmp_path, to):
    tensors = checkpoint(tmp_path / "ours")
    conversion.convert(tmp_path / "ours", tmp_path / "theirs", to=to)
    config, found, report = conversion.load(tmp_path / "theirs")
    assert config.image_size == list(SIZE) or config.image_size == SIZE
    np.testing.assert_array_equal(found[TABLE], tensors[TABLE])
    assert not [note for note in report.notes if "resized" in note]


@pytest.mark.parametrize("to", [name for name, target in TARGETS.items() if target.file is not None])
def test_a_folder_is_resized_from_its_grid(tmp_path, to):
    checkpoint(tmp_path / "ours")
    conversion.convert(tmp_path / "ours", tmp_path / "theirs", to=to)
    ours, theirs = (conversion.load(tmp_path / name, image_size=24)[1] for name in ("ours", "theirs"))
    assert ours[TABLE].shape == (1, 37, 20)
    np.testing.assert_array_equal(theirs[TABLE], ours[TABLE])


def test_a_file_that_says_none_is_not_taken_for_a_square(tmp_path):
    tensors = checkpoint(tmp_path / "ours")
    file = tmp_path / "theirs.safetensors"
    conversion.convert(tmp_path / "ours", file, to="torchvision")
    with pytest.raises(CheckpointError, match=r"16 positions make no square.\nPass image_size="):
        conversion.load(file, **HEADS)
    found = conversion.load(file, image_size=SIZE, **HEADS)[1]
    np.testing.assert_array_equal(found[TABLE], tensors[TABLE])
