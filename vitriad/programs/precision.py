"""Programs in less than float32: which tool makes them in which format, and how far they may be off."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_core.errors import InputError
from vit_core.images.files import open_image
from vit_core.programs import Program, Spared, quantised
from vit_core.tensors import FLOAT_DTYPES, Array
from vitriad.backends import BACKENDS
from vitriad.engines import ENGINES

# The largest error of a float, as a share of the largest value: what `vitriad parity` allows a forward pass.
FLOATS = {"float32": 1e-5, "bfloat16": 1e-1, "float16": 1.7e-2}
# The smallest cosine of a picture that 8-bit integers may have.
COSINES = {"weights": 0.997, "dynamic": 0.997, "static": 0.99}
RECOMMENDED = 0.99  # a program of a smaller cosine is written if that is asked for, and its certificate says so


class Tool(NamedTuple):
    """What makes the programs of one format and precision.

    Attributes:
        distributions: what pip calls it, beside the converter.
        spared: the layers that it leaves in float32; behind each choice stand the figures of docs/guides/export.md.
    """

    distributions: tuple[str, ...] = ()
    spared: Spared = Spared()


_PLAIN = Tool()  # the converter itself
_CAST = Tool()  # the model is cast, and exported like any
_ALL = Spared(ends=True, second=True)

_TORCH: Mapping[str, Tool | str] = {
    "bfloat16": _CAST,
    "float16": _CAST,
    "int8 weights": Tool(("torchao",)),
    "int8 dynamic": "torchao's program needs torchao wherever it runs",
    "int8 static": "torchao's program needs torchao wherever it runs",
}
# Format -> precision -> its tool, or why there is none.
TOOLS: Mapping[str, Mapping[str, Tool | str]] = {
    "onnx": {
        "bfloat16": "onnxruntime computes no bfloat16 on the CPU",
        "float16": _CAST,
        "int8 weights": Tool(("onnxruntime",)),
        "int8 dynamic": Tool(("onnxruntime",), _ALL),
        "int8 static": Tool(("onnxruntime",), _ALL),
    },
    "openvino": {
        "bfloat16": _CAST,
        "float16": _CAST,
        "int8 weights": Tool(("nncf",)),
        "int8 dynamic": Tool(("nncf",)),
        "int8 static": Tool(("nncf",), Spared(ends=True)),
    },
    "pt2": _TORCH,
    "aoti": _TORCH,
    "litert": {
        "bfloat16": "LiteRT has no bfloat16",
        "float16": _PLAIN,
        "int8 weights": "TensorFlow's converter has no integers that are weights alone",
        "int8 dynamic": _PLAIN,
        "int8 static": "TensorFlow's converter puts every operation into integers: a cosine of 0.44 was measured",
    },
    "savedmodel": {
        "bfloat16": _CAST,
        "float16": _CAST,
        "int8 weights": _PLAIN,
        "int8 dynamic": Tool((), _ALL),
        "int8 static": "Keras has no calibration",
    },
    "stablehlo": {
        "bfloat16": _CAST,
        "float16": _CAST,
        **dict.fromkeys(("int8 weights", "int8 dynamic", "int8 static"), "JAX has no tool that quantises a model"),
    },
}
_ON_MODELS = ("pt2", "aoti", "savedmodel")  # whose tools change the model; the others change the program
_BY_CONVERTER = "litert"


def tool_of(to: str, backend: str, program: Program) -> Tool:
    """What makes a program in its precision.

    Raises:
        InputError: there is no such tool.
    """
    if program.precision == "float32":
        return _CAST
    found = TOOLS[to][program.precision]
    if to == "onnx" and backend == "flax":
        found = "of programs that jax2onnx writes, only float32 ones are known to be right"
    if isinstance(found, str):
        known = [name for name, tool in TOOLS[to].items() if isinstance(tool, Tool)]
        others = [name for name, each in TOOLS.items() if isinstance(each[program.precision], Tool)]
        raise InputError(
            f"{to}: {program.precision} is not offered: {found}.\n"
            f"{to} can be {', '.join(['float32', *known])}; {program.precision} can be had as {', '.join(others)}."
        )
    return found


def check_calibration(int8: str | None, calibration: Sequence[str | Path], pictures: Sequence[str | Path]) -> None:
    """Raises unless there are calibration images for what needs them, apart from those that measure the loss.

    Raises:
        InputError: they are missing, or not needed, or one of them is among `pictures`.
        ImageError: one cannot be read.
    """
    if int8 != "static":
        if calibration:
            raise InputError(f"calibration: only for int8='static', got int8={int8!r}.")
        return
    if not calibration:
        raise InputError(
            "int8='static' takes its scales from images: calibration= (--calibration), a few dozen like those that the "
            "program is for."
        )
    known = {*map(_digest, calibration)}
    for each in pictures:
        if _digest(each) in known:
            raise InputError(
                f"pictures: {each} is among the calibration images, and would show too small a loss.\n"
                "Measure with others: pictures= (--images)."
            )


def _digest(picture: str | Path) -> bytes:
    image = open_image(picture)
    return hashlib.sha256(f"{image.size} {image.mode}".encode() + image.tobytes()).digest()


def reduced_model(model: Any, backend: str, to: str, program: Program, tool: Tool) -> Any:
    """The model of a backend to export: itself, or a copy that is cast, or whose matrices are integers."""
    is_cast = program.dtype != "float32" and to != _BY_CONVERTER
    is_quantised = program.int8 is not None and to in _ON_MODELS
    if not is_cast and not is_quantised:
        return model
    tensors: Mapping[str, Array] = model.canonical_tensors()
    if is_cast:
        tensors = {name: array.astype(FLOAT_DTYPES[program.dtype]) for name, array in tensors.items()}
    copy = type(model).from_tensors(model.config, tensors, **model.options)
    if is_quantised:
        modules = quantised(tensors, tool.spared)
        import_module(f"{BACKENDS[backend].package}.quantising").quantise(copy, modules, program.int8)
    return copy


def is_made_from_file(to: str, program: Program) -> bool:
    """Whether the program is made of one in float32, and not of a model."""
    return program.int8 is not None and to not in (*_ON_MODELS, _BY_CONVERTER)


def quantise_file(
    source: Path, target: Path, model: Any, to: str, program: Program, tool: Tool, calibration: Sequence[Any]
) -> None:
    """Writes a program of integers.

    Args:
        source: folder of the same program in float32.
        target: folder to write it to.
        model: that both compute.
        calibration: inputs of the program.
    """
    tensors = model.canonical_tensors()
    kept = {module: np.asarray(tensors[f"{module}.weight"]) for module in quantised(tensors, tool.spared)}
    module = import_module(f"vitriad.programs.quantise_{to}")
    file = ENGINES[to].file
    module.quantise(source / file, target / file, program.int8, kept, calibration)
