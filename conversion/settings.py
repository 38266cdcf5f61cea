"""The configuration and dtype to load with: from the checkpoint, from its tensors, and from the caller's keywords."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from conversion.detecting import Source
from conversion.heads import check_heads
from conversion.inference import infer, is_of_transformers
from conversion.keywords import ASSERTIONS, CHOOSING, FITTING, MODEL_OPTIONS, OPENING
from vit_core.config import CONFIG_NAME, PretrainedConfig, read_config
from vit_core.config.relatives import as_vit
from vit_core.errors import InputError, MissingFileError
from vit_core.files.weight_files import TRAINER_NAME
from vit_core.parameters import MODEL_CLASSES
from vit_core.tensors import FLOAT_DTYPES, dtype_name


def config_data(source: Source, model: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the configuration: the caller's, else the checkpoint's, else those inferred from its tensors."""
    chosen = given.get("config")
    if isinstance(chosen, PretrainedConfig):
        return chosen.to_dict()
    if isinstance(chosen, str | os.PathLike):
        return as_vit(read_config(Path(chosen), {})[0])
    if chosen is not None:
        raise InputError(f"config: expected a configuration or the path of one, got {type(chosen).__name__}.")
    if source.config is not None and is_of_transformers(source.config):
        return as_vit(source.config)
    if source.dialect.numerics is None:
        raise MissingFileError(f"{source.where}: no {CONFIG_NAME} beside the weights; pass config=.{_saver(source)}")
    bare = source.bare
    return infer(source.where, source.dialect, bare, source.shown, source.config, given, model)


def _saver(source: Source) -> str:
    """Which program saved weights without a configuration, if a file beside them tells; for the message."""
    files = [file for file in source.weights.files if file.content is not None]  # none of those the caller holds
    if not any((file.path.parent / TRAINER_NAME).exists() for file in files):
        return ""
    return (
        "\nThe Trainer of transformers saves weights only; with ModelFolders of vit_torch.training as a callback and "
        "as processing_class it saves the rest too."
    )


def config_of(source: Source, model: str, given: Mapping[str, Any], stored: Mapping[str, Any]) -> Any:
    """The configuration of the class: stored keys, overridden by every keyword that is no option of loading."""
    taken = (*OPENING, *FITTING, *CHOOSING, *ASSERTIONS, *MODEL_OPTIONS.get(model, {}))
    overrides = {name: value for name, value in given.items() if name not in taken}
    origin = {"name_or_path": source.where, "hub_commit": source.commit}
    data = {**source.shown, **stored, **origin}
    if source.shown:
        is_given = "num_attention_heads" in overrides or given.get("config") is not None
        said = {**data, **overrides}["num_attention_heads"]
        said_by = "as given" if is_given else f"in {CONFIG_NAME}"
        check_heads(source.where, source.shown["num_attention_heads"], source.names, said, said_by)
    made: Any = MODEL_CLASSES[model].from_dict(data, return_unused_kwargs=True, **overrides)
    config, unknown = made
    if unknown:
        known = [*taken, *vars(config), "num_labels"]
        raise InputError(
            f"{model}.from_pretrained: {'; '.join(_unknown(name, known) for name in unknown)}\n"
            "Expected an option of loading or a field of the configuration."
        )
    return config


def _unknown(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"no keyword {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def chosen_dtype(source: Source, config: PretrainedConfig, given: Mapping[str, Any]) -> str:
    """The name of the dtype to load in."""
    asked = {
        "auto" if value == "auto" else dtype_name(value)
        for name, value in given.items()
        if name in ("dtype", "torch_dtype")
    }
    if len(asked) > 1:
        raise InputError(f"dtype and torch_dtype: expected one of them, got both, {' and '.join(sorted(asked))}.")
    name = asked.pop() if asked else "float32"
    if name != "auto":
        return name
    return config.dtype or stored_dtype(source)


def stored_dtype(source: Source) -> str:
    """The name of the dtype of the first floating tensor in the file."""
    stored = (info.dtype.name for info in source.weights.infos.values())
    return next((name for name in stored if name in FLOAT_DTYPES), "float32")
