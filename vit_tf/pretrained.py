"""What every model of this backend shares: its calls, loading, saving, initialisation and pruning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar, Unpack, overload

import keras
import tensorflow as tf
from tensorflow import Tensor

import conversion
from conversion.keywords import LoadingInfo, check_saving
from vit_core.config import PretrainedConfig, ViTMAEConfig, pair
from vit_core.errors import InputError
from vit_core.hub.upload import PushToHub
from vit_core.inputs import images_given, warn_unseen
from vit_core.parameters import BASE_CLASSES, Parameter, check_tensors, class_name, parameter_table, pruned_heads
from vit_core.tensors import Array
from vit_tf import _keras, weights
from vit_tf.exporting import SAVED_MODEL, ExportedModel
from vit_tf.graphs import TENSORS, CompiledCalls, static
from vit_tf.inputs import CheckedInputs, plain
from vit_tf.keywords import TFLoading, TFSaving
from vit_tf.layers import build_parts, setting, source
from vit_tf.serialising import SerialisedModel
from vit_tf.training import Recomputed, TrainedModel

Model = TypeVar("Model", bound="TFViTPreTrainedModel")

SERIALISABLE = keras.saving.register_keras_serializable(package="vitriad")

# Keras' words in the paths of weights -> the canonical ones.
WORDS = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


class Flags(NamedTuple):
    """The three output switches of a call, settled."""

    attentions: bool
    hidden_states: bool
    return_dict: bool

    def named(self) -> dict[str, bool]:
        """The first two by the names of arguments: Keras takes nothing but tensors by position."""
        return {"output_attentions": self.attentions, "output_hidden_states": self.hidden_states}

    def inner(self) -> dict[str, bool]:
        """The same for a model inside another one, which takes its outputs by name."""
        return {**self.named(), "return_dict": True}


_is_inner: ContextVar[bool] = ContextVar("is_inner", default=False)


class TFViTPreTrainedModel(
    PushToHub, CheckedInputs, CompiledCalls, TrainedModel, Recomputed, ExportedModel, SerialisedModel
):
    """Base of the five models. Subclasses make their layers inside `building()`, then call `initialise()`."""

    config_class: ClassVar[type[PretrainedConfig]]
    base_model_prefix: ClassVar[str] = "vit"
    main_input_name: ClassVar[str] = "pixel_values"
    framework: ClassVar[str] = "tf"

    def __init__(self, config: PretrainedConfig, *, options: Mapping[str, bool] | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # the door casts what has to be cast
        if not isinstance(config, self.config_class):
            raise InputError(
                f"{type(self).__name__}: expected a {self.config_class.__name__}, got {type(config).__name__}.\n"
                f"To load a checkpoint, use {type(self).__name__}.from_pretrained(...)."
            )
        config.validate()
        warn_unseen(pair(config.image_size), pair(config.patch_size))
        self.called_as = type(self).__name__  # in messages: of a model inside another one, the outer one
        self.config: Any = deepcopy(config)
        self.options = dict(options or {})  # add_pooling_layer and use_mask_token, where the class has them
        self.built_for = (None, config.num_channels, *pair(config.image_size))  # what exports take

    @classmethod
    def can_generate(cls) -> bool:
        """False: these models do not generate text."""
        return False

    # --- construction ------------------------------------------------------------------------------------------------

    @contextmanager
    def building(self) -> Iterator[None]:
        """Layers made in here take the model's dtypes; a model made in here leaves its weights to this one."""
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.dtype_policy)
        try:
            with setting(_is_inner, True):
                yield
        finally:
            keras.config.set_dtype_policy(policy)

    def inner(self, cls: type[Model], **options: bool) -> Model:
        """The base model of a class with a head; the two share one configuration."""
        given: dict[str, Any] = {"name": self.base_model_prefix, **options}
        model = cls(self.config, **given)
        model.config = self.config
        model.called_as = self.called_as
        return model

    def initialise(self) -> None:
        """Makes every weight, each with its value, unless the model is a part of another one."""
        if self.config.extra.get("gradient_checkpointing"):
            self.gradient_checkpointing_enable()
        if not _is_inner.get():
            with setting(source, partial(self._value_at, self.parameter_table(), weights.given.get() or {})):
                self.build(self.built_for)
            _keras.unlock(self)  # Keras lets nobody add layers to a built model: here subclasses may

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        build_parts(self)

    def parameter_table(self) -> dict[str, Parameter]:
        """Every parameter of this model: canonical name -> shape, kind, initialiser, trainability."""
        return parameter_table(self.config, type(self), **self.options)

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
        loaded = conversion.load_pretrained(pretrained_model_name_or_path, cls, given, wait=False)
        with weights.laid_out(parameter_table(loaded.config, cls, **loaded.options), loaded.tensors):
            made: dict[str, Any] = {"dtype": policy or loaded.config.dtype, **loaded.options}
            model = cls(loaded.config, **made)
        loaded.check()  # before anybody gets the model
        return (model, loaded.info) if output_loading_info else model

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
        call = f"{type(self).__name__}.save_pretrained"
        check_saving(call, kwargs)
        if not saved_model and (signatures, version) != (None, None):
            raise InputError(f"{call}: version and signatures are those of a saved model; write saved_model=True.")
        if not is_main_process:
            return
        old = Path(save_directory) / SAVED_MODEL
        write_version = partial(self.write_version, old=old, version=version or 1, signatures=signatures)
        conversion.save_pretrained(
            save_directory,
            self.config,
            self.canonical_tensors(),
            class_name=class_name(type(self)),
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
        inputs = self.bind(args, kwargs)
        if any(map(keras.utils.is_keras_tensor, inputs.values())):
            return super().__call__(**inputs)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = images_given(type(self).__name__, inputs["pixel_values"])
        inputs = {name: self.tensor(name, value) if name in TENSORS else plain(value) for name, value in inputs.items()}
        self.check_values(inputs)
        if self.compiles_calls and self.is_plain_call() and not any(map(tf.is_tensor, static(inputs).values())):
            return self.call_compiled(inputs)
        return super().__call__(**inputs)

    def flags(
        self, output_attentions: bool | None, output_hidden_states: bool | None, return_dict: bool | None
    ) -> Flags:
        """The output switches of a call, None meaning the configuration's value."""
        config = self.config
        return Flags(
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            config.use_return_dict if return_dict is None else return_dict,
        )

    # --- properties and switches -------------------------------------------------------------------------------------

    @property
    def base_model(self) -> Any:
        """The encoder: this model itself, or the one inside a model with a head."""
        return self if class_name(type(self)) in BASE_CLASSES else self.vit

    def __dir__(self) -> list[str]:
        """Keras saves all layers that are listed here: those in `base_model` and `layers` have better names."""
        return [name for name in super().__dir__() if name not in ("base_model", "layers")]

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers, as keras.Model.summary does, with their shapes for images of the configuration's size."""
        with _keras.known_shapes(self, tf.TensorSpec(self.built_for, self.variable_dtype)):
            super().summary(*args, **kwargs)

    def get_input_embeddings(self) -> Any:
        """The layer that turns pixels into patch embeddings."""
        return self.base_model.embeddings.patch_embeddings

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights hold.

        Args:
            only_trainable: leave out what gets no gradient.
            exclude_embeddings: leave out the patch projection, the tokens and the positions.
        """
        embeddings = {weight.path for weight in self.base_model.embeddings.weights} if exclude_embeddings else set()
        counted = [w for w in self.weights if w.path not in embeddings and (w.trainable or not only_trainable)]
        return sum(math.prod(weight.shape) for weight in counted)

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Chooses "sdpa" or "eager" attention for every layer.

        Raises:
            ConfigError: another name.
        """
        self.config.attn_implementation = attn_implementation
        for layer in _keras.layers_of(self):
            if hasattr(layer, "implementation"):
                layer.implementation = attn_implementation

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Removes attention heads from the encoder.

        Args:
            heads_to_prune: layer, from the end where negative -> heads, numbered as in the unpruned model. Heads that
                are gone are passed over.

        Raises:
            ConfigError: no such layer or head, or none would be left in a layer. Nothing is pruned then.
        """
        new, every = pruned_heads(self.config, heads_to_prune)
        for layer, heads in new.items():
            weights.prune(self.base_model.encoder.layer[layer].attention, heads)
        self.config.pruned_heads = every


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
