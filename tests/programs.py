"""Programs that are traced once: the models, the images they meet, and the oracle's verdict on every one of them.

Grids of as many patches as the traced one are among the sizes: a table that was baked in fits them, and is wrong.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_core.reference import forward

FIELDS = {"patch_size": (3, 4), "image_size": (12, 20), "num_hidden_layers": 1}  # a grid of 4 x 5
NATIVE, OTHER = (12, 20), (15, 28)
SIZES = {
    "native": NATIVE,
    "as many patches, turned": (15, 16),
    "as many patches, wide": (6, 40),
    "as many patches, high": (30, 8),
    "other": OTHER,
    "no multiple": (13, 27),
    "small": (9, 12),
    "large": (30, 52),
}
# The table of DINOv2: 37 x 37, met by 16 x 16 and 8 x 32
REAL = {"patch_size": 14, "image_size": 518, "num_hidden_layers": 1, "hidden_size": 12, "intermediate_size": 20}
REAL_SIZES = {"square": (224, 224), "as many patches": (112, 448), "native": (518, 518), "odd": (70, 351)}
TOLERANCE = 1e-5  # of scale; measured 1.5e-6


def make_inputs(name: str, size: tuple[int, int], batch: int, patch: Any = FIELDS["patch_size"]) -> dict[str, Any]:
    """Images of that size, and noise for a masked autoencoder: few values, so that ties are settled too."""
    random = np.random.default_rng(zlib.crc32(f"{name} {size} {batch}".encode()))
    height, width = np.broadcast_to(patch, 2)
    patches = int((size[0] // height) * (size[1] // width))
    inputs = {"pixel_values": random.standard_normal((batch, 3, *size), np.float32)}
    if "MAE" in name:
        inputs["noise"] = random.integers(-2, 3, (batch, patches)).astype(np.float32)
    return inputs


def check_every_size(
    name: str, config: Any, tensors: Mapping[str, Any], run: Callable[[dict[str, Any]], Mapping[str, Any]], sizes: Any
) -> None:
    """Runs a program on images of every size and compares what comes out with the oracle in float64.

    Args:
        name: class of the model, as in PyTorch.
        config: of the model.
        tensors: its weights, by canonical name.
        run: inputs -> outputs by name, NumPy arrays both.
        sizes: (height, width) by what they are.
    """
    exact = {key: np.asarray(array, np.float64) for key, array in tensors.items()}
    for batch, (what, size) in enumerate(sizes.items(), start=1):
        inputs = make_inputs(name, size, 1 + batch % 3, config.patch_size)
        want = forward(name, config, exact, **inputs, interpolate_pos_encoding=True)
        got = run(inputs)
        compared = [key for key, value in want.items() if not isinstance(value, tuple)]
        assert sorted(got) == sorted(compared)
        for key in compared:
            scale = np.abs(want[key]).max()
            where = f"{name}, {key}, {what} {size} (scale {scale:.3g})"
            np.testing.assert_equal(np.shape(got[key]), np.shape(want[key]), where)
            np.testing.assert_allclose(got[key], want[key], rtol=0, atol=TOLERANCE * scale, err_msg=where)
