"""Writes tests/golden/relatives: small models of other types of transformers, as it saves them, and what they compute.

Run it with both versions, each in an environment of its own, from the root of the repository:

    python tests/golden/make_relatives.py

Every parameter is random. A folder holds config.json, model.safetensors (float32) and outputs.npz: pixel_values and the
outputs, computed in float64. The same versions write the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import torch
import transformers

FOLDER = Path(__file__).parent / "relatives"
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
PLAIN = {**SIZES, "intermediate_size": 14}
LABELS = {"id2label": {0: "tench", 1: "goldfish", 2: "shark"}}
Row = tuple[str, str, dict[str, object]]  # configuration, class, fields
MODELS: dict[str, dict[str, Row]] = {
    "4.57.6": {
        "dinov2": ("Dinov2Config", "Dinov2Model", {**SIZES, "mlp_ratio": 2, "qkv_bias": False}),
        "dinov2_classifier": ("Dinov2Config", "Dinov2ForImageClassification", {**SIZES, **LABELS, "mlp_ratio": 2}),
        "dinov2_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", {**SIZES, "mlp_ratio": 2}),
        "dinov2_swiglu": ("Dinov2Config", "Dinov2Model", {**SIZES, "mlp_ratio": 2, "use_swiglu_ffn": True}),
        "msn": ("ViTMSNConfig", "ViTMSNModel", PLAIN),
        "deit": ("DeiTConfig", "DeiTModel", PLAIN),
        "deit_teacher": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", {**PLAIN, **LABELS}),
        "deit_masked": ("DeiTConfig", "DeiTForMaskedImageModeling", {**PLAIN, "encoder_stride": 4}),
        "ijepa": ("IJepaConfig", "IJepaModel", PLAIN),
        "beit": ("BeitConfig", "BeitModel", PLAIN),
    },
    "5.24.0": {
        "dinov2_5": ("Dinov2Config", "Dinov2Model", {**SIZES, "mlp_ratio": 2}),
        "dinov2_registers_classifier_5": (
            "Dinov2WithRegistersConfig",
            "Dinov2WithRegistersForImageClassification",
            {**SIZES, **LABELS, "mlp_ratio": 2, "num_register_tokens": 3},
        ),
        "msn_classifier_5": ("ViTMSNConfig", "ViTMSNForImageClassification", {**PLAIN, **LABELS}),
        "deit_classifier_5": ("DeiTConfig", "DeiTForImageClassification", {**PLAIN, **LABELS}),
    },
}


def write(name: str, config: str, cls: str, fields: dict[str, object]) -> None:
    """One model: its parameters drawn, saved, and run."""
    random = np.random.default_rng(crc32(name.encode()))
    made = getattr(transformers, config)(**fields, attn_implementation="sdpa")  # which casts nothing to float32
    model = getattr(transformers, cls)(made).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            drawn = 0.3 * random.standard_normal(tuple(tensor.shape)) + 0.5 * (tensor.ndim == 1)
            tensor.copy_(torch.from_numpy(drawn.astype(np.float32)))
    model.save_pretrained(FOLDER / name)
    pixels = random.standard_normal((2, 3, 12, 12))
    with torch.no_grad():
        found = model.double()(pixel_values=torch.from_numpy(pixels))
    outputs = {key: value.numpy() for key, value in found.items() if torch.is_tensor(value)}
    np.savez(FOLDER / name / "outputs.npz", pixel_values=pixels, **outputs)


def main() -> None:
    """Writes what this version of transformers is for."""
    for name, (config, cls, fields) in MODELS[transformers.__version__].items():
        write(name, config, cls, fields)


if __name__ == "__main__":
    main()
