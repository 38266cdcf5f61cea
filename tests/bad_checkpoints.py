"""Checkpoints of the family that are not sound, and what each way to read one says of them."""

import json
from pathlib import Path

import numpy as np
from checkpoints import make_config, make_tensors

import conversion
from vit_core.files.containers import open_any
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces

CLASSIFIER = "ViTForImageClassification"
REGISTERS, GATED, SCALED = {"num_register_tokens": 2}, {"use_swiglu_ffn": True}, {"layerscale_value": 0.5}
# Program, configuration; tensors of other shapes (None: without it) and words of config.json, in place of those it has;
# what the message says.
BAD = {
    "registers of another count": (
        "hf",
        REGISTERS,
        {},
        {"num_register_tokens": 3},
        r"\(1, 2, 12\) instead of \(1, 3, 12\)",
    ),
    "timm's of another count": ("timm", REGISTERS, {}, {"reg_tokens": 3}, r"\(1, 2, 12\) instead of \(1, 3, 12\)"),
    "registers that are not said": ("hf", REGISTERS, {}, {"num_register_tokens": 0}, "1 unexpected: .*register_tokens"),
    "registers that are not there": ("hf", SCALED, {}, {"num_register_tokens": 1}, "1 missing: .*register_tokens"),
    "registers of one axis": (
        "timm",
        REGISTERS,
        {"reg_token": (12,)},
        {},
        r"register_tokens: expected 3 axes, its shape is \(12,\)",
    ),
    "a register that is a number": ("timm", REGISTERS, {"reg_token": ()}, {}, "register_tokens: expected 3 axes"),
    "positions of no grid": (
        *("hf", REGISTERS, {"vit.embeddings.position_embeddings": (1, 9, 12)}, {}),
        r"position_embeddings \(1, 9, 12\) instead of \(1, 7, 12\) \(config.json says 2 x 3 patches",
    ),
    "timm's of no square": (
        "timm",
        REGISTERS,
        {"pos_embed": (1, 14, 12)},
        {},
        "14 positions make no square.\nPass image_size",
    ),
    "scales that are folded in part": (
        "timm",
        SCALED,
        {"blocks.1.ls1.gamma": None},
        {},
        "LayerScale of 3 branches, expected 4 or none",
    ),
    "two scales of a branch": (
        "timm",
        SCALED,
        {"blocks.0.gamma_1": (12,)},
        {},
        "two names for the same parameter: .*ls1.gamma",
    ),
    "a scale that is lost": (
        "hf",
        SCALED,
        {"vit.encoder.layer.1.layer_scale1.lambda1": None},
        {},
        "1 missing: .*layer_scale1.lambda1",
    ),
    "a gated MLP of an odd width": (
        "hf",
        GATED,
        {},
        {"intermediate_size": 15},
        "intermediate_size: expected an even number .*, got 15",
    ),
    "timm's of an odd width": (
        "timm",
        GATED,
        {"blocks.0.mlp.fc1.weight": (15, 12)},
        {},
        "an MLP 15 wide, of which 7 are read: expected all, or half",
    ),
    "half of a gated MLP": (
        "timm",
        GATED,
        {"blocks.0.mlp.fc2.weight": (12, 6)},
        {},
        "an MLP 14 wide, of which 6 are read",
    ),
    "a later layer without its gate": (
        "timm",
        GATED,
        {"blocks.1.mlp.fc1.weight": (7, 12)},
        {},
        r"\(7, 12\) instead of \(14, 12\)",
    ),
    "no channels": ("hf", REGISTERS, {}, {"num_channels": 0}, "num_channels: expected an int from 1 .*, got 0"),
    "a projection of no channels": (
        "timm",
        {},
        {"patch_embed.proj.weight": (12, 0, 4, 4)},
        {},
        "num_channels: expected an int from 1",
    ),
    "patches without pixels": (
        "timm",
        {},
        {"patch_embed.proj.weight": (12, 3, 0, 0)},
        {},
        "projection.weight: expected patches of pixels, got 0 x 0",
    ),
    "patches larger than images": (
        "hf",
        REGISTERS,
        {},
        {"patch_size": 99},
        "patch_size: expected a height of at most image_size 8, got 99",
    ),
    "timm's larger than images": (
        "timm",
        REGISTERS,
        {},
        {"img_size": 2},
        "patch_size: expected a height of at most image_size 2, got 4",
    ),
    "images without pixels": ("timm", {}, {}, {"img_size": 0}, "image_size: expected an int or .*, got 0"),
    "images of a word": ("timm", {}, {}, {"img_size": "large"}, "img_size: expected an int or .*, got 'large'"),
    "images of three sides": (
        "timm",
        {},
        {},
        {"img_size": [12, 12, 12]},
        r"img_size: expected an int or .*, got \[12, 12, 12\]",
    ),
    "an activation in a list": ("timm", {}, {}, {"act_layer": ["gelu"]}, "hidden_act: expected"),
    "a norm that is no flag": ("timm", {}, {}, {"fc_norm": "x"}, "fc_norm: expected true or false, got 'x'"),
    **{
        f"{field} {value}": ("hf", REGISTERS, {}, {field: value}, f"{field}: expected an int from .*, got {value}")
        for field in ("num_register_tokens", "num_hidden_layers", "num_attention_heads", "num_channels")
        for value in (-1, True, 1.5)
    },
    **{
        f"{argument} {value}": (
            "timm",
            REGISTERS,
            {},
            {argument: value},
            f"{field}: expected an int from .*, got {value}",
        )
        for argument, field in (("reg_tokens", "num_register_tokens"), ("num_heads", "num_attention_heads"))
        for value in (-1, True, 1.5)
    },
}


def write_bad(case: str, tmp_path: Path) -> Path:
    """The folder of a case, as its program writes it."""
    program, fields, shapes, words, _ = BAD[case]
    sides = {"image_size": 12} if program == "timm" else {}
    config = make_config(CLASSIFIER, layer_norm_eps=1e-6, **{**fields, **sides})
    conversion.save_pretrained(tmp_path / "hf", config, make_tensors(CLASSIFIER, config), class_name=CLASSIFIER)
    folder = tmp_path / program
    if program == "timm":
        options = {"layerscale_value": fields["layerscale_value"]} if fields == SCALED else {}
        conversion.convert(tmp_path / "hf", folder, to="timm", **options)
    tensors = {name: tensor.read() for name, tensor in open_any(folder / "model.safetensors").tensors.items()}
    for name, shape in shapes.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.ones(shape, np.float32)
    for name in ("model.safetensors", "manifest.json"):
        (folder / name).unlink()
    write_pieces(folder / "model.safetensors", serialised(tensors, lambda size: None))
    said = json.loads((folder / "config.json").read_text())
    place = said["model_args"] if program == "timm" else said
    place.update(words)
    (folder / "config.json").write_text(json.dumps(said))
    return folder
