"""What every model of this backend shares: its door, calls, loading, saving, initialisation and pruning."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial, wraps
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Unpack, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

import conversion
from conversion.keywords import LoadingInfo, check_saving
from conversion.layouts import canonical_axes, from_canonical, to_canonical
from vit_core.config import PretrainedConfig, pair
from vit_core.errors import BackendError, CheckpointError, InputError
from vit_core.hub.upload import PushToHub
from vit_core.inputs import (
    check_class_indices,
    check_head_mask,
    check_keywords,
    check_labels,
    check_numbers,
    check_per_patch,
    check_pixel_values,
    check_values,
    images_given,
    is_checked,
    no_numbers,
    warn_unseen,
)
from vit_core.masking import check_seed
from vit_core.parameters import Parameter, check_tensors, class_name, parameter_table, pruned_heads
from vit_core.tensors import dtype_name, to_numpy
from vit_flax.activations import activation
from vit_flax.keywords import FlaxLoading, FlaxSaving
from vit_flax.layers import grid_of, initialiser, is_known, seen, wide

logger = logging.getLogger("vitriad")

Params = Mapping[str, Any]  # a nested dict of arrays, in transformers' Flax tree
Tensors = Mapping[str, Any]  # canonical name -> array in the canonical layout

# Linen's words for parameters, by kind; the others keep their names.
WORDS = {**dict.fromkeys(("linear", "heads_in", "heads_out", "conv"), "kernel"), "norm_scale": "scale"}
OPTIONS = ("add_pooling_layer", "use_mask_token")  # of a module that has them
THREADS = 2  # that bring tensors into Flax' layout: memory is what they wait for


class FlaxViTPreTrainedModule(nn.Module):
    """Base of the five modules.

    Args:
        config: of the model; what changes in it counts from the next trace on.
        dtype: of the computation; parameters are float32 or wider.
        checkpointing: whether the backward pass computes each layer anew.
    """

    config: Any
    dtype: Any = jnp.float32
    checkpointing: bool = False
    model: ClassVar[str]  # name of the model class, for messages

    @property
    def called_as(self) -> str:
        """What messages call the model: a module inside another one has the outer one's name."""
        outer = self.parent
        return outer.model if isinstance(outer, FlaxViTPreTrainedModule) else self.model

    # --- the door of __call__: static facts only, so that it holds under every transformation ------------------------

    @nn.nowrap
    def door(self, pixel_values: Array | None, interpolate: bool | None) -> tuple[Array, tuple[Any, Any]]:
        """The images as (batch, channels, height, width) in the module's dtype, and their patch grid (rows, columns).

        Raises:
            InputError: no images, or they do not fit the model.
        """
        if pixel_values is None:
            raise InputError(f"{self.called_as}: pixel_values: expected images, got None.")
        pixel_values = jnp.asarray(pixel_values)
        is_float = jnp.issubdtype(pixel_values.dtype, jnp.floating)
        channels_last = check_pixel_values(
            self.called_as, self.config, seen(*pixel_values.shape), is_float=is_float, interpolate=bool(interpolate)
        )
        if channels_last:
            pixel_values = pixel_values.transpose(0, 3, 1, 2)
        size, patch = pixel_values.shape[2:], pair(self.config.patch_size)
        if all(map(is_known, size)):
            warn_unseen(size, patch)
        elif not interpolate:
            raise InputError(
                f"{self.called_as}: pixel_values: height and width are not known while tracing.\n"
                "Pass interpolate_pos_encoding=True, or trace with images of the configuration's size."
            )
        return pixel_values.astype(self.dtype), grid_of(pixel_values, patch)

    @nn.nowrap
    def masked_door(
        self, bool_masked_pos: Array | None, batch: Any, grid: tuple[Any, Any], has_mask_token: bool
    ) -> Array | None:
        """bool_masked_pos, checked: (batch, patches).

        Raises:
            InputError: another shape, or the model has no mask token.
        """
        if bool_masked_pos is None:
            return None
        if not has_mask_token:
            raise InputError(
                f"{self.called_as}: bool_masked_pos: this model has no mask token; build it with use_mask_token=True."
            )
        patches = grid[0] * grid[1]
        check_per_patch(self.called_as, "bool_masked_pos", seen(*bool_masked_pos.shape), *seen(batch, patches))
        return bool_masked_pos.reshape(batch, patches)  # what is not known while tracing has to be the same symbol

    @nn.nowrap
    def head_mask_door(self, head_mask: Array | None) -> Array | None:
        """head_mask as (layers, batch or 1, heads, tokens or 1, tokens or 1) in the module's dtype.

        Raises:
            InputError: another shape.
        """
        if head_mask is None:
            return None
        check_head_mask(self.called_as, self.config, head_mask.shape)
        heads, layers = self.config.num_attention_heads, self.config.num_hidden_layers
        if head_mask.ndim < 5:
            head_mask = jnp.broadcast_to(head_mask.reshape(-1, heads), (layers, heads))[:, None, :, None, None]
        layers, batch, _, rows, columns = head_mask.shape
        return jnp.broadcast_to(head_mask.astype(self.dtype), (layers, batch, heads, rows, columns))


class FlaxViTPreTrainedModel(PushToHub):
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

    config_class: ClassVar[type[PretrainedConfig]]
    module_class: ClassVar[type[FlaxViTPreTrainedModule]]
    base_model_prefix: ClassVar[str] = "vit"
    main_input_name: ClassVar[str] = "pixel_values"
    framework: ClassVar[str] = "flax"
    base_class: ClassVar[Any] = None  # of a model with a head: the class of the encoder inside it, and its options
    base_options: ClassVar[Mapping[str, bool]] = {}
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
        if not isinstance(config, self.config_class):
            raise InputError(
                f"{type(self).__name__}: expected a {self.config_class.__name__}, got {type(config).__name__}.\n"
                f"To load a checkpoint, use {type(self).__name__}.from_pretrained(...)."
            )
        config.validate()
        warn_unseen(pair(config.image_size), pair(config.patch_size))
        self.config: Any = deepcopy(config)
        self.options = self._checked_options(kwargs)
        self.dtype = _checked_dtype(type(self).__name__, "dtype", dtype)
        self.params_dtype = (
            wide(self.dtype)
            if params_dtype is None
            else _checked_dtype(type(self).__name__, "params_dtype", params_dtype)
        )
        for name in ("hidden_act", "pooler_act"):
            activation(getattr(self.config, name, "linear"), self.dtype)  # refuses one with parameters of its own
        self.input_shape = tuple(input_shape or (1, *pair(config.image_size), config.num_channels))
        self.key = _first_key(check_seed("seed", seed))
        self.calls = 0  # of a masked autoencoder without noise: each has another mask
        self.checkpointing = bool(self.config.extra.get("gradient_checkpointing"))
        self._params: Params | None = self.init_weights(self.key, self.input_shape) if _do_init else None
        self._compiled: tuple[Any, Any] | None = None

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

    @classmethod
    def can_generate(cls) -> bool:
        """False: these models do not generate text."""
        return False

    @property
    def module(self) -> FlaxViTPreTrainedModule:
        """The pure module: `model.module.apply({"params": params}, …)` is what calls compile."""
        options: dict[str, Any] = self.options
        return self.module_class(self.config, self.dtype, self.checkpointing, **options)

    # --- parameters --------------------------------------------------------------------------------------------------

    @property
    def params(self) -> Params:
        """The parameters: a nested dict in transformers' Flax tree.

        Raises:
            InputError: there are none, or what is assigned does not fit the model.
        """
        if self._params is None:
            raise InputError(
                f"{type(self).__name__}: made with _do_init=False, so it holds no parameters.\nMake some with "
                "init_weights(key, input_shape), or pass params= to the call."
            )
        return self._params

    @params.setter
    def params(self, params: Params) -> None:
        check_params(type(self).__name__, self.params_shape_tree, params)
        self._params = params

    @property
    def params_shape_tree(self) -> Params:
        """Shape and dtype of every parameter, computed without making one."""
        rows = self.parameter_table().values()
        return self._tree({row.name: jax.ShapeDtypeStruct(_shape(row), self.params_dtype) for row in rows})

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The path of every parameter."""
        return set(flatten_dict(self.params_shape_tree))

    def init_weights(
        self, rng: Array, input_shape: Sequence[int] | None = None, params: Params | None = None
    ) -> Params:
        """Fresh parameters, each from its own key: what is made does not depend on what is kept.

        Args:
            rng: a key, typed or not.
            input_shape: (batch, height, width, channels) of images that have to fit; None means the model's.
            params: parameters that are kept as they are; only those missing in them are made.

        Raises:
            InputError: no key, or images that do not fit.
        """
        model, shape = type(self).__name__, tuple(input_shape or self.input_shape)
        check_pixel_values(model, self.config, shape, is_float=True, interpolate=False)
        keys = jax.random.split(_checked_key(model, "rng", rng), len(self.parameter_table()))
        kept = {} if params is None else flatten_dict(params)
        made = {
            _path(row): initialiser(row.init, self.config)(key, _shape(row), self.params_dtype)
            for row, key in zip(self.parameter_table().values(), keys, strict=True)
            if _path(row) not in kept
        }
        return unflatten_dict({**kept, **made})

    def parameter_table(self) -> dict[str, Parameter]:
        """Every parameter of this model: canonical name -> shape, kind, initialiser, trainability."""
        return parameter_table(self.config, type(self), **self.options)

    def _tree(self, leaves: Mapping[str, Any]) -> Params:
        """Canonical name -> leaf, as a tree."""
        table = self.parameter_table()
        return unflatten_dict({_path(table[name]): leaf for name, leaf in leaves.items()})

    def to_bf16(self, params: Params, mask: Any = None) -> Params:
        """The floating parameters in bfloat16; with a tree `mask` of bools only those that are True in it."""
        return _cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Params:
        """The floating parameters in float16; with a tree `mask` of bools only those that are True in it."""
        return _cast(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Params:
        """The floating parameters in float32; with a tree `mask` of bools only those that are True in it."""
        return _cast(params, jnp.float32, mask)

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
        model._params = model._placed({name: to_numpy(array) for name, array in tensors.items()})
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
        given["dtype"] = _loading_dtype(cls.__name__, dtype, params_dtype)
        loaded = conversion.load_pretrained(pretrained_model_name_or_path, cls, given, wait=False)
        read = loaded.config.dtype
        made |= loaded.options
        model = cls(
            loaded.config,
            dtype=read if _is_auto(dtype) else dtype,
            params_dtype=read,
            _do_init=False,
            **made,
        )
        params = model.init_weights(model.key, params=model._placed(loaded.tensors))
        loaded.check()  # before anybody gets the model
        if params_dtype is None and loaded.stored_dtype in ("bfloat16", "float16") and read != loaded.stored_dtype:
            logger.warning(
                '%s from %s: parameters stored in %s become %s; params_dtype="auto" keeps them.',
                *(cls.__name__, pretrained_model_name_or_path, loaded.stored_dtype, read),
            )
        if _do_init:
            model._params = params
        result = [model, *([] if _do_init else [params]), *([loaded.info] if output_loading_info else [])]
        return tuple(result) if len(result) > 1 else model

    def _placed(self, tensors: Mapping[str, np.ndarray]) -> Params:
        """Arrays on the default device, in Flax' layout, each copied once. XLA on a CPU takes over laid-out memory."""
        table = self.parameter_table()
        kinds = [table[name].kind for name in tensors]
        with ThreadPoolExecutor(THREADS) as pool:  # which do not see JAX's settings: they hold for this thread
            laid_out = pool.map(partial(from_canonical, convention="flax"), tensors.values(), kinds)
            leaves = {
                name: jnp.array(array, copy=True) if array is tensors[name] else jax.device_put(array)
                for name, array in zip(tensors, laid_out, strict=True)
            }
        return self._tree(leaves)

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
        check_saving(
            f"{type(self).__name__}.save_pretrained",
            {"push_to_hub": push_to_hub, "safe_serialization": safe_serialization, **kwargs},
        )
        if not is_main_process:
            return
        conversion.save_pretrained(
            save_directory,
            self.config,
            self.canonical_tensors(params),
            class_name=class_name(type(self)),
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
        if missing := [row.name for row in rows if _path(row) not in leaves]:
            raise CheckpointError(f"{type(self).__name__}: the parameters lack {', '.join(missing[:10])}.")
        return {
            row.name: np.ascontiguousarray(to_canonical(to_numpy(leaves[_path(row)]), row.kind, "flax")) for row in rows
        }

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets calls of a class refuse keywords in the words of all backends."""
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = _with_checked_keywords(vars(cls)["__call__"])  # type: ignore[method-assign]

    # --- calls -------------------------------------------------------------------------------------------------------

    def flags(
        self,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        interpolate_pos_encoding: bool | None,
    ) -> dict[str, Any]:
        """The switches of a call, None meaning the configuration's value: each set of them is compiled on its own."""
        config = self.config
        return {
            "output_attentions": config.output_attentions if output_attentions is None else bool(output_attentions),
            "output_hidden_states": (
                config.output_hidden_states if output_hidden_states is None else bool(output_hidden_states)
            ),
            "return_dict": config.use_return_dict if return_dict is None else bool(return_dict),
            "interpolate_pos_encoding": bool(interpolate_pos_encoding),
        }

    def run(
        self,
        inputs: Mapping[str, Any],
        switches: Mapping[str, Any],
        params: Params | None,
        dropout_rng: Array | None,
        train: bool,
        mask_rng: Array | None = None,
    ) -> Any:
        """Checks a call and runs it, compiled once per shapes and switches.

        Raises:
            InputError: an argument does not fit the model, or a key is missing.
        """
        model, keys = type(self).__name__, {}
        given = {name: value for name, value in inputs.items() if value is not None}
        if "pixel_values" in given:
            given["pixel_values"] = images_given(model, given["pixel_values"])
        arrays = {name: _array(model, name, value) for name, value in given.items()}
        self.check_values(arrays)
        if dropout_rng is not None:
            keys["dropout"] = _checked_key(model, "dropout_rng", dropout_rng)
        elif train and self.config.hidden_dropout_prob + self.config.attention_probs_dropout_prob:
            raise InputError(f"{model}: dropout_rng: training with dropout needs a key, got None.")
        if "noise" in inputs and "noise" not in arrays:
            keys["mask"] = self._mask_key(arrays) if mask_rng is None else _checked_key(model, "mask_rng", mask_rng)
        static = tuple(sorted({**switches, "deterministic": not train}.items()))
        return self.compiled()(self.params if params is None else params, keys, arrays, static)

    def compiled(self) -> Any:
        """The compiled call, of params, keys, inputs and switches; a new one where the configuration changed."""
        state = ({**vars(self.config)}, self.dtype, self.checkpointing, self.options)
        if self._compiled is None or self._compiled[0] != state:
            call = jax.jit(partial(_apply, self.module, self.params_shape_tree), static_argnums=3)
            callables = {id(value): value for value in state[0].values() if callable(value)}
            self._compiled = deepcopy(state, callables), call  # activations are kept: some are not equal to their copy
        return self._compiled[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": None}  # compiled code cannot be pickled

    def _mask_key(self, arrays: Mapping[str, Any]) -> Array:
        key = jax.random.fold_in(self.key, self.calls + 1)  # in code that is being compiled even this is traced
        if any(isinstance(array, jax.core.Tracer) for array in (key, *arrays.values())):
            raise InputError(
                f"{type(self).__name__}: noise: inside compiled code every call would have the same mask.\n"
                "Pass noise= or mask_rng=."
            )
        self.calls += 1
        return key

    def check_values(self, arrays: Mapping[str, Any]) -> None:
        """Checks the values of the arguments of a call, where they can be looked at.

        Raises:
            InputError: NaN or infinity, a mask outside [0, 1], or labels that are no classes.
        """
        model = type(self).__name__
        hosts = {name: self.host(array) for name, array in arrays.items()}
        labels = hosts.pop("labels", None)
        check_values(model, **hosts)
        if labels is None:
            return
        batch = next(iter(np.shape(arrays["pixel_values"])), None) if "pixel_values" in arrays else None
        is_float = jnp.issubdtype(labels.dtype, jnp.floating)
        problem = check_labels(model, self.config, labels.shape, batch, is_float=is_float)
        if problem == "single_label_classification":
            check_class_indices(model, labels, self.config.num_labels)

    def host(self, array: Any) -> np.ndarray | None:
        """The values of an array where they can be looked at: NumPy's; JAX's on the CPU or in `vit_core.checked()`."""
        if isinstance(array, jax.core.Tracer):
            return None
        is_near = not isinstance(array, Array) or (
            array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())
        )
        return np.asarray(array) if is_near or is_checked() else None

    # --- switches ----------------------------------------------------------------------------------------------------

    @property
    def base_model(self) -> Any:
        """The encoder: this model itself, or for one with a head a model of the same configuration and parameters."""
        if self.base_class is None:
            return self
        dtypes = {"dtype": self.dtype, "params_dtype": self.params_dtype}
        base = self.base_class(self.config, **dtypes, _do_init=False, **self.base_options)
        base.params = self.params[self.base_model_prefix]
        return base

    def get_input_embeddings(self) -> Params:
        """The parameters that turn pixels into patch embeddings."""
        return self.params.get(self.base_model_prefix, self.params)["embeddings"]["patch_embeddings"]

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold.

        Args:
            only_trainable: leave out what gets no gradient.
            exclude_embeddings: leave out the patch projection, the tokens and the positions.
        """
        rows = self.parameter_table().values()
        embeddings = ("embeddings.", f"{self.base_model_prefix}.embeddings.")
        return sum(
            math.prod(row.shape)
            for row in rows
            if (row.trainable or not only_trainable) and not (exclude_embeddings and row.name.startswith(embeddings))
        )

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Chooses "sdpa" or "eager" attention for every layer.

        Raises:
            ConfigError: another name.
        """
        self.config.attn_implementation = attn_implementation

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Removes attention heads from the encoder, and their parameters from the model.

        Args:
            heads_to_prune: layer, from the end where negative -> heads, numbered as in the unpruned model. Heads that
                are gone are passed over.

        Raises:
            ConfigError: no such layer or head, or none would be left in a layer. Nothing is pruned then.
        """
        config = self.config
        new, every = pruned_heads(config, heads_to_prune)
        params = jax.tree.map(lambda leaf: leaf, self.params)  # new dicts around the same arrays
        encoder = params.get(self.base_model_prefix, params)["encoder"]
        for layer, heads in new.items():
            left = [
                head for head in range(config.num_attention_heads) if head not in config.pruned_heads.get(layer, ())
            ]
            kept = [place for place, head in enumerate(left) if head not in heads]
            _prune(encoder["layer"][str(layer)]["attention"], kept, config.hidden_size // config.num_attention_heads)
        self.config.pruned_heads = every
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


def check_params(model: str, shapes: Params, params: Any) -> None:
    """Checks that parameters are those of a model.

    Raises:
        InputError: naming up to five missing, unknown and wrongly shaped ones.
    """
    if not isinstance(params, Mapping) or params.keys() == {"params"}:
        kind = "one that holds it under 'params'" if isinstance(params, Mapping) else type(params).__name__
        raise InputError(f"{model}: params: expected the nested dict of parameters, got {kind}.")
    got = {name: np.shape(leaf) for name, leaf in flatten_dict(params, sep=".").items()}
    want = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep=".").items()}
    wrong = [f"{name} {got.get(name, 'missing')}" for name in want if got.get(name) != want[name]]
    wrong += [f"{name} unknown" for name in got if name not in want]
    if wrong:
        raise InputError(f"{model}: params: {len(wrong)} do not fit: {', '.join(wrong[:5])}.")


def _apply(
    module: FlaxViTPreTrainedModule,
    shapes: Params,
    params: Params,
    keys: Mapping[str, Array],
    inputs: Mapping[str, Array],
    static: Any,
) -> Any:
    check_params(module.model, shapes, params)
    given: dict[str, Any] = {**inputs, **dict(static)}
    return module.apply({"params": params}, **given, rngs=dict(keys))


def _by(size: Any) -> str:
    return " x ".join(map(str, pair(size)))


def _path(row: Parameter) -> tuple[str, ...]:
    """Where a parameter is in the tree."""
    *modules, word = row.name.split(".")
    return (*modules, WORDS.get(row.kind, word))


def _shape(row: Parameter) -> tuple[int, ...]:
    axes = canonical_axes(row.kind, "flax")
    return row.shape if axes is None else tuple(row.shape[axis] for axis in axes)


def _cast(params: Params, dtype: Any, mask: Any) -> Params:
    def cast(leaf: Array, is_chosen: bool = True) -> Array:
        return leaf.astype(dtype) if is_chosen and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, params) if mask is None else jax.tree.map(cast, params, mask)


def _checked_dtype(model: str, name: str, dtype: Any) -> np.dtype:
    found = jnp.dtype(dtype_name(dtype))
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise InputError(f"{model}: {name}: JAX is not set up for {found.name}; use it inside jax.enable_x64(True).")
    return found


def _checked_key(model: str, name: str, key: Any) -> Array:
    dtype = getattr(key, "dtype", np.dtype(object))
    dims = 0 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else 1 if dtype == np.uint32 else None
    if dims is None or key.ndim != dims:
        raise InputError(f"{model}: {name}: expected a key such as jax.random.key(0), got {str(key)[:80]!r}.")
    return key


def _loading_dtype(model: str, dtype: Any, params_dtype: Any) -> str:
    """The dtype to read parameters in: what was asked for, else float32 or wider for a computation in `dtype`."""
    if params_dtype is not None:
        return "auto" if _is_auto(params_dtype) else _checked_dtype(model, "params_dtype", params_dtype).name
    return "auto" if _is_auto(dtype) else wide(_checked_dtype(model, "dtype", dtype)).name


def _is_auto(dtype: Any) -> bool:
    return isinstance(dtype, str) and dtype == "auto"


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


def _array(model: str, name: str, value: Any) -> Any:
    """What can be passed to compiled code: arrays as they are, other frameworks' tensors and lists as NumPy's."""
    check_numbers(model, name, value)
    try:
        return value if isinstance(value, Array | np.ndarray) else to_numpy(value)
    except (TypeError, ValueError):
        raise no_numbers(model, name, value) from None


def _prune(attention: Any, kept: Sequence[int], head_dim: int) -> None:
    """Keeps some heads of one attention: columns of query, key and value, rows of the output."""
    places = (np.asarray(kept)[:, None] * head_dim + np.arange(head_dim)).reshape(-1)
    for projection in attention["attention"].values():
        for name, leaf in projection.items():
            projection[name] = leaf[..., places]
    attention["output"]["dense"]["kernel"] = attention["output"]["dense"]["kernel"][places]
