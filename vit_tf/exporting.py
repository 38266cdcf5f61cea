"""Models in forms that run without this package: SavedModels as TensorFlow Serving takes them, ONNX and others."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from vit_core.config import pair, patch_grid
from vit_core.errors import BackendError, InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.outputs import ModelOutput
from vit_core.programs import FILES, Pixels, Program, pixels_of, resample_of
from vit_tf.layers import grid_of

METHODS = {1: "lanczos3", 2: "bilinear", 3: "bicubic"}  # PIL's numbers of filters -> TensorFlow's names
SAVED_MODEL = "saved_model"  # the folder, with one inside per version, that TensorFlow Serving is pointed to


class ExportedModel(keras.Model):
    """A model that can be written as a program."""

    config: Any
    _built_for: tuple[int | None, ...]  # the shape of the images

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """What a served model takes: images of the configuration's size, in any number, by name."""
        return {"pixel_values": tf.TensorSpec(self._built_for, self.variable_dtype, name="pixel_values")}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two images of ones, to try the model on."""
        specs = self.input_signature.items()
        return {name: tf.ones([2 if side is None else side for side in spec.shape], spec.dtype) for name, spec in specs}

    def serving(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a served model returns for inputs by name."""
        return self.serving_output(self(**inputs, return_dict=True))

    def serving_output(self, output: ModelOutput) -> dict[str, Tensor]:
        """The tensors of an output by name; those of a tuple are hidden_states_0, hidden_states_1 …"""
        named: dict[str, Tensor] = {}
        for name, value in output.items():
            parts = value if isinstance(value, tuple) else ()
            named |= {f"{name}_{i}": part for i, part in enumerate(parts)} or {name: value}
        return named

    def serving_function(self, image_processor: ViTImageProcessor | None = None, images: str = "pixels") -> Any:
        """A compiled function from images to a dict of tensors, for the `signatures` of a SavedModel.

        Args:
            image_processor: its rescaling and normalisation become a part of it; without one it takes `pixel_values`.
            images: what it takes as `images`: "pixels" (batch, height, width, channels), uint8, already resized; or
                files (batch,): their "bytes", or these as "base64" (also the web's form), JPEG, PNG, GIF or BMP. Files
                are decoded and resized in TensorFlow, whose pixels are not quite Pillow's: see docs/guides/keras.md.

        Raises:
            InputError: the processor takes steps that a program of TensorFlow does not have here.
        """
        _, channels, height, width = self._built_for
        if image_processor is None:
            return tf.function(self.serving, input_signature=[self.input_signature], autograph=False)
        if images not in ("pixels", *FILES):
            raise InputError(f"images: expected one of pixels, {', '.join(FILES)}, got {images!r}.")
        is_file = images in FILES
        shape, dtype = ((None,), tf.string) if is_file else ((None, height, width, channels), tf.uint8)
        method = self._resize_method(image_processor) if is_file else None
        prepared = pixels_of(image_processor, self.config.num_channels, "nhwc")

        def serve(images_: Tensor) -> dict[str, Tensor]:
            pixels = _opened(images_, images == "base64", (height, width, channels), method) if is_file else images_
            return self.serving({"pixel_values": _pixel_values(pixels, prepared)})

        return tf.function(serve, input_signature=[tf.TensorSpec(shape, dtype, name="images")], autograph=False)

    def _resize_method(self, processor: ViTImageProcessor) -> str:
        """TensorFlow's name of what the processor resizes with.

        Raises:
            InputError: it does not resize to the model's size alone, with a filter that TensorFlow has.
        """
        _, channels, height, width = self._built_for
        size = (int(height or 0), int(width or 0))
        return METHODS[resample_of(type(self).__name__, processor, int(channels or 0), size)]

    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        image_processor: ViTImageProcessor | None = None,
        images: str = "pixels",
        **kwargs: Any,
    ) -> None:
        """Writes the model in a form that runs without this package.

        Args:
            filepath: where to.
            format: a format of keras.Model.export, such as "tf_saved_model" or "onnx".
            verbose: whether Keras reports what it writes.
            input_signature: of the arguments of `call`, for other inputs than the images of the config's size, in any
                number, that are taken without it.
            image_processor, images: see `serving_function`. With "pixels", resizing is left to the caller; image files
                are for SavedModels only.
            **kwargs: as for keras.Model.export.

        The written model returns a dict of tensors; those of a tuple are hidden_states_0, hidden_states_1 … A masked
        autoencoder takes `noise` as well in ONNX, which has no random numbers that TensorFlow's converter knows.

        Raises:
            InputError: an argument that means nothing here.
            BackendError: a format that needs a package which is not installed.
        """
        options = {"format": format, "verbose": verbose, **kwargs}
        _check_format(type(self).__name__, format, images, image_processor)
        if input_signature is not None:
            return super().export(filepath, input_signature=input_signature, **options)
        if images != "pixels":
            return self._write(filepath, self.serving_function(image_processor, images), bool(verbose))
        inputs, outputs = self._as_functional(image_processor, format == "onnx" and self._draws_noise())
        if format == "onnx":  # Keras asks a model for its signature only once it was called
            options["input_signature"] = [keras.tree.map_structure(_spec, inputs)]
        return keras.Model(inputs, outputs).export(filepath, **options)

    def _as_functional(self, image_processor: ViTImageProcessor | None, with_noise: bool) -> tuple[Any, dict[str, Any]]:
        """Inputs of Keras and the outputs for them."""
        _, channels, height, width = self._built_for
        if image_processor is None:
            pixel_values = keras.Input((channels, height, width), dtype=self.variable_dtype, name="pixel_values")
            first = pixel_values
        else:
            first = keras.Input((height, width, channels), dtype="uint8", name="images")
            pixel_values = _pixel_values(first, pixels_of(image_processor, self.config.num_channels, "nhwc"))
        if not with_noise:
            return first, self.serving_output(self(pixel_values, return_dict=True))
        rows, columns = patch_grid(self.config)
        noise = keras.Input((rows * columns,), dtype="float32", name="noise")
        outputs = self(pixel_values, noise=noise, return_dict=True)
        return {first.name: first, "noise": noise}, self.serving_output(outputs)

    def _draws_noise(self) -> bool:
        return "noise" in inspect.signature(self.call).parameters

    def _write_version(self, folder: Path, old: Path, version: int, signatures: Any) -> None:
        """Fills the folder of a served model: a new version, and the other ones of the old folder."""
        if old.is_dir():
            shutil.copytree(old, folder, ignore=lambda where, _: [str(version)] if Path(where) == old else [])
        self._write(folder / str(version), signatures or self.serving_function())

    def _write(self, path: str | Path, signatures: Any, verbose: bool = False) -> None:
        """Writes a SavedModel with these functions, by name; one function is the one that is served."""
        named = signatures if isinstance(signatures, Mapping) else {"serving_default": signatures}
        holder = tf.Module()
        traced = [each if hasattr(each, "captured_inputs") else each.get_concrete_function() for each in named.values()]
        used = [variable for function in traced for variable in function.variables]  # also the state of Keras' seed
        holder.variables_of_model = [*(variable.value for variable in self.variables), *used]
        if len(named) == 1:
            (holder.serve,) = named.values()
        tf.saved_model.save(holder, str(path), signatures=dict(named))
        if verbose:
            keras.utils.io_utils.print_msg(f"Saved artifact at '{path}'.")


def export_program(model: Any, file: Path, to: str, program: Program) -> None:
    """Writes a program of a model.

    Args:
        model: of the class `program.model`.
        file: to write, in a folder that holds the program alone.
        to: "savedmodel", "onnx" or "litert".
    """
    names = [each.name for each in program.inputs]

    def compute(*arrays: Tensor) -> dict[str, Tensor]:
        images, *beside = arrays
        if program.pixels is not None and program.pixels.opens_files:
            shape = (*program.example_size, program.config.num_channels)
            images = _opened(images, program.pixels.layout == "base64", shape, METHODS[program.pixels.resample])
        named = dict(zip(names[1:], beside, strict=True))
        pixel_values = _pixel_values(images, program.pixels)
        if program.model == "ViTMAEModel":  # sees every patch, so that no noise need be drawn in the program
            grid = grid_of(pixel_values, pair(program.config.patch_size))
            named["noise"] = ops.zeros((ops.shape(pixel_values)[0], grid.patches), pixel_values.dtype)
        output = model(pixel_values, **named, **program.options)
        found = program.selected(output, lambda patches: ops.mean(patches, axis=1))
        returned = [ops.cast(each, "float32") if each.dtype.is_floating else each for each in found]
        return dict(zip(program.outputs, returned, strict=True))

    signature = [
        tf.TensorSpec([side if isinstance(side, int) else None for side in each.shape], each.dtype, name=each.name)
        for each in program.inputs
    ]
    function = tf.function(compute, input_signature=signature, autograph=False)
    if to == "onnx":
        import tf2onnx  # brings onnx

        tf2onnx.convert.from_function(function, signature, opset=18, output_path=str(file))
    elif to == "litert":
        with tempfile.TemporaryDirectory() as scratch:
            model._write(scratch, function)
            converter = tf.lite.TFLiteConverter.from_saved_model(scratch)  # so that inputs and outputs keep their names
            if program.precision != "float32":  # "int8 dynamic" unless it is told to be another one
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if program.dtype == "float16":
                converter.target_spec.supported_types = [tf.float16]
            file.write_bytes(converter.convert())
    else:
        model._write(file.parent, function)


def _pixel_values(images: Tensor, pixels: Pixels | None) -> Tensor:
    """What the model takes, of the first input of a program: (batch, channels, height, width), floating."""
    if pixels is None:
        return images
    images = ops.cast(images, "int32")
    if pixels.layout != "nchw":  # as opened files are
        images = ops.transpose(images, (0, 3, 1, 2))
    return ops.stack([ops.take(row, images[:, i]) for i, row in enumerate(pixels.table)], axis=1)


def _check_format(model: str, format: str, images: str, image_processor: ViTImageProcessor | None) -> None:
    if format == "onnx" and find_spec("tf2onnx") is None:
        raise BackendError(f'{model}: export(format="onnx") needs tf2onnx.\nInstall it with: pip install tf2onnx onnx')
    if images != "pixels" and (format != "tf_saved_model" or image_processor is None):
        raise InputError(
            f'{model}: export: images={images!r} needs an image_processor, and the format "tf_saved_model", got '
            f"{format!r}."
        )


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)


def _opened(files: Tensor, is_base64: bool, shape: tuple[Any, ...], method: str | None) -> Tensor:
    """Image files (batch,) as pixels (batch, height, width, channels), uint8."""
    height, width, channels = shape

    def one(file: Tensor) -> Tensor:
        if is_base64:
            file = tf.strings.regex_replace(tf.strings.regex_replace(file, r"\+", "-"), "/", "_")  # the web's form
            file = tf.io.decode_base64(tf.strings.regex_replace(file, "[=\\s]", ""))
        image = tf.cond(
            tf.io.is_jpeg(file),
            lambda: tf.io.decode_jpeg(file, channels=channels, dct_method="INTEGER_ACCURATE"),  # as Pillow does
            lambda: tf.io.decode_image(file, channels=channels, expand_animations=False),
        )
        image = tf.image.resize(tf.ensure_shape(image, (None, None, channels)), (height, width), method, antialias=True)
        return tf.cast(tf.floor(tf.clip_by_value(image, 0.0, 255.0) + 0.5), tf.uint8)  # as PIL rounds

    return tf.map_fn(one, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
