"""ONNX programs, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from vit_core.errors import CheckpointError, MissingFileError, UnsafeFileError
from vit_core.files.json import read_json
from vit_core.tensors import Array
from vitriad.engines import DESCRIPTION

_TYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "BFLOAT16": "BF16", "DOUBLE": "FP64", "UINT8": "UINT8", "BOOL": "BOOL"}
_Tensor = tuple[str, str, tuple[int, ...]]  # name, type, sides; -1 for a side that may be any


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
    _check_beside(file)
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]  # in order; a converter may have renamed them
    known = {each.name for each in session.get_outputs()}
    wanted = [*outputs] if known == {*outputs} else None

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        found: Sequence[Array] = session.run(wanted, dict(zip(names, (arrays[name] for name in inputs), strict=True)))
        return found

    return run


def _check_beside(file: Path) -> None:
    """Raises unless the files that a program keeps its weights in are recorded like itself.

    Raises:
        MissingFileError: one is not there.
        UnsafeFileError: one that vitriad.json does not name, so that nobody compared it with a digest.
    """
    graph = onnx.load(file, load_external_data=False).graph
    entries = [entry for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"]
    known = None
    if (description := file.with_name(DESCRIPTION)).is_file():  # not while it is being exported
        known = read_json(description, limit="index_bytes", error=CheckpointError, within=True)["files"]
    for name in dict.fromkeys(entry.value for entry in entries):
        if known is not None and name not in known:
            raise UnsafeFileError(f"{file}: has weights in {name[:80]!r}, which {DESCRIPTION} does not name: not read.")
        if not file.with_name(name).is_file():
            raise MissingFileError(f"{file}: its weights are in {name[:80]!r}, and that is not there.")


def signature(file: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    """The inputs and the outputs of a program, each as its name, its type as protocols call it, and its sides."""
    graph = onnx.load(file, load_external_data=False).graph
    return [_described(each) for each in graph.input], [_described(each) for each in graph.output]


def _described(value: Any) -> _Tensor:
    tensor = value.type.tensor_type
    sides = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)
    return value.name, _TYPES[onnx.TensorProto.DataType.Name(tensor.elem_type)], sides
