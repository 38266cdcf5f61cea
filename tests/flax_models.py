"""Small models for the tests of this backend: every parameter random, sizes odd."""

import zlib

import numpy as np

import vit_flax
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
    "FlaxViTModel": {},
    "FlaxViTForImageClassification": {"num_labels": 5},
    "FlaxViTForMaskedImageModeling": {"encoder_stride": 4},
    "FlaxViTMAEModel": {},
    "FlaxViTMAEForPreTraining": DECODER,
}
PATCHES = 15


def make_config(name: str, **fields):
    return getattr(vit_flax, name).config_class(**{**SIZES, **FIELDS[name], **fields})


def make_tensors(name: str, dtype: str = "float32", options: dict | None = None, **fields) -> dict[str, np.ndarray]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return {
        key: (array + 0.2 * random.standard_normal(array.shape)).astype(dtype)
        for key, array in draw(make_config(name, **fields), name, seed=1, **(options or {})).items()
    }


def make_model(name: str, dtype: str = "float32", options: dict | None = None, **fields):
    tensors = make_tensors(name, dtype, options, **fields)
    return getattr(vit_flax, name).from_tensors(make_config(name, **fields), tensors, **(options or {}))


def make_inputs(name: str, batch: int = 2, height: int = 12, width: int = 20) -> dict[str, np.ndarray]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    inputs = {"pixel_values": random.standard_normal((batch, 3, height, width), np.float32)}
    if "MAE" in name:
        inputs["noise"] = random.random((batch, (height // 4) * (width // 4)), np.float32)
    return inputs
