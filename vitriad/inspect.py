"""`vitriad inspect`: what a checkpoint holds, from its configuration and the headers of its weight files."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from typing import Any

from conversion.detect import open_source
from conversion.pretrained import plan
from vit_core.errors import VitError
from vitriad.cli import print_table, reading_options
from vitriad.models import find

_LABELS = ("id2label", "label2id")  # a thousand lines for ImageNet: counted instead


def run(arguments: Namespace) -> int:
    """Prints the description of one checkpoint."""
    found = describe(arguments.model, **reading_options(arguments))
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


def describe(name_or_path: str, **options: Any) -> dict[str, Any]:
    """Dialect, class, configuration, parameters, their number, bytes, and what stands in the way of loading.

    No weights are read, and no framework is needed.

    Args:
        name_or_path: folder, weight file of any dialect, hub name, or a shipped model.
        **options: as for `conversion.load`.

    Raises:
        CheckpointError: nothing there, or the files are not sound.
    """
    opening = {name: options[name] for name in ("weights", "allow", "revision") if name in options}
    source = open_source(find(name_or_path), verify=False, **opening)  # digests would need the data
    try:
        _, config, model, _ = plan(find(name_or_path), verify=False, **options)
        fields, problems = config.to_diff_dict(), []
    except VitError as problem:
        model, fields, problems = None, dict(source.config or {}), [str(problem)]
    parameters = [
        {
            "name": name,
            "stored_as": source.names.get(name),
            "shape": list(tensor.shape),
            "dtype": tensor.dtype.name,
        }
        for name, tensor in source.arrays.items()
    ]
    return {
        "checkpoint": name_or_path,
        "dialect": source.dialect.name,
        "class": model,
        "config": {
            **{name: value for name, value in fields.items() if name not in _LABELS},
            **({"num_labels": len(fields["id2label"])} if "id2label" in fields else {}),
        },
        "parameters": parameters,
        "total_parameters": sum(math.prod(parameter["shape"]) for parameter in parameters),
        "bytes": sum(len(file.content) for file in source.weights.files),
        "notes": source.notes,
        "problems": problems,
    }


def _print(found: dict[str, Any]) -> None:
    print(f"{found['checkpoint']}: {found['class'] or 'no class'} in the dialect {found['dialect']}\n")
    print_table(sorted(found["config"].items()))
    print()
    renamed = any(row["stored_as"] != row["name"] for row in found["parameters"])
    print_table(
        [
            (row["name"], " x ".join(map(str, row["shape"])), row["dtype"], *[row["stored_as"] or "-"] * renamed)
            for row in found["parameters"]
        ]
    )
    print(f"\n{found['total_parameters']:,} parameters, {found['bytes']:,} bytes")
    for what in ("notes", "problems"):
        for line in found[what]:
            print(f"{what[:-1]}: {line}")
