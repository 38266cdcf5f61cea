"""What every model of this backend shares: its loading, saving, initialisation and pruning."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, Unpack, overload

import torch
from torch import Tensor, nn

from conversion import Loaded
from conversion.keywords import LoadingInfo
from conversion.model import PortableModel
from vit_core.calls import Arguments, HasForward, Output
from vit_core.config import PretrainedConfig, ViTConfig, ViTMAEConfig
from vit_core.errors import CheckpointError, InputError
from vit_core.files.reading import being_read
from vit_core.keywords import check_keywords
from vit_core.parameters import MODEL_CLASSES, Parameter, check_tensors
from vit_core.tensors import Array, to_numpy
from vit_torch.familiar import Familiar
from vit_torch.inputs import CheckedInputs
from vit_torch.intermediates import TorchIntermediates
from vit_torch.keywords import TorchLoading, TorchSaving
from vit_torch.layers import keep_freed_memory
from vit_torch.recomputing import InferenceOnly, Recomputed
from vit_torch.weights import as_tensor, fill, placed, prune, writer

Model = TypeVar("Model", bound="PreTrainedModel")


class PreTrainedModel(PortableModel, CheckedInputs, Recomputed, Familiar, TorchIntermediates, nn.Module):
    """Base of the five models. Subclasses build their modules inside `_building()`, then call `_initialise()`."""

    framework: ClassVar[str] = "pt"
    _arguments: ClassVar[frozenset[str]]  # names of the arguments of a call
    hf_device_map: dict[str, torch.device]  # of a model that was loaded with `device_map`

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._arguments = frozenset(inspect.signature(cls.forward).parameters)

    def __init__(self, config: PretrainedConfig, **options: bool) -> None:
        super().__init__()
        if not any(base.__name__ in MODEL_CLASSES for base in type(self).__mro__):
            raise InputError(
                f"{type(self).__name__}: expected one of {', '.join(MODEL_CLASSES)}, or a subclass of one.\n"
                "To build another head on an encoder, keep a ViTModel inside an nn.Module of your own."
            )
        self._settle(config)
        self.config.attn_implementation = config.attn_implementation or "sdpa"
        self.options = options
        keep_freed_memory()

    # --- construction ------------------------------------------------------------------------------------------------

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Modules made in here get neither storage nor values: `_initialise` or `from_pretrained` gives them, once."""
        with torch.device("meta"):
            yield

    def _inner(self, cls: type[Model], **options: bool) -> Model:
        """The base model of a class with a head; the two share one configuration."""
        model = cls(self.config, **options)
        model.config = self.config
        model._called_as = self._called_as
        return model

    def _initialise(self) -> None:
        """Storage and fresh values for every parameter, unless the caller builds on the meta device."""
        if self.config.extra.get("gradient_checkpointing"):
            self.gradient_checkpointing_enable()
        device = torch.get_default_device()
        if device.type != "meta":
            self.to_empty(device=device)
            self._fill([*self.parameter_table().values()])

    @torch.no_grad()
    def _fill(self, rows: Sequence[Parameter]) -> None:
        """Draws fresh values for some parameters from torch's generator, in table order."""
        tensors = self.state_dict(keep_vars=True)
        for row in rows:
            fill(tensors[row.name], row, self.config)

    # --- loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_tensors(cls, config: PretrainedConfig, tensors: Mapping[str, Array | Tensor], **options: bool) -> Self:
        """A model with exactly these weights, copied, in eval mode.

        Args:
            config: a configuration of this class.
            tensors: canonical name -> array, all of one floating dtype, which becomes the model's.
            **options: constructor options (add_pooling_layer, use_mask_token).

        Raises:
            CheckpointError: a name is missing or unknown, or a shape is wrong.
            InputError: torch's default device is "meta".
        """
        device = placed(cls.__name__)
        with torch.device("meta"):
            model = cls(config, **options)
        shapes = {name: array.shape for name, array in tensors.items()}
        check_tensors(cls.__name__, model.parameter_table(), shapes)
        model._assign({name: as_tensor(array).detach().clone() for name, array in tensors.items()})
        return model._complete(device)

    def _assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Makes these tensors the parameters themselves, without a copy."""
        self.load_state_dict(dict(tensors), strict=False, assign=True)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *,
        output_loading_info: Literal[True],
        **kwargs: Unpack[TorchLoading],
    ) -> tuple[Self, LoadingInfo]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Unpack[TorchLoading],
    ) -> Self: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *,
        output_loading_info: bool,
        **kwargs: Unpack[TorchLoading],
    ) -> Self | tuple[Self, LoadingInfo]: ...
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *,
        output_loading_info: bool = False,
        **kwargs: Unpack[TorchLoading],
    ) -> Any:
        """A model with the weights of a checkpoint, in eval mode.

        Example:
            model = ViTForImageClassification.from_pretrained("my-vit", num_labels=10, ignore_mismatched_sizes=True)
            model, info = ViTModel.from_pretrained("owner/name", dtype="auto", output_loading_info=True)

        Args:
            pretrained_model_name_or_path: folder, weight file of any dialect, or "owner/name" on the hub; None with
                config and state_dict.
            output_loading_info: True makes the result (model, info), which lists missing, unexpected and mismatched
                names.
            **kwargs: `vit_torch.keywords.TorchLoading`:
                config: configuration object or path, in place of the checkpoint's;
                dtype (torch_dtype): float32 unless given; "auto" is what the configuration says, else what is stored;
                device_map: the device to move the model to: "auto", or one in any form (torch's default device);
                state_dict: tensors by name, copied, instead of those of the checkpoint;
                strict: False initialises parameters that are missing or of another shape, and leaves out the rest;
                ignore_mismatched_sizes: True initialises parameters of another shape, such as a new classifier's;
                position_kernel: resampler of positions for another image size, see `vit_core.positions.KERNELS`;
                adapt: "channels", "patches" or both: num_channels or patch_size may be other than the file's;
                allow_nonfinite: True loads NaN and infinity;
                add_pooling_layer, use_mask_token: of a ViTModel;
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
            InputError: a keyword that means nothing here; torch's default device is "meta" and there is no device_map.
        """
        device_map, state_dict = kwargs.pop("device_map", None), kwargs.pop("state_dict", None)
        device = placed(cls.__name__, device_map)
        tensors = None if state_dict is None else {name: to_numpy(tensor) for name, tensor in state_dict.items()}
        build = partial(cls._from_loaded, device=device, copies=tensors is not None)
        model, loaded = cls._load(pretrained_model_name_or_path, kwargs, build, tensors=tensors)
        if device_map is not None:
            model.hf_device_map = {"": device}
        return (model, loaded.info) if output_loading_info else model

    @classmethod
    def _from_loaded(cls, loaded: Loaded, *, device: torch.device, copies: bool) -> Self:
        with being_read(loaded.tensors, lambda _, array: as_tensor(array), loaded.release) as ready:
            with torch.device("meta"):
                model = cls(loaded.config, **loaded.options)
            given = {name: wait() for name, wait in ready.items()}
        model._assign({name: tensor.clone() for name, tensor in given.items()} if copies else given)
        model._fill_missing(loaded.missing)
        return model._complete(device)

    def _fill_missing(self, names: Sequence[str]) -> None:
        """Storage and fresh values for the parameters that a checkpoint did not have."""
        table = self.parameter_table()
        dtype = getattr(torch, self.config.dtype or "float32")
        self._assign({name: torch.empty(table[name].shape, dtype=dtype, device="cpu") for name in names})
        self._fill([table[name] for name in names])

    def _complete(self, device: torch.device) -> Self:
        """This model, all its weights given, on a device and in eval mode.

        Raises:
            CheckpointError: a subclass has parameters of its own, which no checkpoint holds.
        """
        extra = [name for name, tensor in self.state_dict().items() if tensor.is_meta]
        if extra:
            raise CheckpointError(
                f"{type(self).__name__}: no checkpoint holds {', '.join(extra[:10])}.\n"
                "Rather than adding parameters in a subclass, keep the model inside a module of your own."
            )
        return self.to(device).eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Callable[..., object] | None = None,
        push_to_hub: Literal[False] = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: Literal[True] = True,
        variant: str | None = None,
        **kwargs: Unpack[TorchSaving],
    ) -> None:
        """Writes config.json and model.safetensors, which every backend and transformers load.

        Args:
            save_directory: folder, made where missing; an older checkpoint in it is replaced as a whole.
            is_main_process: False writes nothing: another process does.
            state_dict: tensors by name to save instead of the model's, all that the class has.
            save_function: called with (tensors by name, path) for every weight file, which it writes as safetensors.
            push_to_hub: must be False; there is a method for it.
            max_shard_size: largest weight file, as bytes or as text like "5GB".
            safe_serialization: must be True; nothing here writes pickles.
            variant: infix of the file names, as in model.fp16.safetensors.
            **kwargs: `vit_torch.keywords.TorchSaving`: saved_model, create_pr, save_peft_format, save_original_format,
                distributed_checkpoint and save_config pass where what they ask for is so anyway
                (`conversion.keywords.SAVING`).

        Raises:
            ConfigError: a callable activation cannot be saved.
            CheckpointError: the folder cannot be written, or `state_dict` is not that of this class.
            InputError: a keyword that means nothing here.
        """
        self._save(
            save_directory,
            {"push_to_hub": push_to_hub, "safe_serialization": safe_serialization, **kwargs},
            is_main_process,
            lambda: self.canonical_tensors(state_dict),
            max_shard_size=max_shard_size,
            variant=variant,
            write_file=None if save_function is None else writer(save_function),
        )

    def canonical_tensors(self, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Array]:
        """Canonical name -> values in the canonical layout: what `from_tensors` of every backend takes.

        Raises:
            InputError: weights are quantised.
        """
        tensors = self.state_dict() if state_dict is None else state_dict
        if quantised := [name for name, each in tensors.items() if type(each).__module__.startswith("torchao.")]:
            raise InputError(
                f"{type(self).__name__}: {quantised[0]} is quantised by torchao, checkpoints hold full precision.\n"
                "Call save_pretrained before quantize_(), or keep its state dict: torch.save(model.state_dict(), path)."
            )
        return {name: to_numpy(tensor) for name, tensor in tensors.items()}

    # --- calls ---------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def __call__(  # noqa: D102
            self: HasForward[Arguments, Output], *args: Arguments.args, **kwargs: Arguments.kwargs
        ) -> Output: ...

    else:

        def __call__(self, *args, **kwargs):
            """Calls the model: arguments of `forward`.

            Raises:
                InputError: an argument that there is none of, or that does not fit the model.
            """
            check_keywords(type(self).__name__, kwargs, self._arguments)
            return super().__call__(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Sets training or eval mode, as for every module of torch.

        Raises:
            InputError: the model is optimised for inference.
        """
        if mode and any(isinstance(module, InferenceOnly) for module in self.modules()):
            raise InputError(
                f"{type(self).__name__}: train: the model is optimised for inference, where there are no gradients.\n"
                "vit_torch.undo_optimization(model) makes it an ordinary model again."
            )
        return super().train(mode)

    # --- properties and switches -------------------------------------------------------------------------------------

    def _sizes(self) -> Iterator[tuple[str, int, bool]]:
        return ((name, parameter.numel(), parameter.requires_grad) for name, parameter in self.named_parameters())

    def _parts(self) -> Iterator[Any]:
        return self.modules()

    def _prune(self, heads: Mapping[int, Sequence[int]]) -> None:
        for layer, gone in heads.items():
            prune(self.base_model.encoder.layer[layer].attention, gone)


class ViTPreTrainedModel(PreTrainedModel):
    """Base of the ViT models."""

    config_class = ViTConfig


class ViTMAEPreTrainedModel(PreTrainedModel):
    """Base of the ViTMAE models."""

    config_class = ViTMAEConfig
