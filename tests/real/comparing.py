"""How far a model is from reference values, and the one call that all of these tests make."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

import conversion
from vit_core.reference import forward
from vit_core.tensors import Array
from vitriad.auto import model_class
from vitriad.backends import BACKENDS

# How far a hidden state or the final norm may be off. `largest` is the largest difference as a share of the largest
# value, `typical` the root mean square of the differences as a share of that of the values, `cosine` one minus the
# cosine of the class token after the final norm. Behind each rung: the worst of three backends on six photographs.
# Against the oracle, onnxruntime itself is off by 2.8e-6 (largest).
RUNGS = {
    "float32": {"largest": 1e-5, "typical": 5e-6, "cosine": 2e-12},  # 4.1e-6, 2.2e-6, 9.3e-13
    "bfloat16": {"largest": 1e-1, "typical": 3e-2, "cosine": 2e-4},  # 4.8e-2, 2.3e-2, 9.6e-5
    "float16": {"largest": 1.7e-2, "typical": 5e-3, "cosine": 6.5e-6},  # 8.5e-3, 2.9e-3, 3.2e-6
}

TENSORS = {"torch": "pt", "tf": "tf", "flax": "jax"}  # what image processors call them


def load(source: Any, backend: str, dtype: str = "float32", **options: Any) -> Any:
    """The encoder, without a pooler."""
    cls = model_class("ViTModel", backend)
    return cls.from_pretrained(source, add_pooling_layer=False, dtype=dtype, **options)


def states(model: Any, backend: str, images: Array) -> list[Array]:
    """Every hidden state, embeddings first, then the final norm."""
    outputs = import_module(f"{BACKENDS[backend].package}.parity").outputs
    found = outputs(model, {"pixel_values": images, "interpolate_pos_encoding": True})
    return [np.asarray(state, np.float64) for state in (*found["hidden_states"], found["last_hidden_state"])]


def oracle(source: Any, images: Array) -> list[Array]:
    """The same by the float64 oracle, from the weights as `conversion` loads them."""
    config, tensors, _ = conversion.load(source, cls="ViTModel", add_pooling_layer=False)
    found = forward("ViTModel", config, tensors, images, interpolate_pos_encoding=True, add_pooling_layer=False)
    return [*found["hidden_states"], found["last_hidden_state"]]


def errors(got: Sequence[Array], expected: Sequence[Array]) -> dict[str, float]:
    """The worst of all states, by every measure of `RUNGS`."""
    largest, typical = [], []
    for state, reference in zip(got, expected, strict=True):
        difference = np.asarray(state, np.float64) - reference
        largest.append(np.abs(difference).max() / np.abs(reference).max())
        typical.append(np.sqrt(np.square(difference).mean() / np.square(reference, dtype=np.float64).mean()))
    one, two = (np.asarray(states[-1][:, 0], np.float64) for states in (got, expected))
    cosines = (one * two).sum(-1) / np.sqrt(np.square(one).sum(-1) * np.square(two).sum(-1))
    return {"largest": float(max(largest)), "typical": float(max(typical)), "cosine": float(1 - cosines.min())}


def check(got: Sequence[Array], expected: Sequence[Array], rung: float = RUNGS["float32"]["largest"]) -> None:
    """Holds every state to the reference, and names the first that departs."""
    for i, (state, reference) in enumerate(zip(got, expected, strict=True)):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(state, reference, rtol=0, atol=rung * scale, err_msg=f"state {i}")
