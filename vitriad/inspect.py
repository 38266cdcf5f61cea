"""`vitriad inspect`: what a checkpoint holds, from its configuration and the headers of its weight files."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from conversion.detecting import open_source
from conversion.loading import plan
from conversion.places import Opening, open_place
from vit_core.errors import CheckpointError, MissingFileError, VitError
from vit_core.files.arrays import LazyArray
from vitriad.models import find
from vitriad.option_groups import reading_options
from vitriad.printing import print_table, shown

_NUMBER = re.compile(r"([._/]|block_?)([0-9]+)([./])")  # of a layer, first in the name
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
    path = find(name_or_path)
    try:
        source = open_source(path, verify=False, **opening)  # digests would need the data
    except MissingFileError:
        raise
    except CheckpointError as problem:
        return _undescribed(name_or_path, path, str(problem), options)
    try:
        _, config, model, _ = plan(path, verify=False, **options)
        fields, problems = config.to_diff_dict(), []
    except VitError as problem:
        model, fields, problems = None, dict(source.config or {}), [str(problem)]
    return {
        **_facts(name_or_path, source.arrays, source.names),
        "dialect": source.dialect.name,
        "class": model,
        "config": _shortened(fields),
        "bytes": sum(len(file.content) for file in source.weights.files),
        "notes": source.notes,
        "problems": problems,
    }


def _undescribed(name: str, path: Any, problem: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What can be said of weights that no model here takes: their names, shapes and dtypes, as stored.

    Raises:
        CheckpointError: the files are not sound either.
    """
    revision = {"revision": options["revision"]} if "revision" in options else {}
    place = open_place(path, Opening(weights=options.get("weights"), verify=False), **revision)
    return {
        **_facts(name, place.weights.infos, {}),
        "dialect": None,
        "class": None,
        "config": _shortened(place.config or {}),
        "bytes": sum(len(file.content) for file in place.weights.files),
        "notes": [],
        "problems": [problem],
    }


def _facts(name: str, arrays: Mapping[str, LazyArray], stored: Mapping[str, str]) -> dict[str, Any]:
    """The tensors of a checkpoint, one by one and counted."""
    parameters = [
        {"name": key, "stored_as": stored.get(key), "shape": list(tensor.shape), "dtype": tensor.dtype.name}
        for key, tensor in arrays.items()
    ]
    total = sum(tensor.size for tensor in arrays.values())
    return {"checkpoint": name, "parameters": parameters, "total_parameters": total}


def _shortened(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its labels counted."""
    labels = {"num_labels": len(fields["id2label"])} if isinstance(fields.get("id2label"), Sized) else {}
    return {**{name: value for name, value in fields.items() if name not in _LABELS}, **labels}


def _print(found: dict[str, Any]) -> None:
    """The summary, the configuration, and the tensors with equal layers in one line."""
    what = f"{found['class'] or 'no model here takes it'}, dialect {found['dialect'] or 'not known'}"
    print(f"{shown(found['checkpoint'])}: {what}")
    dtypes = ", ".join(dict.fromkeys(row["dtype"] for row in found["parameters"]))
    tensors = f"{len(found['parameters']):,} tensors"
    print(f"{found['total_parameters']:,} parameters in {dtypes or 'none'}, {tensors}, {found['bytes']:,} bytes")
    for what in ("notes", "problems"):
        for line in found[what]:
            print(f"{what[:-1]}: {line}")
    if found["config"]:
        print()
        print_table([("field", "value"), *sorted(found["config"].items())])
    rows = folded(found["parameters"])
    renamed = any(row["stored_as"] not in (None, row["name"]) for row in rows)
    print()
    print_table(
        [
            ("parameter", "shape", "dtype", *["stored as"] * renamed),
            *(
                (row["name"], " x ".join(map(str, row["shape"])), row["dtype"], *[row["stored_as"] or "-"] * renamed)
                for row in rows
            ),
        ]
    )


def folded(parameters: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for all layers that differ in their numbers only, such as encoder.layer.{0-11}.output.dense.bias."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in parameters:
        alike = _NUMBER.sub(r"\1{}\3", row["name"], count=1)
        groups.setdefault((alike, *row["shape"], row["dtype"]), []).append(row)
    return [
        {**rows[0], **{field: _with_range([row[field] for row in rows]) for field in ("name", "stored_as")}}
        for rows in groups.values()
    ]


def _with_range(names: Sequence[str | None]) -> str | None:
    """Names that differ in one number as one name with all of these numbers; of other names the first."""
    first = names[0]
    found = _NUMBER.search(first or "")
    if first is None or found is None or len(names) == 1:
        return first
    before, after = first[: found.start(2)], first[found.end(2) :]
    numbers = sorted(int(match[2]) for name in names if name and (match := _NUMBER.search(name)))
    if any(name not in {f"{before}{number}{after}" for number in numbers} for name in names):
        return f"{first}, ..."
    whole = numbers == [*range(numbers[0], numbers[-1] + 1)]
    said = f"{numbers[0]}-{numbers[-1]}" if whole else ",".join(map(str, numbers))
    return f"{before}{{{said}}}{after}"
