"""ONNX programs of 8-bit integers, by onnxruntime's quantiser."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vit_core.errors import BackendError
from vit_core.tensors import Array

_BLOCK = 32  # columns that share a scale; 128 kept a cosine of 0.9989 at worst where this kept 0.9998


def quantise(
    source: Path, target: Path, int8: str, kept: Mapping[str, Array], calibration: Sequence[Mapping[str, Array]]
) -> None:
    """Writes a program of integers.

    Args:
        source: program in float32.
        target: file to write.
        int8: one of `vit_core.programs.INT8`.
        kept: the matrices that become integers, (out, in), by name. Converters give them names of their own, so that
            they are found by their values.
        calibration: inputs of the program, for "static".

    Raises:
        BackendError: the program does not hold one of the matrices.
    """
    from onnx import load

    program = load(source)
    nodes = _nodes_of(program, kept)
    if int8 == "weights":
        _weights(program, target, nodes)
        return
    with _quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

        options: dict[str, Any] = {"per_channel": True, "nodes_to_quantize": nodes, "weight_type": QuantType.QInt8}
        if int8 == "dynamic":
            quantize_dynamic(program, target, **options)
        else:
            options["activation_type"] = QuantType.QUInt8
            quantize_static(program, target, _Inputs(calibration), **options)


def _weights(program: Any, target: Path, nodes: list[str]) -> None:
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantiser = MatMulNBitsQuantizer(program, 8, _BLOCK, is_symmetric=False, nodes_to_include=nodes)
        quantiser.process()
        quantiser.model.save_model_to_file(str(target))


def _nodes_of(program: Any, kept: Mapping[str, Array]) -> list[str]:
    """The names of the nodes that multiply with these matrices."""
    from onnx.numpy_helper import to_array

    wanted: dict[tuple[Any, ...], str] = {_key(array.T): name for name, array in kept.items()}
    known = {}
    for tensor in program.graph.initializer:
        if len(tensor.dims) == 2:
            known[tensor.name] = wanted.get(_key(to_array(tensor)))
    nodes, found = [], set()
    for node in program.graph.node:
        name = known.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if name is not None:
            nodes.append(node.name)
            found.add(name)
    if missing := {*wanted.values()} - found:
        raise BackendError(f"int8: the program has no matrix {min(missing)} to quantise.")
    return nodes


def _key(matrix: Array) -> tuple[Any, ...]:
    return matrix.shape, np.ascontiguousarray(matrix, np.float32).tobytes()


class _Inputs:
    """Batches of inputs one after the other, as onnxruntime asks for them."""

    def __init__(self, batches: Sequence[Mapping[str, Array]]) -> None:
        self._left: Iterator[Mapping[str, Array]] = iter(batches)

    def get_next(self) -> Mapping[str, Array] | None:
        """The next batch, or None."""
        return next(self._left, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps reports on single nodes off the screen. What is imported in here sets up the logging of the process."""
    root = logging.getLogger()
    was, handlers, level = root.manager.disable, [*root.handlers], root.level
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(was)
        root.handlers[:] = handlers
        root.setLevel(level)
