"""What trainers ask of a model: layers that are recomputed, and folders that load again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from conversion import written_config
from vit_core.config import CONFIG_NAME
from vit_core.errors import ConfigError, InputError
from vit_core.files.atomic_folder import write_file
from vit_core.parameters import class_name
from vit_core.tensors import dtype_name


@dataclass(frozen=True)
class Recomputing:
    """How layers are computed anew in the backward pass instead of keeping their activations.

    Attributes:
        every_n_layers: 1 for every layer; n for the first of each n, the others keep theirs.
        offload: whether what is kept, the input of each such layer, waits in the host's memory.
        keywords: of `torch.utils.checkpoint.checkpoint`.
    """

    every_n_layers: int = 1
    offload: bool = False
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, place: int, layer: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a layer, the place of which in its stack is counted from 0."""
        if place % self.every_n_layers:
            return layer(*arguments)
        with save_on_cpu(pin_memory=torch.accelerator.is_available()) if self.offload else nullcontext():
            return checkpoint(layer, *arguments, **self.keywords)


class Recomputed:
    """Gives a model the switches of gradient checkpointing, under both names that transformers has for them.

    Parts with a stack of layers have an attribute `recomputing`: a `Recomputing` while it is on, else None.
    """

    supports_gradient_checkpointing = True

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recomputes layers in the backward pass instead of keeping their activations (in training mode).

        Args:
            activation_checkpointing_kwargs: keywords of `torch.utils.checkpoint.checkpoint`; use_reentrant is False
                unless given.
            every_n_layers: recompute the first of each so many layers, of the encoder and of the decoder.
            offload: keep what is still kept in the host's memory.

        Raises:
            InputError: `every_n_layers` is no count.
        """
        if isinstance(every_n_layers, bool) or not isinstance(every_n_layers, int) or every_n_layers < 1:
            raise InputError(
                f"{type(self).__name__}: every_n_layers: expected an int of at least 1, got {every_n_layers!r}."
            )
        keywords = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        self._set_recomputing(Recomputing(every_n_layers, offload, keywords))

    def activation_checkpointing_disable(self) -> None:
        """Keeps activations for the backward pass again."""
        self._set_recomputing(None)

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`activation_checkpointing_enable` under its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """`activation_checkpointing_disable` under its older name."""
        self.activation_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether layers are recomputed."""
        return any(part.recomputing is not None for part in self._stacks())

    @property
    def is_gradient_checkpointing(self) -> bool:
        """`is_activation_checkpointing` under its older name."""
        return self.is_activation_checkpointing

    def _set_recomputing(self, recomputing: Recomputing | None) -> None:
        for part in self._stacks():
            part.recomputing = recomputing

    def _stacks(self) -> Iterator[Any]:
        return (module for module in self.modules() if hasattr(module, "recomputing"))  # type: ignore[attr-defined]


class InferenceOnly:
    """Marks modules that compute without gradients; see `vit_torch.inference`."""


class ModelFolders:
    """Makes what the Trainer of transformers saves folders that `from_pretrained` loads.

    Trainer saves the weights of a model that is not its own, and nothing else of it. One of these adds config.json and
    the image processor: as a callback to every checkpoint, and at the end to `output_dir`; as `processing_class`, which
    Trainer saves beside the weights, to whatever folder `save_model` is given as well.

        folders = ModelFolders(processor)
        trainer = Trainer(model, arguments, processing_class=folders, callbacks=[folders], ...)

    Adapters of PEFT get the processor only: what Trainer saves of them says which model they belong to.

    Args:
        processor: an image processor, or anything with a `save_pretrained(folder)`; everything else that is asked of
            this object is asked of it.

    Source: the events of TrainerCallback in transformers 4.57.6 and 5.24.0, which is not imported.
    """

    def __init__(self, processor: Any = None) -> None:
        self.processor = processor
        self.model: Any = None

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes config.json of the model, and what the processor writes.

        Args:
            save_directory: folder, made where missing.
            **kwargs: of the processor's `save_pretrained`.

        Raises:
            ConfigError: the configuration cannot be saved.
        """
        model: Any = getattr(self.model, "_orig_mod", self.model)  # what torch.compile wraps
        is_ours = isinstance(model, Recomputed)
        if is_ours:
            text = written_config(model.config, class_name(type(model)), dtype_name(model.dtype))
            write_file(Path(save_directory) / CONFIG_NAME, text, error=ConfigError)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory, **kwargs)

    def on_init_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any) -> None:
        """Learns which model is trained."""
        self.model = model

    on_train_begin = on_init_end  # a new model where Trainer makes one by `model_init`

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Completes the checkpoint that was just written."""
        if state.is_world_process_zero:
            self.save_pretrained(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Completes the folder that `save_model()` writes to."""
        if state.is_world_process_zero:
            self.save_pretrained(args.output_dir)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return _no_event
        if name.startswith("__") or "processor" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the processor makes of images."""
        return self.processor(*args, **kwargs)


def _no_event(*args: Any, **kwargs: Any) -> None:
    """Every event that nothing is done at."""
