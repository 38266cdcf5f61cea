"""What the examples of accelerate and Lightning train: a small model, images of stripes, and a recipe; NumPy alone."""

from __future__ import annotations

import numpy as np

from vit_core import ViTConfig
from vit_core.training import Draws, Optimisation, Schedule, soft_targets

LABELS = ["horizontal", "vertical", "diagonal"]
STEPS, BATCH = 40, 16
RECIPE = Optimisation(layer_decay=0.75, clip=1.0)
SCHEDULE = Schedule(rate=2e-3, steps=STEPS, warmup=4)
CONFIG = ViTConfig(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    image_size=32,
    patch_size=8,
    id2label=dict(enumerate(LABELS)),
)


def stripes(number: int) -> tuple[np.ndarray, np.ndarray]:
    """One image of noisy stripes, (3, 32, 32), and its smoothed target, (3,): the same for every number."""
    draws, label = np.random.default_rng(number), Draws(0, "label", number).below(len(LABELS))
    row, column = np.mgrid[:32, :32]
    wave = np.sin((row, column, row + column)[label] * draws.uniform(0.6, 1.2) + draws.uniform(0, 6))
    pixels = 0.6 * wave + draws.normal(0, 0.15, (3, 32, 32))
    return pixels.astype(np.float32), soft_targets(np.array([label]), len(LABELS), smoothing=0.1)[0]


IMAGES = [stripes(number) for number in range(STEPS * BATCH)]
