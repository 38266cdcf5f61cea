"""The models that `vitriad parity` runs: of sizes that cannot be mixed up, all parameters random; or the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from conversion.loading import plan
from vit_core.config import PretrainedConfig, ViTConfig, ViTMAEConfig, pair, patch_grid
from vit_core.masking import noise
from vit_core.parameters import MODEL_CLASSES, Parameter, has_pooler, parameter_table
from vit_core.reference import forward
from vit_core.tensors import Array
from vitriad.models import find
from vitriad.viewing import prepared

STEP = 1e-30  # of a complex step: far below rounding, far above underflow
_MOST = 12  # tensors of a large model whose gradients are compared
_LARGE = 1_000_000  # parameters

# Odd configurations: no two sizes agree, images are not square, patches neither.
_SIZES: dict[str, dict[str, Any]] = {
    "plain": {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 22, "num_hidden_layers": 2},
    "wide heads": {"hidden_size": 20, "num_attention_heads": 2, "intermediate_size": 14, "hidden_act": "gelu_new"},
}
_SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"image_size": (6, 12), "patch_size": (2, 3), "num_channels": 2},
    "wide heads": {
        "image_size": (15, 9),
        "patch_size": 3,
        "num_channels": 3,
        "layer_norm_eps": 1e-5,
        "qkv_bias": False,
        "num_hidden_layers": 4,
    },
}
_DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 2,
    "decoder_intermediate_size": 26,
    "mask_ratio": 0.5,
    "norm_pix_loss": True,
}
_SPREAD = {"heads_bias": 0.3, "bias": 0.3, "norm_scale": 0.25, "norm_shift": 0.3, "token": 0.6, "positions": 0.6}


@dataclass(frozen=True, eq=False)
class Case:
    """One model and one call of it.

    Attributes:
        name: of the case; everything random comes from it.
        cls: canonical class name.
        config: of the model.
        tensors: canonical name -> float64 array, exact in float32.
        options: constructor options.
        inputs: arguments of the call, arrays of NumPy.
    """

    name: str
    cls: str
    config: PretrainedConfig
    tensors: dict[str, Array]
    options: dict[str, bool] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)

    def expected(self, tensors: Mapping[str, Array] | None = None) -> dict[str, Any]:
        """What the oracle computes."""
        pooled = {name: value for name, value in self.options.items() if name == "add_pooling_layer"}
        given: dict[str, Any] = {**self.inputs, **pooled}
        return forward(self.cls, self.config, tensors or self.tensors, **given)

    def weights(self, expected: Mapping[str, Any]) -> dict[str, Array]:
        """Of the outputs whose weighted sum is differentiated: the loss, where there is one."""
        if "loss" in expected:
            return {"loss": np.ones(())}
        main = [name for name in ("last_hidden_state", "pooler_output", "logits", "reconstruction") if name in expected]
        return {name: _random(self.name, "weights", name).standard_normal(expected[name].shape) for name in main}

    def directions(self) -> dict[str, Array]:
        """A random direction for every trainable parameter, for some of them in a large model."""
        rows = [row for row in parameter_table(self.config, self.cls, **self.options).values() if row.trainable]
        if sum(tensor.size for tensor in self.tensors.values()) > _LARGE:
            rows = rows[:: max(1, len(rows) // _MOST)]
        return {row.name: _random(self.name, "direction", row.name).standard_normal(row.shape) for row in rows}

    def derivatives(self, weights: Mapping[str, Array]) -> dict[str, float]:
        """<gradient, direction> of the weighted sum, by one complex step each."""
        found = {}
        for name, way in self.directions().items():
            outputs = self.expected({**self.tensors, name: self.tensors[name] + 1j * STEP * way})
            number = sum((weight * outputs[output]).sum() for output, weight in weights.items())
            found[name] = float(number.imag / STEP)
        return found


def sweep() -> list[Case]:
    """Random models of all five classes in odd configurations."""
    return [
        build(f"{cls}, {feature}", cls, _config(cls, {**_SIZES[feature], **_SHAPES[feature]}))
        for cls in MODEL_CLASSES
        for feature in _SIZES
    ]


def every_patch() -> list[Case]:
    """Encoders of masked autoencoders that see all patches, as exported programs do."""
    cls = "ViTMAEModel"
    made = [_config(cls, {**_SIZES[feature], **_SHAPES[feature]}) for feature in _SIZES]
    for config in made:
        config.mask_ratio = 0.0
    return [build(f"{cls}, every patch, {name}", cls, config) for name, config in zip(_SIZES, made, strict=True)]


def preset(name: str) -> list[Case]:
    """A random model of a published size."""
    is_mae = name.startswith("vit-mae")
    config = (ViTMAEConfig if is_mae else ViTConfig).preset(name)
    return [build(name, "ViTMAEForPreTraining" if is_mae else "ViTForImageClassification", config, batch=1)]


def checkpoint(
    name_or_path: str, images: Sequence[str] = (), processor: str | None = None, **options: Any
) -> list[Case]:
    """The model of a checkpoint, as it is, on image files and folders in one batch; else on two images of noise."""
    _, config, cls, fitted = plan(find(name_or_path), **options)
    tensors = {name: np.asarray(tensor.read(), np.float64) for name, tensor in fitted.tensors.items()}
    extra = {
        "add_pooling_layer": has_pooler(config, tensors),
        "use_mask_token": "embeddings.mask_token" in tensors,
    }
    pixels = prepared(images, name_or_path, config, processor) if images else None
    return [build(str(name_or_path), cls, config, tensors, extra if cls == "ViTModel" else {}, 2, pixels)]


def build(
    name: str,
    cls: str,
    config: PretrainedConfig,
    tensors: dict[str, Array] | None = None,
    options: dict[str, bool] | None = None,
    batch: int = 3,
    pixels: Array | None = None,
) -> Case:
    """A case with random inputs unless there are `pixels`, and random weights unless there are some."""
    table = parameter_table(config, cls, **(options or {}))
    random, (rows, columns) = _random(name, "inputs"), patch_grid(config)
    if pixels is None:
        pixels = random.standard_normal((batch, config.num_channels, *pair(config.image_size))).astype("f4")
    inputs, batch = {"pixel_values": pixels}, len(pixels)
    if cls.startswith("ViTMAE"):
        inputs["noise"] = noise(0, batch, rows * columns)
    if cls == "ViTForMaskedImageModeling" and pair(config.patch_size) == (config.encoder_stride,) * 2:
        inputs["bool_masked_pos"] = random.random((batch, rows * columns)) < 0.4
    if cls == "ViTForImageClassification" and config.num_labels > 1:
        inputs["labels"] = random.integers(0, config.num_labels, batch)
    return Case(
        name, cls, config, tensors or {key: _filled(name, row) for key, row in table.items()}, options or {}, inputs
    )


def _config(cls: str, fields: Mapping[str, Any]) -> PretrainedConfig:
    if cls.startswith("ViTMAE"):
        return MODEL_CLASSES[cls].from_dict({**fields, **_DECODER})
    square = {"patch_size": 3, "image_size": (9, 12), "encoder_stride": 3} if "Masked" in cls else {}
    labels = {"id2label": {i: f"LABEL_{i}" for i in range(5)}} if "Class" in cls else {}
    return MODEL_CLASSES[cls].from_dict({**fields, **square, **labels})


def _random(*words: str) -> np.random.Generator:
    return np.random.default_rng(crc32(" ".join(words).encode()))


def _filled(name: str, row: Parameter) -> Array:
    normal = _random(name, row.name).standard_normal(row.shape)
    if len(row.shape) in (2, 4):
        numbers = 1.3 * normal / np.sqrt(np.prod(row.shape[1:]))
    else:
        numbers = (row.kind == "norm_scale") + _SPREAD.get(row.kind, 0.3) * normal
    filled: Array = numbers.astype(np.float32).astype(np.float64)
    return filled
