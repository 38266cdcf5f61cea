"""8-bit integers in the dense layers of a model, by Keras."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

from keras.quantizers import AbsMaxQuantizer, Int8QuantizationConfig

from vit_tf import _keras


def quantise(model: Any, modules: Collection[str], int8: str) -> None:
    """Makes the kernels of some layers integers, one scale for each column.

    Args:
        model: changed in place; it can be saved as a `.keras` file after that.
        modules: canonical names.
        int8: "weights", or "dynamic", where every token that enters such a layer is quantised too.
    """
    entering = AbsMaxQuantizer(axis=-1) if int8 == "dynamic" else None
    config = Int8QuantizationConfig(weight_quantizer=AbsMaxQuantizer(axis=0), activation_quantizer=entering)
    prefix = f"{model.path}/"
    for layer in _keras.layers_of(model, itself=False):
        if layer.path and layer.path.removeprefix(prefix).replace("/", ".") in modules:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras' own, of how it hands arrays to NumPy
                layer.quantize("int8", config=config)
