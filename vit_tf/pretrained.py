"""What every model of this backend shares: its calls, loading, saving, initialisation and pruning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, Unpack, overload

import keras
import tensorflow as tf
from tensorflow import Tensor

from conversion import Loaded
from conversion.keywords import LoadingInfo
from conversion.model import PortableModel
from vit_core.config import PretrainedConfig, ViTConfig, ViTMAEConfig, pair
from vit_core.errors import InputError
from vit_core.inputs import Grid, images_given
from vit_core.masking import masking_of
from vit_core.parameters import Parameter, check_tensors, parameter_table
from vit_core.tensors import Array
from vit_tf import _keras, weights
from vit_tf.exporting import SAVED_MODEL, ExportedModel
from vit_tf.fitting import Recomputed, TrainedModel
from vit_tf.graphs import TENSORS, CompiledCalls, static
from vit_tf.inputs import CheckedInputs, plain
from vit_tf.intermediates import TFIntermediates
from vit_tf.keywords import TFLoading, TFSaving
from vit_tf.modules import NamedParts, build_parts, is_inner, setting, source
from vit_tf.serialising import SerialisedModel

Model = TypeVar("Model", bound="TFViTPreTrainedModel")

SERIALISABLE = keras.saving.register_keras_serializable(package="vitriad")

# Keras' words in the paths of weights -> the canonical ones.
WORDS = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


class TFViTPreTrainedModel(
    NamedParts,
    PortableModel,
    CheckedInputs,
    CompiledCalls,
    TrainedModel,
    Recomputed,
    ExportedModel,
    SerialisedModel,
    TFIntermediates,
):
    """Base of the five models. Subclasses make their layers inside `_building()`, then call `_initialise()`."""

    framework: ClassVar[str] = "tf"
    config_class: ClassVar[type[PretrainedConfig]] = ViTConfig

    def __init__(self, config: PretrainedConfig, *, options: Mapping[str, bool] | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # `_checked_images` casts what has to be cast
        self._settle(config)
        self.options = dict(options or {})
        self._built_for = (None, config.num_channels, *pair(config.image_size))  # what exports take

    # --- construction ------------------------------------------------------------------------------------------------

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Layers made in here take the model's dtypes; a model made in here leaves its weights to this one."""
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.dtype_policy)
        try:
            with setting(is_inner, True):
                yield
        finally:
            keras.config.set_dtype_policy(policy)

    def _inner(self, cls: type[Model], **options: bool) -> Model:
        """The base model of a class with a head; the two share one configuration."""
        given: dict[str, Any] = {"name": self.base_model_prefix, **options}
        model = cls(self.config, **given)
        model.config = self.config
        model._called_as = self._called_as
        return model

    def _initialise(self) -> None:
        """Makes every weight, each with its value, unless the model is a part of another one."""
        if self.config.extra.get("gradient_checkpointing"):
            self.gradient_checkpointing_enable()
        if not is_inner.get():
            with setting(source, partial(self._value_at, self.parameter_table(), weights.given.get() or {})):
                self.build(self._built_for)
            _keras.unlock(self)  # Keras lets nobody add layers to a built model: here subclasses may

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        build_parts(self)

    def _value_at(
        self, table: Mapping[str, Parameter], tensors: Mapping[str, weights.Ready], path: str, dtype: Any
    ) -> Any:
        """The value, in Keras' layout, that the weight at `path` starts with."""
        row = table[self._canonical_name(table, path)]
        return tensors[row.name]() if row.name in tensors else weights.fresh(row, self.config, dtype)

    def _canonical_name(self, table: Mapping[str, Parameter], path: str) -> str:
        """The canonical name of the weight at a path; a weight that is not in the table keeps Keras' words."""
        _, found, inside = f"/{path}".partition(f"/{self.path}/")
        *layers, word = (inside if found else path).split("/")
        as_keras, canonical = (".".join((*layers, name)) for name in (word, WORDS.get(word, word)))
        return canonical if canonical in table and as_keras not in table else as_keras

    def named_weights(self) -> dict[str, keras.Variable]:
        """Canonical name -> weight, in Keras' layout."""
        table = self.parameter_table()
        return {self._canonical_name(table, weight.path): weight for weight in self.weights}

    # --- loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_tensors(cls, config: PretrainedConfig, tensors: Mapping[str, Array | Tensor], **options: Any) -> Self:
        """A model with exactly these weights, copied.

        Args:
            config: a configuration of this class.
            tensors: canonical name -> array, all of one floating dtype, which becomes the model's.
            **options: constructor options (add_pooling_layer, use_mask_token, name, dtype).

        Raises:
            CheckpointError: a name is missing or unknown, or a shape is wrong.
        """
        dtype = keras.backend.standardize_dtype(next(iter(tensors.values())).dtype)
        shapes = {name: array.shape for name, array in tensors.items()}
        flags = {name: value for name, value in options.items() if name in ("add_pooling_layer", "use_mask_token")}
        table = parameter_table(config, cls, **flags)
        check_tensors(cls.__name__, table, shapes)
        with weights.laid_out(table, tensors):
            return cls(config, **{"dtype": dtype, **options})

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        output_loading_info: Literal[True],
        **kwargs: Unpack[TFLoading],
    ) -> tuple[Self, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[TFLoading],
    ) -> Self: ...
    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, output_loading_info: bool, **kwargs: Unpack[TFLoading]
    ) -> Self | tuple[Self, LoadingInfo]: ...
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        output_loading_info: bool = False,
        **kwargs: Unpack[TFLoading],
    ) -> Any:
        """A model with the weights of a checkpoint.

        Example:
            model = TFViTForImageClassification.from_pretrained("my-vit", num_labels=10, ignore_mismatched_sizes=True)
            model, info = TFViTModel.from_pretrained("owner/name", dtype="auto", output_loading_info=True)

        Args:
            pretrained_model_name_or_path: folder, weight file of any dialect, or "owner/name" on the hub.
            output_loading_info: True makes the result (model, info), which lists missing, unexpected and mismatched
                names.
            **kwargs: `vit_tf.keywords.TFLoading`:
                config: configuration object or path, in place of the checkpoint's;
                dtype (torch_dtype): a dtype or a policy of Keras, such as "mixed_bfloat16"; "auto" is what the
                    configuration says, else what is stored; unless given, the global policy holds;
                strict: False initialises parameters that are missing or of another shape, and leaves out the rest;
                ignore_mismatched_sizes: True initialises parameters of another shape, such as a new classifier's;
                position_kernel: resampler of positions for another image size, see `vit_core.positions.KERNELS`;
                adapt: "channels", "patches" or both: num_channels or patch_size may be other than the file's;
                allow_nonfinite: True loads NaN and infinity;
                add_pooling_layer, use_mask_token: of a TFViTModel;
                variant: infix of the file names, as in model.fp16.safetensors;
                weights: which of several sets in a file, such as "teacher" or "a.key";
                allow: what may be left out although outputs then differ, such as ["distillation"];
                mmap, verify, limits: how files are read, see `vit_core.files.folders.open_weights`;
                revision, subfolder, cache_dir, token, local_files_only, force_download, endpoint: of the hub, see
                    `vit_core.hub.download.Repository`;
                from_pt, from_tf, from_flax, use_safetensors, trust_remote_code: accepted where they say what is so;
                any field of the configuration, such as num_labels, id2label, image_size, attn_implementation.
                Other familiar keywords pass where they change nothing (`conversion.keywords.LOADING`).

        Raises:
            CheckpointError: the weights are missing, damaged or do not fit.
            ConfigError: the configuration, with its overrides, is invalid.
            InputError: a keyword that means nothing here.
        """
        given: dict[str, Any] = {**kwargs}
        policy = _policy(given)
        if policy is not None:
            given["dtype"] = policy.variable_dtype
        model, loaded = cls._load(pretrained_model_name_or_path, given, partial(cls._from_loaded, policy=policy))
        return (model, loaded.info) if output_loading_info else model

    @classmethod
    def _from_loaded(cls, loaded: Loaded, *, policy: Any) -> Self:
        table = parameter_table(loaded.config, cls, **loaded.options)
        with weights.laid_out(table, loaded.tensors, loaded.release):
            made: dict[str, Any] = {"dtype": policy or loaded.config.dtype, **loaded.options}
            return cls(loaded.config, **made)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        max_shard_size: int | str = "5GB",
        variant: str | None = None,
        is_main_process: bool = True,
        saved_model: bool = False,
        version: int | None = None,
        signatures: Any = None,
        **kwargs: Unpack[TFSaving],
    ) -> None:
        """Writes config.json and model.safetensors, which every backend and transformers load.

        Args:
            save_directory: folder, made where missing; an older checkpoint in it is replaced as a whole.
            max_shard_size: largest weight file, as bytes or as text like "5GB".
            variant: infix of the file names, as in model.fp16.safetensors.
            is_main_process: False writes nothing: another process does.
            saved_model: also write saved_model/`version`, as TensorFlow Serving takes it; other versions stay.
            version: its number, 1 unless given.
            signatures: functions that are served, by name, or the one; see `serving_function`, which gives the default.
            **kwargs: `vit_tf.keywords.TFSaving`: push_to_hub, safe_serialization, create_pr, save_peft_format,
                save_original_format, distributed_checkpoint and save_config pass where what they ask for is so anyway
                (`conversion.keywords.SAVING`).

        Raises:
            ConfigError: a callable activation cannot be saved.
            CheckpointError: the folder cannot be written.
            InputError: a keyword that means nothing here.
        """
        if not saved_model and (signatures, version) != (None, None):
            raise InputError(
                f"{type(self).__name__}.save_pretrained: version and signatures are those of a saved model; write "
                "saved_model=True."
            )
        old = Path(save_directory) / SAVED_MODEL
        write_version = partial(self._write_version, old=old, version=version or 1, signatures=signatures)
        self._save(
            save_directory,
            kwargs,
            is_main_process,
            self.canonical_tensors,
            max_shard_size=max_shard_size,
            variant=variant,
            folders={SAVED_MODEL: write_version} if saved_model else None,
        )

    def canonical_tensors(self) -> dict[str, Array]:
        """Canonical name -> values in the canonical layout: what `from_tensors` of every backend takes.

        What LoRA has added to a weight is a part of it.

        Raises:
            InputError: the weights are quantised.
        """
        if modes := {layer.quantization_mode for layer in _keras.layers_of(self)} - {None}:
            raise InputError(
                f"{type(self).__name__}: its weights are quantised ({', '.join(sorted(modes))}), checkpoints hold them "
                "in full precision.\nCall save_pretrained before quantize(), or write a .keras file: save(path)."
            )
        table, merged, added = self.parameter_table(), *_keras.lora(self)
        return {
            name: weights.canonical(merged.get(weight.path, weight.value), table.get(name))
            for name, weight in self.named_weights().items()
            if weight.path not in added
        }

    # --- calls -------------------------------------------------------------------------------------------------------

    @tf.autograph.experimental.do_not_convert
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model: arguments of `call`, by position, by name, or as a dict or list in the first place.

        A plain call runs as a compiled graph, kept from call to call; set `compiles_calls` to False to run it operation
        by operation.

        Raises:
            InputError: an argument does not fit the model.
        """
        inputs = self._bound(args, kwargs)
        if any(map(keras.utils.is_keras_tensor, inputs.values())):
            return super().__call__(**inputs)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = images_given(type(self).__name__, inputs["pixel_values"])
        if isinstance(self.config, ViTMAEConfig) and inputs.get("bool_masked_pos") is not None:
            mask, noise, ratio = (inputs.pop(name, None) for name in ("bool_masked_pos", "noise", "mask_ratio"))
            inputs["noise"], inputs["mask_ratio"] = masking_of(type(self).__name__, mask, noise, ratio)
        inputs = {
            name: self._as_tensor(name, value) if name in TENSORS else plain(value) for name, value in inputs.items()
        }
        if not isinstance(inputs.get("interpolate_pos_encoding"), Grid):  # else the model around this one has looked
            self._check_values(inputs)
        if self.compiles_calls and self._is_plain_call() and not any(map(tf.is_tensor, static(inputs).values())):
            return self._call_compiled(inputs)
        return super().__call__(**inputs)

    # --- properties and switches -------------------------------------------------------------------------------------

    def __dir__(self) -> list[str]:
        """Keras saves all layers that are listed here: those in `base_model` and `layers` have better names."""
        return [name for name in super().__dir__() if name not in ("base_model", "layers")]

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers, as keras.Model.summary does, with their shapes for images of the configuration's size."""
        with _keras.known_shapes(self, tf.TensorSpec(self._built_for, self.variable_dtype)):
            super().summary(*args, **kwargs)

    def get_input_embeddings(self) -> Any:
        """The layer that turns pixels into patch embeddings."""
        return self.base_model.embeddings.patch_embeddings

    def _sizes(self) -> Iterator[tuple[str, int, bool]]:
        named = self.named_weights().items()
        return ((name, math.prod(weight.shape), weight.trainable) for name, weight in named)

    def _parts(self) -> list[Any]:
        return _keras.layers_of(self)

    def _prune(self, heads: Mapping[int, Sequence[int]]) -> None:
        for layer, gone in heads.items():
            weights.prune(self.base_model.encoder.layer[layer].attention, gone)


class TFViTMAEPreTrainedModel(TFViTPreTrainedModel):
    """Base of the two masked autoencoders."""

    config_class: ClassVar[type[PretrainedConfig]] = ViTMAEConfig


def _policy(kwargs: dict[str, Any]) -> Any:
    """The policy of Keras that a load asks for, taken out of the keywords; None where a plain dtype does."""
    asked = kwargs.get("dtype", kwargs.get("torch_dtype"))
    if asked is None:
        return keras.config.dtype_policy()
    is_policy = isinstance(asked, keras.dtype_policies.DTypePolicy) or str(asked).startswith("mixed_")
    if is_policy:
        kwargs.pop("torch_dtype", None)
    return keras.dtype_policies.get(asked) if is_policy else None
