"""Configurations in files: read, renamed to our field names, and combined with what the caller overrides."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from vit_core.errors import ConfigError
from vit_core.files.json import read_json
from vit_core.limits import LIMITS, check_limits

CONFIG_NAME = "config.json"
SEARCHED = 1_000  # unknown keys of a file that are looked at for misspellings: nobody types more
SPELLINGS = {"torch_dtype": "dtype", "_name_or_path": "name_or_path", "_attn_implementation": "attn_implementation"}

logger = logging.getLogger("vitriad")


def read_config(name_or_path: str | Path, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON object of a stored configuration, with its origin, and the fields among `kwargs`."""
    from vit_core.files.weight_files import is_weights
    from vit_core.hub.download import HUB_OPTIONS, commit_of, resolve

    options = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
    overrides = {name: value for name, value in kwargs.items() if name not in HUB_OPTIONS}
    limits = overrides.pop("limits", LIMITS)
    check_limits(limits)
    path = Path(name_or_path)
    is_found = is_weights(path.name) or (path.suffix != ".json" and not os.path.isfile(path))
    if is_found:
        path = resolve(name_or_path, [CONFIG_NAME], **options) / CONFIG_NAME
    data = read_json(path, limit="config_bytes", error=ConfigError, limits=limits, within=is_found)
    return {**data, "name_or_path": str(name_or_path), "hub_commit": commit_of(path)}, overrides


def canonical(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` under our own field names. Of two spellings of one field ours wins; None counts as not given."""
    ours = {name: value for name, value in given.items() if name not in SPELLINGS}
    for spelling, name in SPELLINGS.items():
        if given.get(spelling) is not None and ours.get(name) is None:
            ours[name] = given[spelling]
    return ours


def merge(data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A file's keys with the overrides applied; values that follow from others are computed again unless overridden."""
    data, overrides = canonical(data), canonical(overrides)
    labels, stale = data.get("id2label"), set()
    known = len(labels) if isinstance(labels, Mapping | list | tuple) else data.get("num_labels", 2)
    if overrides.get("id2label") is not None or overrides.get("num_labels") not in (None, known):
        stale |= {"id2label", "label2id", "num_labels"}
    if "hidden_size" in overrides and data.get("pooler_output_size") == data.get("hidden_size"):
        stale.add("pooler_output_size")
    return {**{name: value for name, value in data.items() if name not in stale}, **overrides}


@lru_cache(maxsize=256)
def warn_of_keys(where: str, commit: str | None, text: str) -> None:
    """Warns once per checkpoint, although it is often read twice: once to find its class, once to load it."""
    del commit
    logger.warning("%s: config.json: kept, but no fields: %s", where, text)
