"""LiteRT programs, once TensorFlow Lite, run by ai-edge-litert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from vit_core.tensors import Array


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
    serve = Interpreter(model_path=str(file), num_threads=threads).get_signature_runner()

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        found = serve(**{name: arrays[name] for name in inputs})
        return [found[name] for name in outputs]

    return run
