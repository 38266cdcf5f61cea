"""`vitriad info`: what a checkpoint holds, from its configuration and the headers of its weight files."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from typing import Any

from conversion.detect import open_source
from vitriad.cli import print_table
from vitriad.models import find

_LABELS = ("id2label", "label2id")  # a thousand lines for ImageNet: counted instead


def run(arguments: Namespace) -> int:
    """Prints the description of one checkpoint."""
    found = describe(arguments.model, revision=arguments.revision)
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


def describe(name_or_path: str, **hub_options: Any) -> dict[str, Any]:
    """Class, configuration, parameters, their number, and the bytes of the weight files. Reads no weights.

    Args:
        name_or_path: folder, safetensors file, hub name, or a shipped model.
        **hub_options: see `vit_core.hub.resolve`.

    Raises:
        CheckpointError: nothing there, or the files are not sound.
    """
    source = open_source(find(name_or_path), verify=False, **hub_options)  # digests would need the data
    config = source.config or {}
    parameters = [
        {"name": name, "shape": list(info.shape), "dtype": info.dtype.name}
        for name, info in source.weights.infos.items()
    ]
    return {
        "checkpoint": name_or_path,
        "class": ", ".join(config.get("architectures") or ()) or None,
        "config": {
            **{name: value for name, value in config.items() if name not in _LABELS},
            **({"num_labels": len(config["id2label"])} if "id2label" in config else {}),
        },
        "parameters": parameters,
        "total_parameters": sum(math.prod(parameter["shape"]) for parameter in parameters),
        "bytes": sum(len(file.content) for file in source.weights.files),
    }


def _print(found: dict[str, Any]) -> None:
    print(f"{found['checkpoint']}: {found['class'] or 'no class named'}\n")
    print_table(sorted(found["config"].items()))
    print()
    print_table([(row["name"], " x ".join(map(str, row["shape"])), row["dtype"]) for row in found["parameters"]])
    print(f"\n{found['total_parameters']:,} parameters, {found['bytes']:,} bytes")
