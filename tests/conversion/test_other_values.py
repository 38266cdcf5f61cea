"""Something else than a tensor under the name of a parameter: an error that names it, never a parameter drawn anew."""

import numpy as np
import pytest
from checkpoints import make_config, make_tensors
from weight_files import torch_tree

import conversion
from vit_core.errors import CheckpointError

CLS = "ViTForImageClassification"
CONFIG = make_config(CLS, num_labels=5)
TENSORS = make_tensors(CLS, CONFIG)
VALUES = {
    "text": ("cut", r"got str 'cut'"),
    "long text": ("x" * 1000, r"got str \("),
    "nothing": (None, r"got None"),
    "number": (7, r"got int 7"),
    "float": (0.5, r"got float 0\.5"),
    "truth": (True, r"got bool True"),
    "list": ([1.0, 2.0], r"got dict|got list"),
    "tuple": ((1, 2), r"got tuple"),
    "empty dictionary": ({}, r"got dict"),
    "tensor in a dictionary": ({"data": np.ones(5, np.float32)}, r"got dict"),
}
PLACES = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {"epoch": 3, "state_dict": tensors},
    "prefix": lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
}


@pytest.fixture
def folder(tmp_path):
    CONFIG.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"strict": False}, {"ignore_mismatched_sizes": True}])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", VALUES)
def test_it_is_an_error_that_names_it(folder, kind, place, options):
    value, said = VALUES[kind]
    path = torch_tree(folder / "pytorch_model.bin", PLACES[place]({**TENSORS, "classifier.bias": value}))
    for src in (folder, path):
        with pytest.raises(CheckpointError, match=rf"classifier\.bias: expected a tensor, {said}") as caught:
            conversion.load_pretrained(src, CLS, options)
        assert str(path) in str(caught.value) and str(caught.value).count("\n") < 3


def test_of_several_the_first_is_named_and_all_are_counted(folder):
    wrong = {"vit.embeddings.cls_token": None, "vit.layernorm.weight": 1}
    torch_tree(folder / "x.pth", {**TENSORS, **wrong})
    with pytest.raises(CheckpointError, match=r"vit\.embeddings\.cls_token: .* got None \(2 such parameters\)"):
        conversion.load(folder)


@pytest.mark.parametrize("dialect", ["timm", "mae"])
def test_in_the_names_of_another_program(tmp_path, dialect):
    """Queries, keys and values in one tensor are three parameters, under one name."""
    names = {"cls_token": (1, 1, 12), "pos_embed": (1, 10, 12), "patch_embed.proj.weight": (12, 3, 4, 4)}
    names |= {f"blocks.0.{name}": (12,) for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")}
    names |= {"decoder_pos_embed": (1, 10, 8), "mask_token": (1, 1, 8)} if dialect == "mae" else {"norm.weight": (12,)}
    tensors = {name: np.ones(shape, np.float32) for name, shape in names.items()}
    torch_tree(tmp_path / "x.pth", {"model": {**tensors, "blocks.0.attn.qkv.weight": "gone"}})
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.qkv\.weight: .* 'gone' \(1 such parameter\)"):
        conversion.load(tmp_path / "x.pth")


def test_what_means_nothing_is_still_passed_over(folder):
    torch_tree(folder / "x.pth", {**TENSORS, "epoch": 3, "args": {"lr": 0.1}, "note": None})
    _, found, report = conversion.load(folder)
    np.testing.assert_array_equal(found["classifier.bias"], TENSORS["classifier.bias"])
    assert found.keys() == TENSORS.keys() and not report.notes
