"""A dialect that explains few names is not the dialect: other programs' files, and files that hold more than a ViT."""

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write

import conversion
from conversion.detecting import detect
from conversion.dialects import targets
from vit_core import reference
from vit_core.config.relatives import OF_DINOV2_HEADS
from vit_core.errors import CheckpointError
from vit_core.files.containers import open_any
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces

CLASSIFIER = "ViTForImageClassification"


def save(path, tensors):
    write_pieces(path, serialised(tensors, lambda size: None, metadata={"format": "pt"}))
    return path


def canonical():
    return make_tensors(CLASSIFIER, make_config(CLASSIFIER))


def of_another_module(word):
    """Most of a classifier that somebody's own module holds under a name."""
    return {f"{word}.{name}": tensor for name, tensor in canonical().items() if "0.attention.output" not in name}


def renamed(outer, blocks, modules):
    """The tensors of a small model under another program's names."""
    names = [*outer, *(f"{blocks}.{i}.{module}.{end}" for i in range(4) for module in modules for end in ENDS)]
    return {name: np.ones((3, 3), np.float32) for name in names}


# Dialect that needs no config.json -> its head's weight and whether that is (inputs, classes); all widths are the same.
HEADS = {
    "timm": ("head.weight", False),
    "google": ("head/kernel", True),
    "torchvision": ("heads.head.weight", False),
}


@pytest.mark.parametrize("is_held", [False, True], ids=["file", "state_dict"])
@pytest.mark.parametrize("dialect", HEADS)
def test_a_head_of_double_width_is_one_on_class_token_and_mean(dialect, is_held, tmp_path):
    constants = {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh" if dialect == "google" else "gelu"}
    plain = make_config(CLASSIFIER, image_size=12, hidden_size=20, num_attention_heads=5, **constants)
    write(tmp_path / "plain", plain, make_tensors(CLASSIFIER, plain))
    suffix = "" if dialect == "timm" else targets()[dialect].suffix
    conversion.convert(tmp_path / "plain", path := tmp_path / f"other{suffix}", to=dialect)
    file = path / "model.safetensors" if dialect == "timm" else path
    tensors = {name: tensor.read() for name, tensor in open_any(file).tensors.items()}
    name, is_turned = HEADS[dialect]
    wide = np.random.default_rng(4).standard_normal((5, 40)).astype(np.float32)
    tensors[name] = np.ascontiguousarray(wide.T) if is_turned else wide
    given = {"num_attention_heads": 5}
    if is_held:
        loaded = conversion.load_pretrained(None, CLASSIFIER, given, tensors=tensors)
        config, found = loaded.config, loaded.tensors
    else:
        write_pieces(tmp_path / "alone.safetensors", serialised(tensors, lambda size: None, metadata=None))
        config, found, _ = conversion.load(tmp_path / "alone.safetensors", **given)
    assert config.family_options == OF_DINOV2_HEADS and config.num_labels == 5
    np.testing.assert_array_equal(found["classifier.weight"], wide)
    pixels = np.random.default_rng(5).standard_normal((2, 3, 12, 12))
    hidden = reference.forward("ViTModel", config, without_head(found), pixels)["last_hidden_state"]
    read = np.concatenate([hidden[:, 0], hidden[:, 1:].mean(1)], axis=1)
    logits = reference.forward(CLASSIFIER, config, found, pixels)["logits"]
    np.testing.assert_allclose(logits, read @ wide.T + found["classifier.bias"], rtol=0, atol=1e-10)


def without_head(tensors):
    return {name.removeprefix("vit."): tensor for name, tensor in tensors.items() if name.startswith("vit.")}


def test_a_head_of_double_width_that_the_configuration_does_not_have_is_told_of():
    config = make_config(CLASSIFIER)
    wide = make_tensors(CLASSIFIER, make_config(CLASSIFIER, **OF_DINOV2_HEADS))
    with pytest.raises(
        CheckpointError, match=r"classifier.weight \(5, 24\) instead of \(5, 12\) \(a head of class token"
    ):
        conversion.load_pretrained(None, CLASSIFIER, {"config": config}, tensors=wide)


ENDS = ("weight", "bias")
# Source: jeonsworld's ViT-pytorch and mmpretrain 1.2, module names of their VisionTransformer.
JEONSWORLD = renamed(
    [
        "transformer.embeddings.position_embeddings",
        "transformer.embeddings.cls_token",
        *(
            f"transformer.{module}.{end}"
            for module in ("embeddings.patch_embeddings", "encoder.encoder_norm")
            for end in ENDS
        ),
        *(f"head.{end}" for end in ENDS),
    ],
    "transformer.encoder.layer",
    [
        "attention_norm",
        "ffn_norm",
        "ffn.fc1",
        "ffn.fc2",
        *(f"attn.{name}" for name in ("query", "key", "value", "out")),
    ],
)
MMPRETRAIN = renamed(
    [
        "backbone.cls_token",
        "backbone.pos_embed",
        *(f"{module}.{end}" for module in ("backbone.patch_embed.projection", "backbone.ln1") for end in ENDS),
        *(f"head.layers.head.{end}" for end in ENDS),
    ],
    "backbone.layers",
    ["ln1", "ln2", "attn.qkv", "attn.proj", "ffn.layers.0.0", "ffn.layers.1"],
)
FOREIGN = {
    "a module's own name": (
        of_another_module("vit"),
        "Behind 'vit.' are names of 'hf', but of no whole model: vit.vit.",
    ),
    "another module's": (of_another_module("net.student"), "unknown are net.student"),
    "jeonsworld": (JEONSWORLD, "of 72 names, 'timm' explains 2, and no other dialect more; unknown are transformer."),
    "mmpretrain": (MMPRETRAIN, "of 56 names, no dialect explains any; unknown are backbone."),
    "nothing of a ViT": (
        {f"conv{i}.w": np.ones(3, np.float32) for i in range(9)},
        "of 9 names, no dialect explains any",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_names_of_no_dialect_are_said_to_be_of_none(case, tmp_path):
    tensors, match = FOREIGN[case]
    path = save(tmp_path / "model.safetensors", tensors)
    make_config(CLASSIFIER).save_pretrained(tmp_path)
    for read in (detect, conversion.load, lambda src: conversion.load_pretrained(src, CLASSIFIER, {})):
        for src in (path, tmp_path):
            with pytest.raises(CheckpointError) as caught:
                read(src)
            text = str(caught.value)
            assert text.startswith(f"{src}: not a known dialect: of ") and match in text and text.count("\n") < 3
            assert not any(word in text for word in ("strict=False", "class token", "axes"))


def test_a_vit_beside_many_other_tensors_is_one(tmp_path):
    others = {f"text.{i}.w": np.ones(3, np.float32) for i in range(300)}
    save(tmp_path / "model.safetensors", {**canonical(), **others})
    make_config(CLASSIFIER).save_pretrained(tmp_path)
    loaded = conversion.load_pretrained(tmp_path, CLASSIFIER, {"strict": False})
    assert loaded.missing == [] and len(loaded.info["unexpected_keys"]) == 300
    for name, tensor in canonical().items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor, err_msg=name)


def test_what_would_draw_most_of_a_model_is_not_recommended(tmp_path):
    tensors, config = canonical(), make_config(CLASSIFIER, hidden_size=24)
    save(tmp_path / "model.safetensors", tensors)
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="Most of the model would have to be drawn at random") as caught:
        conversion.load_pretrained(tmp_path, CLASSIFIER, {})
    assert "strict=False" not in str(caught.value)
    make_config(CLASSIFIER).save_pretrained(tmp_path)
    del tensors["vit.layernorm.bias"]
    (tmp_path / "model.safetensors").unlink()
    save(tmp_path / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match="strict=False all of these"):
        conversion.load_pretrained(tmp_path, CLASSIFIER, {})
