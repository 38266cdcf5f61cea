"""ONNX programs, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from vit_core.tensors import Array


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
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
