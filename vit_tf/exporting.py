"""Models in forms that run without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from vit_core.image_processing import ViTImageProcessor
from vit_core.outputs import ModelOutput


class ExportedModel(keras.Model):
    """A model that can be written as a program."""

    built_for: tuple[int | None, ...]  # the shape of the images

    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        image_processor: ViTImageProcessor | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes the model in a form that runs without this package.

        Args:
            filepath: where to.
            format: a format of keras.Model.export, such as "tf_saved_model" or "onnx".
            verbose: whether Keras reports what it writes.
            input_signature: of the arguments of `call`, for other inputs than the images of the config's size, in any
                number, that are taken without it.
            image_processor: its rescaling and normalisation become a part of what is written, which then takes raw
                `images`: (batch, height, width, channels), uint8. Resizing is left to the caller.
            **kwargs: as for keras.Model.export.

        The written model returns a dict of tensors; those of a tuple are hidden_states_0, hidden_states_1 …
        """
        options = {"format": format, "verbose": verbose, **kwargs}
        if input_signature is not None:
            return super().export(filepath, input_signature=input_signature, **options)
        _, channels, height, width = self.built_for
        if image_processor is None:
            inputs = pixel_values = keras.Input(
                (channels, height, width), dtype=self.variable_dtype, name="pixel_values"
            )
        else:
            inputs = keras.Input((height, width, channels), dtype="uint8", name="images")
            pixel_values = _preprocessed(inputs, image_processor)
        outputs = _named_tensors(self(pixel_values, return_dict=True))
        return keras.Model(inputs, outputs).export(filepath, **options)


def _named_tensors(output: ModelOutput) -> dict[str, Any]:
    """The tensors of an output by name, those of a tuple with their places behind its name."""
    named: dict[str, Any] = {}
    for name, value in output.items():
        parts = value if isinstance(value, tuple) else ()
        named |= {f"{name}_{i}": part for i, part in enumerate(parts)} or {name: value}
    return named


def _preprocessed(images: Any, image_processor: ViTImageProcessor) -> Any:
    """Raw images (batch, height, width, channels) as pixel values (batch, channels, height, width).

    The processor is asked once, for all 256 numbers that a pixel can be: what comes out has its very bits.
    """
    channels = images.shape[3]
    numbers = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 1, channels))
    steps = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
    tables = image_processor.preprocess(numbers, return_tensors="np", **steps)["pixel_values"][0, ..., 0]
    places = ops.cast(images, "int32")
    return ops.stack([ops.take(tables[i], places[..., i]) for i in range(channels)], axis=1)
