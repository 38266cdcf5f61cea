"""Folders that load again, of what the Trainer of transformers saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conversion import written_config
from conversion.families import Form, own_form
from vit_core.config import CONFIG_NAME
from vit_core.errors import CheckpointError, ConfigError
from vit_core.files.atomic_folder import replacing_file, write_file
from vit_core.files.containers import open_any
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces
from vit_core.parameters import class_name
from vit_core.tensors import dtype_name
from vit_torch.recomputing import Recomputed


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

        The weights of a model with options that transformers' own class would load without a word, and compute
        otherwise, get one tensor more (`conversion.families`), which Trainer reports when it goes on from them.

        Raises:
            ConfigError: the configuration cannot be saved.
            CheckpointError: the weights cannot be written again.
        """
        model: Any = getattr(self.model, "_orig_mod", self.model)  # what torch.compile wraps
        is_ours = isinstance(model, Recomputed)
        if is_ours:
            text = written_config(model.config, class_name(type(model)), dtype_name(model.dtype))
            write_file(Path(save_directory) / CONFIG_NAME, text, error=ConfigError)
            _mark(Path(save_directory), own_form(model.config))
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


def _mark(folder: Path, form: Form) -> None:
    """Adds to the weights that Trainer wrote what says that they are of no ViT of transformers, where names do not."""
    weights, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if form.added and weights.exists():
        held = open_any(weights).tensors
        dtype = next(iter(held.values())).dtype
        marks = {name: np.full(shape, value, dtype) for name, (shape, value) in form.added.items()}
        with replacing_file(weights, error=CheckpointError, size=weights.stat().st_size) as new:
            write_pieces(new, serialised({**held, **marks}, lambda size: None))
    if form.added and pickled.exists():
        state = torch.load(pickled, map_location="cpu", mmap=True, weights_only=True)
        state |= {name: torch.full(shape, value) for name, (shape, value) in form.added.items()}
        with replacing_file(pickled, error=CheckpointError, size=pickled.stat().st_size) as new:
            torch.save(state, new)


def _no_event(*args: Any, **kwargs: Any) -> None:
    """Every event that nothing is done at."""
