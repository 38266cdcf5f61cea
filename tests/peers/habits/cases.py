"""What the habits share: one small model, its images, and `main`, which runs one function of a script by its name."""

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "USE_TF": "0", "USE_JAX": "0"}

import numpy as np
import torch

import vit_torch

LABELS = {0: "cat", 1: "dog", 2: "remote control"}
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "image_size": 16,
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
    "ViTForImageClassification": {"id2label": LABELS},
    "ViTForMaskedImageModeling": {"encoder_stride": 4},
    "ViTMAEForPreTraining": DECODER,
}
CLASSIFIER = "ViTForImageClassification"


def make_model(name: str = CLASSIFIER) -> torch.nn.Module:
    """A fresh model of ours, the same each time."""
    torch.manual_seed(0)
    cls = getattr(vit_torch, name)
    return cls(cls.config_class(**SIZES, **FIELDS[name]))


def make_processor() -> vit_torch.ViTImageProcessor:
    """The image processor of the model."""
    return vit_torch.ViTImageProcessor(size={"height": 16, "width": 16})


class Images(torch.utils.data.Dataset):
    """What a class is called with, item by item; images of a class have its brightness."""

    def __init__(self, name: str = CLASSIFIER, length: int = 32) -> None:
        self.name, self.length = name, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, object]:
        if index >= self.length:
            raise IndexError(index)
        random, label = np.random.default_rng(index), index % len(LABELS)
        item = {"pixel_values": (label - 1 + 0.5 * random.standard_normal((3, 16, 16))).astype(np.float32)}
        if self.name == CLASSIFIER:
            item["labels"] = label
        if self.name == "ViTForMaskedImageModeling":
            item["bool_masked_pos"] = (random.random(16) < 0.5).astype(np.int64)
        if self.name == "ViTMAEForPreTraining":
            item["noise"] = random.random(16, np.float32)
        return item


def batch(count: int = 4) -> dict[str, torch.Tensor]:
    """The first images with their labels."""
    return torch.utils.data.default_collate([Images()[index] for index in range(count)])


def picture(seed: int = 0) -> object:
    """A photograph, of noise."""
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def check_state(found: dict, expected: dict) -> None:
    """Two state dicts have the same names and values."""
    assert sorted(found) == sorted(expected), {*found} ^ {*expected}
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name].float().numpy(), tensor.float().numpy(), err_msg=name)


def main(script: dict) -> None:
    """Runs the function that the command line names, in the folder that it names; prints what it returns."""
    name, folder = sys.argv[1:]
    print(json.dumps(script[name](Path(folder))))
