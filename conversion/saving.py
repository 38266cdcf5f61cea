"""Saving: from a model of any backend to a checkpoint that every backend and transformers load."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from conversion.detecting import lone_checkpoint
from conversion.families import Form, form_of
from vit_core.config import CONFIG_NAME, PretrainedConfig
from vit_core.files.json import json_text
from vit_core.files.saving import replaced_weights, save_folder
from vit_core.files.weight_files import weight_names
from vit_core.parameters import check_tensors, has_pooler, parameter_table
from vit_core.parameters import class_name as canonical_class
from vit_core.plain_values import name_list
from vit_core.tensors import Array

logger = logging.getLogger("vitriad")


def save_pretrained(
    folder: str | Path,
    config: PretrainedConfig,
    tensors: Mapping[str, Array],
    *,
    class_name: str,
    max_shard_size: int | str = "5GB",
    variant: str | None = None,
    source: str | None = None,
    write_file: Callable[[dict[str, Array], Path], object] | None = None,
    folders: Mapping[str, Callable[[Path], object]] | None = None,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Writes config.json and weights that every backend and transformers load, in place of what was there.

    Weights that a load could take for the new ones go with the old checkpoint, whoever wrote them; a log line says so.

    Args:
        folder: see `vit_core.files.saving.save_folder`, also for `max_shard_size`, `variant`, `write_file`, `folders`
            and `source` (unless given, the hub repository and the commit that the configuration was loaded from).
        config: of the model; the file also says the class and the dtype.
        tensors: canonical name -> array, all that the class has.
        class_name: name of the model class, in any backend.
        beside: other texts to write with them, by file name.

    Raises:
        ConfigError: the configuration cannot be written (a callable activation); nothing is written then.
        CheckpointError: the tensors are not those of the class, or the folder cannot be written.
    """
    model = canonical_class(class_name)
    options = {
        "add_pooling_layer": has_pooler(config, tensors),
        "use_mask_token": "embeddings.mask_token" in tensors,
    }
    table = parameter_table(config, model, **options)
    check_tensors(model, table, {name: array.shape for name, array in tensors.items()})
    ordered, dtype = {name: tensors[name] for name in table}, next(iter(tensors.values())).dtype
    form = form_of(config, model, ordered)
    text = written_config(config, model, dtype.name, form)
    if form is not None:
        ordered = {form.names.get(name, name): array for name, array in ordered.items()}
        ordered |= {name: ordered[name].reshape(shape) for name, shape in form.shapes.items() if name in ordered}
        ordered |= {name: np.full(shape, value, dtype) for name, (shape, value) in form.added.items()}
    also = lone_checkpoint(folder) if variant is None else []
    old = replaced_weights(folder, variant, also)
    save_folder(
        folder,
        files={CONFIG_NAME: text, **(beside or {})},
        tensors=ordered,
        max_shard_size=max_shard_size,
        variant=variant,
        also=also,
        source=source or (f"{config.name_or_path}@{config.hub_commit}" if config.hub_commit else None),
        write_file=write_file,
        folders=folders,
    )
    if others := [name for name in old if not any(fnmatchcase(name, mine) for mine in weight_names(variant))]:
        logger.warning("%s: saved in place of other weights, which are gone: %s", folder, name_list(others))


def written_config(config: PretrainedConfig, class_name: str, dtype: str, form: Form | None = None) -> str:
    """The text of config.json beside weights of a class, in a dtype.

    Args:
        form: of a model with options, see `conversion.families`.

    Raises:
        ConfigError: the configuration cannot be written (a callable activation).
    """
    written = deepcopy(config)
    written.architectures, written.dtype = [canonical_class(class_name)], dtype
    text = written.file_text()
    if form is None:
        return text
    fields = {name: value for name, value in written.to_diff_dict().items() if name not in form.left_out}
    return json_text({**fields, **form.fields})
