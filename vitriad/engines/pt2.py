"""Programs of torch.export, run by torch alone.

torch.export.load unpickles, evaluates texts and loads machine code where a file asks for it. So a file is looked
through first, by torch's own reader: one that holds more than tensors and the operators of a model is refused.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch.export.pt2_archive._package import PT2ArchiveReader

from vit_core.errors import UnsafeFileError
from vit_core.tensors import Array, to_numpy

_NAMES = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_TENSORS = re.compile(r"weight_\d+|tensor_\d+")
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+|torch\.sym_\w+|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
)
# Of the texts of sizes, which torch evaluates: their characters, and what they may call; they reach no attribute.
_SIZE = re.compile(r"[\w\s()+*/<>=,'-]*")
_BEFORE = re.compile(r"([\w)'\s]*)\(")
_CALLED = {"", "Add", "FloorDiv", "Integer", "Max", "Min", "Mod", "Mul", "Pow", "Symbol"}
_CALLED |= {
    "And",
    "Equality",
    "GreaterThan",
    "LessThan",
    "Not",
    "Or",
    "StrictGreaterThan",
    "StrictLessThan",
    "Unequality",
}


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
    check_archive(file)
    if threads is not None:
        torch.set_num_threads(threads)
    program = torch.export.load(file).module()

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        with torch.no_grad():
            found = program(*(torch.from_numpy(arrays[name]) for name in inputs))
        return [to_numpy(each) for each in found]

    return run


def check_archive(file: Path) -> None:
    """Raises where torch.export.load would do more than make tensors and a graph of a model's operators.

    Raises:
        UnsafeFileError: naming what the file holds.
    """
    with ZipFile(file) as older:  # torch takes one without a folder for one of its older form
        wrong = next((repr(name) for name in older.namelist() if "/" not in name), None)
    if wrong is None:
        with PT2ArchiveReader(str(file)) as archive:
            wrong = next(_more_than_a_graph(archive), None)
    if wrong is not None:
        raise UnsafeFileError(f"{file}: holds {wrong}, more than the tensors and operators of a model: not loaded.")


def _more_than_a_graph(archive: Any) -> Iterator[str]:
    for name in archive.get_file_names():
        if not _NAMES.fullmatch(name):
            yield "machine code" if name.startswith("data/aotinductor/") else repr(name)
        if name.endswith("_config.json"):
            for tensor in json.loads(archive.read_string(name))["config"].values():
                if tensor["use_pickle"] is not False or not _TENSORS.fullmatch(tensor["path_name"]):
                    yield f"a pickle in {name}"
    try:
        torch.load(io.BytesIO(archive.read_bytes("data/sample_inputs/model.pt")), weights_only=True)
    except Exception:  # torch would go on with everything else then
        yield "a pickle in data/sample_inputs/model.pt"
    for key, value in _texts(json.loads(archive.read_string("models/model.json"))):
        if key == "target" and not _OPERATORS.fullmatch(value):
            yield f"a call of {value[:80]!r}"
        if key == "expr_str" and not _is_size(value):
            yield f"the text {value[:80]!r}, which torch would evaluate"


def _is_size(text: str) -> bool:
    return _SIZE.fullmatch(text) is not None and {each.strip() for each in _BEFORE.findall(text)} <= _CALLED


def _texts(said: Any) -> Iterator[tuple[str, str]]:
    """Every text in JSON with the key before it, at any depth."""
    parts = [("", said)]
    while parts:
        key, part = parts.pop()
        if isinstance(part, str):
            yield key, part
        elif isinstance(part, dict):
            parts += part.items()
        elif isinstance(part, list):
            parts += [(key, each) for each in part]
