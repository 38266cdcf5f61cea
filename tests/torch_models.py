"""Small models for the tests of this backend: every parameter random, sizes odd."""

import zlib

import numpy as np
import torch

import vit_torch
from vit_core.parameters import draw

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "image_size": (12, 20),
    "patch_size": 4,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 20,
}
FIELDS = {
    "ViTModel": {},
    "ViTForImageClassification": {"num_labels": 5},
    "ViTForMaskedImageModeling": {"encoder_stride": 4},
    "ViTMAEModel": {},
    "ViTMAEForPreTraining": DECODER,
}
PATCHES = 15


def make_config(name: str, **fields):
    return getattr(vit_torch, name).config_class(**{**SIZES, **FIELDS[name], **fields})


def make_model(name: str, dtype: str = "float32", options: dict | None = None, **fields):
    config = make_config(name, **fields)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    tensors = {
        key: (array + 0.2 * random.standard_normal(array.shape)).astype(dtype)
        for key, array in draw(config, name, seed=1, **(options or {})).items()
    }
    return getattr(vit_torch, name).from_tensors(config, tensors, **(options or {}))


def make_inputs(name: str, batch: int = 2, height: int = 12, width: int = 20) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    inputs = {"pixel_values": torch.randn(batch, 3, height, width, generator=generator)}
    if "MAE" in name:
        inputs["noise"] = torch.rand(batch, (height // 4) * (width // 4), generator=generator)
    return inputs
