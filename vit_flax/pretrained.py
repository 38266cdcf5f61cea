"""What every model of this backend shares: its loading, saving, initialisation and pruning."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Unpack, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array

from conversion import Loaded
from conversion.keywords import LoadingInfo
from conversion.layouts import to_canonical
from conversion.model import PortableModel
from vit_core.config import PretrainedConfig, pair
from vit_core.errors import BackendError, CheckpointError, InputError
from vit_core.keywords import check_keywords
from vit_core.masking import check_seed
from vit_core.parameters import check_tensors
from vit_core.tensors import dtype_name, to_numpy
from vit_flax.activations import activation
from vit_flax.compiled import CompiledCalls
from vit_flax.intermediates import FlaxIntermediates
from vit_flax.keywords import FlaxLoading, FlaxSaving
from vit_flax.layers import at_least_float32
from vit_flax.weights import Params, checked_dtype, is_auto, laid_out, loading_dtype, path_of, prune

logger = logging.getLogger("vitriad")

Tensors = Mapping[str, Any]  # canonical name -> array in the canonical layout

OPTIONS = ("add_pooling_layer", "use_mask_token")  # of a module that has them


class FlaxViTPreTrainedModel(PortableModel, CompiledCalls, FlaxIntermediates):
    """Base of the five models: a pure module, and parameters for it.

    Args:
        config: of the class; the model keeps a copy.
        input_shape: (batch, height, width, channels) of the images that parameters are initialised with; None means one
            image of the config's size. No parameter depends on it.
        seed: of the fresh parameters, and of the masks of a masked autoencoder.
        dtype: of the computation; parameters are float32, or float64 for float64.
        _do_init: whether the model holds parameters; without them every call takes `params=`.
        params_dtype: of the parameters; None means float32, or float64 where that is the dtype of the computation.
        **kwargs: options of the module: add_pooling_layer, use_mask_token.

    Raises:
        InputError: another configuration class or option, or a dtype that JAX is not set up for.
    """

    framework: ClassVar[str] = "flax"
    _base_class: ClassVar[Any] = None  # of a model with a head: the class of the encoder inside it, and its options
    _base_options: ClassVar[Mapping[str, bool]] = {}
    __call__: Callable[..., Any]  # of each class

    def __init__(
        self,
        config: PretrainedConfig,
        input_shape: Sequence[int] | None = None,
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        *,
        params_dtype: Any = None,
        **kwargs: bool,
    ) -> None:
        self._settle(config)
        self.options = self._checked_options(kwargs)
        self.dtype = checked_dtype(type(self).__name__, "dtype", dtype)
        self.params_dtype = (
            at_least_float32(self.dtype)
            if params_dtype is None
            else checked_dtype(type(self).__name__, "params_dtype", params_dtype)
        )
        for name in ("hidden_act", "pooler_act"):
            activation(getattr(self.config, name, "linear"), self.dtype)  # refuses one with parameters of its own
        self.input_shape = tuple(input_shape or (1, *pair(config.image_size), config.num_channels))
        self.key = _first_key(check_seed("seed", seed))
        self._calls = 0  # of a masked autoencoder without noise: each has another mask
        self.checkpointing = bool(self.config.extra.get("gradient_checkpointing"))
        self._params: Params | None = self.init_weights(self.key, self.input_shape) if _do_init else None
        self._compiled: tuple[Any, Any] | None = None
        self._compiled_depths: dict[int, Any] = {}

    def _checked_options(self, options: Mapping[str, bool]) -> dict[str, bool]:
        known = [name for name in OPTIONS if hasattr(self.module_class, name)]
        if unknown := sorted(options.keys() - set(known)):
            expected = f" Options are {', '.join(known)}." if known else ""
            raise InputError(f"{type(self).__name__}: no option {unknown[0]!r}.{expected}")
        return dict(options)

    def __repr__(self) -> str:
        config = self.config
        held = self.params_dtype if self._params is None else jax.tree.leaves(self._params)[0].dtype
        sizes = f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
        images = f"images of {_by(config.image_size)} in patches of {_by(config.patch_size)}"
        return (
            f"{type(self).__name__}({sizes}; {images}; {self.num_parameters():,} parameters in {held.name}, "
            f"computed in {self.dtype.name})"
        )

    # --- loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_tensors(cls, config: PretrainedConfig, tensors: Tensors, **options: Any) -> Self:
        """A model with exactly these weights, copied.

        Args:
            config: a configuration of this class.
            tensors: canonical name -> array, all of one floating dtype, which becomes the computation's.
            **options: constructor options (add_pooling_layer, use_mask_token, seed, dtype).

        Raises:
            CheckpointError: a name is missing or unknown, or a shape is wrong.
        """
        dtype = next((array.dtype for array in tensors.values()), np.float32)
        name = dtype_name(dtype)
        model = cls(config, _do_init=False, **{"dtype": name, "params_dtype": name, **options})
        shapes = {name: array.shape for name, array in tensors.items()}
        check_tensors(cls.__name__, model.parameter_table(), shapes)
        model._params = laid_out(model.parameter_table(), {name: to_numpy(array) for name, array in tensors.items()})
        return model

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        dtype: Any = jnp.float32,
        *,
        params_dtype: Any = None,
        _do_init: Literal[True] = True,
        output_loading_info: Literal[True],
        **kwargs: Unpack[FlaxLoading],
    ) -> tuple[Self, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        dtype: Any = jnp.float32,
        *,
        params_dtype: Any = None,
        _do_init: Literal[True] = True,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[FlaxLoading],
    ) -> Self: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        dtype: Any = jnp.float32,
        *,
        params_dtype: Any = None,
        _do_init: Literal[False],
        output_loading_info: Literal[True],
        **kwargs: Unpack[FlaxLoading],
    ) -> tuple[Self, Params, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        dtype: Any = jnp.float32,
        *,
        params_dtype: Any = None,
        _do_init: Literal[False],
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[FlaxLoading],
    ) -> tuple[Self, Params]: ...
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        dtype: Any = jnp.float32,
        *,
        params_dtype: Any = None,
        _do_init: bool = True,
        output_loading_info: bool = False,
        **kwargs: Unpack[FlaxLoading],
    ) -> Any:
        """A model with the weights of a checkpoint.

        Example:
            model = FlaxViTForImageClassification.from_pretrained("my-vit", num_labels=10, ignore_mismatched_sizes=True)
            model, info = FlaxViTModel.from_pretrained("owner/name", params_dtype="auto", output_loading_info=True)

        Args:
            pretrained_model_name_or_path: folder, weight file of any dialect, or "owner/name" on the hub.
            dtype: of the computation. "auto" computes in the dtype of the parameters.
            params_dtype: of the parameters; "auto" keeps the one they are stored in. None means float32 (float64 where
                that is `dtype`), or with dtype="auto" the stored one.
            _do_init: False makes the result (model, params), and the model holds none.
            output_loading_info: True adds a last item to the result: info, which lists missing, unexpected and
                mismatched names.
            **kwargs: `vit_flax.keywords.FlaxLoading`:
                config: configuration object or path, in place of the checkpoint's;
                input_shape, seed: as for the constructor;
                torch_dtype: another name of dtype;
                strict: False initialises parameters that are missing or of another shape, and leaves out the rest;
                ignore_mismatched_sizes: True initialises parameters of another shape, such as a new classifier's;
                position_kernel: resampler of positions for another image size, see `vit_core.positions.KERNELS`;
                adapt: "channels", "patches" or both: num_channels or patch_size may be other than the file's;
                allow_nonfinite: True loads NaN and infinity;
                add_pooling_layer, use_mask_token: of a FlaxViTModel;
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

        Differs: transformers 4.x keeps parameters that are stored in bfloat16 or float16 as they are. Here they become
            float32 as in the other backends, with one warning, unless `params_dtype` says otherwise.
        """
        given: dict[str, Any] = {**kwargs}
        made: dict[str, Any] = {name: given.pop(name) for name in ("input_shape", "seed") if name in given}
        dtype = given.pop("torch_dtype", None) or dtype
        given["dtype"] = loading_dtype(cls.__name__, dtype, params_dtype)
        model, loaded = cls._load(pretrained_model_name_or_path, given, partial(cls._from_loaded, dtype=dtype, **made))
        read = loaded.config.dtype
        if params_dtype is None and loaded.stored_dtype in ("bfloat16", "float16") and read != loaded.stored_dtype:
            logger.warning(
                '%s from %s: parameters stored in %s become %s; params_dtype="auto" keeps them.',
                *(cls.__name__, pretrained_model_name_or_path, loaded.stored_dtype, read),
            )
        params = model.params
        if not _do_init:
            model._params = None
        result = [model, *([] if _do_init else [params]), *([loaded.info] if output_loading_info else [])]
        return tuple(result) if len(result) > 1 else model

    @classmethod
    def _from_loaded(cls, loaded: Loaded, *, dtype: Any, **settings: Any) -> Self:
        made: dict[str, Any] = {**settings, **loaded.options, "params_dtype": loaded.config.dtype}
        model = cls(loaded.config, dtype=loaded.config.dtype if is_auto(dtype) else dtype, _do_init=False, **made)
        params = laid_out(model.parameter_table(), loaded.tensors, loaded.release)
        model._params = model.init_weights(model.key, params=params)
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        params: Params | None = None,
        push_to_hub: Literal[False] = False,
        max_shard_size: int | str = "5GB",
        *,
        safe_serialization: Literal[True] = True,
        is_main_process: bool = True,
        variant: str | None = None,
        **kwargs: Unpack[FlaxSaving],
    ) -> None:
        """Writes config.json and model.safetensors, which every backend and transformers load.

        Args:
            save_directory: folder, made where missing; an older checkpoint in it is replaced as a whole.
            params: parameters to write instead of the model's; a FlaxViTModel's may lack the pooler.
            push_to_hub: must be False; there is a method for it.
            max_shard_size: largest weight file, as bytes or as text like "5GB".
            safe_serialization: must be True; nothing here writes pickles.
            is_main_process: False writes nothing: another process does.
            variant: infix of the file names, as in model.fp16.safetensors.
            **kwargs: `vit_flax.keywords.FlaxSaving`: saved_model, create_pr, save_peft_format, save_original_format,
                distributed_checkpoint and save_config pass where what they ask for is so anyway
                (`conversion.keywords.SAVING`).

        Raises:
            ConfigError: a callable activation cannot be saved.
            CheckpointError: the parameters do not fit the model, or the folder cannot be written.
            InputError: a keyword that means nothing here.
        """
        self._save(
            save_directory,
            {"push_to_hub": push_to_hub, "safe_serialization": safe_serialization, **kwargs},
            is_main_process,
            lambda: self.canonical_tensors(params),
            max_shard_size=max_shard_size,
            variant=variant,
        )

    def canonical_tensors(self, params: Params | None = None) -> dict[str, np.ndarray]:
        """Canonical name -> values in the canonical layout: what `from_tensors` of every backend takes.

        Raises:
            CheckpointError: `params` lack a parameter, other than all of a pooler that the class can do without.
        """
        tree = self.params if params is None else params
        leaves = flatten_dict(tree)
        rows = [*self.parameter_table().values()]
        if hasattr(self.module_class, "add_pooling_layer") and "pooler" not in tree:
            rows = [row for row in rows if row.part != "pooler"]
        if missing := [row.name for row in rows if path_of(row) not in leaves]:
            raise CheckpointError(f"{type(self).__name__}: the parameters lack {', '.join(missing[:10])}.")
        return {
            row.name: np.ascontiguousarray(to_canonical(to_numpy(leaves[path_of(row)]), row.kind, "flax"))
            for row in rows
        }

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets calls of a class refuse keywords in the words of all backends."""
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = _with_checked_keywords(vars(cls)["__call__"])  # type: ignore[method-assign]

    # --- calls -------------------------------------------------------------------------------------------------------

    # --- switches ----------------------------------------------------------------------------------------------------

    @property
    def base_model(self) -> Any:
        """The encoder: this model itself, or for one with a head a model of the same configuration and parameters."""
        if self._base_class is None:
            return self
        dtypes = {"dtype": self.dtype, "params_dtype": self.params_dtype}
        base = self._base_class(self.config, **dtypes, _do_init=False, **self._base_options)
        base.params = self.params[self.base_model_prefix]
        return base

    def get_input_embeddings(self) -> Params:
        """The parameters that turn pixels into patch embeddings."""
        return self.params.get(self.base_model_prefix, self.params)["embeddings"]["patch_embeddings"]

    def _sizes(self) -> Iterator[tuple[str, int, bool]]:
        return ((row.name, math.prod(row.shape), row.trainable) for row in self.parameter_table().values())

    def _prune(self, heads: Mapping[int, Sequence[int]]) -> None:
        config = self.config
        params = jax.tree.map(lambda leaf: leaf, self.params)  # new dicts around the same arrays
        encoder = params.get(self.base_model_prefix, params)["encoder"]
        for layer, gone in heads.items():
            left = [
                head for head in range(config.num_attention_heads) if head not in config.pruned_heads.get(layer, ())
            ]
            kept = [place for place, head in enumerate(left) if head not in gone]
            prune(encoder["layer"][str(layer)]["attention"], kept, config.hidden_size // config.num_attention_heads)
        self._params = params

    def gradient_checkpointing_enable(self) -> None:
        """Recomputes each layer in the backward pass instead of keeping its activations."""
        self.checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keeps activations for the backward pass again."""
        self.checkpointing = False

    enable_gradient_checkpointing = gradient_checkpointing_enable  # transformers' name in Flax

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self.checkpointing


def _by(size: Any) -> str:
    return " x ".join(map(str, pair(size)))


def _first_key(seed: int) -> Array:
    """The key of a seed, for which JAX looks for its devices.

    Raises:
        BackendError: it finds none of the platform that it is to use.
    """
    try:
        return jax.random.key(seed)
    except RuntimeError as problem:
        raise BackendError(f"backend='flax': JAX has no device to run on: {str(problem).partition(' (')[0]}") from None


def _with_checked_keywords(call: Any) -> Any:
    names = frozenset(inspect.signature(call).parameters)

    @wraps(call)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_keywords(type(self).__name__, kwargs, names)
        return call(self, *args, **kwargs)

    return checked
