"""OpenVINO programs, run by OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino

from vit_core.tensors import Array


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`. Computes in float32, also where the processor has something faster."""
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    program = openvino.Core().compile_model(file, "CPU", options)

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        found = program({name: arrays[name] for name in inputs})
        return [found[port] for port in program.outputs]

    return run
