"""Calls that every backend refuses, in the same words: shapes, dtypes, NaN, labels, masks, noise."""

from typing import Any

import numpy as np

from vit_core.config import ViTConfig, ViTMAEConfig

VIT, CLASSIFIER, MAE = "ViTModel", "ViTForImageClassification", "ViTMAEForPreTraining"
MIM = "ViTForMaskedImageModeling"
SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 8,
    "patch_size": 4,
}
DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}


def small_config(cls: str) -> ViTConfig | ViTMAEConfig:
    """The configuration of the model that is called."""
    return ViTMAEConfig(**SIZES, **DECODER) if "MAE" in cls else ViTConfig(**SIZES, num_labels=3)


IMAGES = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
Row = tuple[str, str, dict[str, Any], str]  # class, argument, inputs, what the refusal says
CALLS: list[Row] = [
    (VIT, "pixel_values", {"pixel_values": None}, "expected images, got None"),
    (VIT, "pixel_values", {"pixel_values": IMAGES[0]}, r"got \(3, 8, 8\)"),
    (VIT, "pixel_values", {"pixel_values": IMAGES[:, :2]}, r"expected \(batch, 3.*got \(2, 2, 8, 8\)"),
    (VIT, "pixel_values", {"pixel_values": IMAGES[..., :4]}, "8x8 pixels.*got 8x4"),
    (VIT, "pixel_values", {"pixel_values": (99 * IMAGES).astype(np.uint8)}, "floating point.*\n.*image processor"),
    (VIT, "pixel_values", {"pixel_values": IMAGES[..., :2], "interpolate_pos_encoding": True}, "at least one patch"),
    (VIT, "bool_masked_pos", {"bool_masked_pos": np.ones((2, 4))}, "no mask token"),
    (VIT, "head_mask", {"head_mask": np.ones((5, 2))}, r"\(layers, heads\) = \(2, 2\)"),
    (MIM, "bool_masked_pos", {"bool_masked_pos": np.ones((1, 4))}, r"\(2, 4\), got \(1, 4\)|encoder_stride"),
    (CLASSIFIER, "labels", {"labels": np.array([0])}, r"got \(1,\)"),
    (CLASSIFIER, "labels", {"labels": np.array([0.0, 1.0])}, r"\(2, 3\).*got \(2,\)|class indices"),
    (CLASSIFIER, "labels", {"labels": np.zeros((2, 5))}, r"\(2, 3\).*got \(2, 5\)"),
    (MAE, "noise", {"noise": np.zeros((1, 4))}, r"\(2, 4\), got \(1, 4\)"),
    (MAE, "noise", {"noise": np.zeros((2, 5))}, r"\(2, 4\), got \(2, 5\)"),
    (MAE, "mask_ratio", {"mask_ratio": 1.5}, "1.5"),
    (MAE, "mask_ratio", {"mask_ratio": -0.5}, "-0.5"),
    (MAE, "mask_ratio", {"mask_ratio": 0}, "0"),
    (MAE, "mask_ratio", {"mask_ratio": 0.99}, "0.99"),
    (MAE, "pixel_values", {"pixel_values": IMAGES[:, :, :4]}, "8x8 pixels.*got 4x8"),
]
# Only the values are wrong: compiled code does not look at them.
VALUES: list[Row] = [
    (VIT, "pixel_values", {"pixel_values": IMAGES * np.nan}, "384 of 384 NaN"),
    (VIT, "pixel_values", {"pixel_values": np.where(IMAGES > 3, IMAGES, np.inf)}, "NaN or infinite"),
    (VIT, "head_mask", {"head_mask": np.full((2, 2), np.nan)}, "NaN or infinite"),
    (CLASSIFIER, "labels", {"labels": np.array([0, 3])}, "0 to 2.*got 0 to 3"),
    (CLASSIFIER, "labels", {"labels": np.array([-1, 0])}, "0 to 2.*got -1 to 0"),
    (CLASSIFIER, "labels", {"labels": np.array([-100, -100])}, "every label is -100"),
    (MAE, "noise", {"noise": np.full((2, 4), np.nan)}, "8 of 8 NaN"),
]
