"""Small checkpoints, written without any framework."""

import zlib

import numpy as np

from vit_core.files.saving import save_folder
from vit_core.parameters import MODEL_CLASSES, draw

SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 14,
    "image_size": (8, 12),
    "patch_size": 4,
}
FIELDS = {
    "ViTModel": {},
    "ViTForImageClassification": {"num_labels": 5},
    "ViTForMaskedImageModeling": {"encoder_stride": 4},
    "ViTMAEModel": {},
    "ViTMAEForPreTraining": {
        "decoder_hidden_size": 8,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 10,
    },
}


def make_config(cls, **fields):
    return MODEL_CLASSES[cls](**{**SIZES, **FIELDS[cls], **fields})


def make_tensors(cls, config, **options):
    """Every parameter random, norms and biases included."""
    random = np.random.default_rng(zlib.crc32(cls.encode()))
    drawn = draw(config, cls, seed=1, **options)
    return {name: (array + random.standard_normal(array.shape)).astype(np.float32) for name, array in drawn.items()}


def write(folder, config, tensors):
    """A folder as another program writes it: without a manifest."""
    save_folder(folder, files={"config.json": config.to_json_string()}, tensors=tensors)
    (folder / "manifest.json").unlink()
