"""Models as programs without this package: ONNX, OpenVINO and torch.export, each by the library of its makers."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vit_core.config import pair
from vit_core.errors import BackendError
from vit_core.programs import Program
from vit_torch.layers import grid_of

_BATCH = 2  # of the example that is traced; one would be taken for a constant


class TracedProgram(nn.Module):
    """A model as a function from the inputs of a program to its outputs, by position."""

    table: Tensor | None  # (channels, 256)

    def __init__(self, model: Any, program: Program) -> None:
        super().__init__()
        self.model, self.program = model, program
        table = None if program.pixels is None else torch.from_numpy(program.pixels.table)
        self.register_buffer("table", table, persistent=False)

    def forward(self, images: Tensor, beside: Tensor | None = None) -> tuple[Tensor, ...]:
        """The outputs of the program, in its order; `beside` is its second input, where it has one."""
        named = dict(zip((each.name for each in self.program.inputs[1:]), (beside,), strict=False))
        pixel_values = self._pixel_values(images)
        if self.program.model == "ViTMAEModel":  # sees every patch, so that no noise need be drawn in the program
            grid = grid_of(pixel_values, pair(self.program.config.patch_size))
            named["noise"] = pixel_values.new_zeros((pixel_values.shape[0], grid.patches))
        output = self.model(pixel_values, **named, **self.program.options)
        found = self.program.selected(output, lambda patches: patches.mean(dim=1))
        return tuple(each.float() if each.is_floating_point() else each for each in found)

    def _pixel_values(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), floating."""
        if self.table is None or self.program.pixels is None:
            return images
        if self.program.pixels.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        images = images.to(torch.int64)
        return torch.stack([row[images[:, i]] for i, row in enumerate(self.table)], dim=1)


def export_program(model: Any, file: Path, to: str, program: Program) -> None:
    """Writes a program of a model.

    Args:
        model: of the class `program.model`.
        file: to write, in a folder that holds the program alone.
        to: "onnx", "openvino", "pt2" or "aoti".

    Raises:
        BackendError: "aoti" without a C++ compiler.
    """
    traced = TracedProgram(model, program).to(model.device)
    with _quiet(), _for_inference(traced), torch.no_grad():
        {"onnx": _onnx, "openvino": _openvino, "pt2": _pt2, "aoti": _aoti}[to](traced, file, program)


def _onnx(traced: TracedProgram, file: Path, program: Program) -> None:
    names = [each.name for each in program.inputs]
    shapes = _dynamic(program)
    exported: Any = torch.onnx.export(
        *(traced, _examples(traced, program)),
        input_names=names,
        output_names=[*program.outputs],
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
    )
    weights = sum(each.nbytes for each in traced.state_dict().values())
    exported.save(file, external_data=weights > 1_500_000_000)  # protobuf holds 2 GB


def _openvino(traced: TracedProgram, file: Path, program: Program) -> None:
    openvino = _without_reports()
    converted = openvino.convert_model(traced, example_input=_examples(traced, program))
    for port, each in zip(converted.inputs, program.inputs, strict=True):
        port.get_tensor().set_names({each.name})
    converted.reshape(
        {each.name: [side if isinstance(side, int) else -1 for side in each.shape] for each in program.inputs}
    )
    for port, name in zip(converted.outputs, program.outputs, strict=True):
        port.get_tensor().set_names({name})
    openvino.save_model(converted, file, compress_to_fp16=False)


def _pt2(traced: TracedProgram, file: Path, program: Program) -> None:
    exported = torch.export.export(traced, _examples(traced, program), dynamic_shapes=_dynamic(program))
    torch.export.save(exported, file)


def _aoti(traced: TracedProgram, file: Path, program: Program) -> None:
    """Machine code for processors like this one, by AOTInductor."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # only now: it takes a second to import
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise BackendError(
            "aoti: torch needs a C++ compiler here, and found none.\nInstall g++ or clang++, or name one in CXX."
        ) from None
    exported = torch.export.export(traced, _examples(traced, program), dynamic_shapes=_dynamic(program))
    torch._inductor.aoti_compile_and_package(exported, package_path=str(file))


def _examples(traced: TracedProgram, program: Program) -> tuple[Tensor, ...]:
    """Inputs to trace with: of the program's size, or of one that is not the configuration's."""
    height, width = program.example_size
    sides = {"batch": _BATCH, "height": height, "width": width, "patches": program.patches(height, width)}
    examples = []
    for each in program.inputs:
        shape = [side if isinstance(side, int) else sides[side] for side in each.shape]
        examples.append(torch.zeros(shape, dtype=getattr(torch, each.dtype), device=traced.model.device))
    return tuple(examples)


def _dynamic(program: Program) -> tuple[Mapping[int, Any], ...]:
    """Which axes of every input may have any length."""
    free = torch.export.Dim.DYNAMIC
    return tuple(
        {axis: free for axis, side in enumerate(each.shape) if isinstance(side, str)} for each in program.inputs
    )


@contextmanager
def _for_inference(module: nn.Module) -> Iterator[None]:
    """Parameters without gradients inside the block."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval().requires_grad_(False)  # the model itself is in this mode already
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the converters say of their own parts off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _without_reports() -> Any:
    """OpenVINO, which reports every conversion to its makers where the package for that can be imported."""
    was = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return import_module("openvino")
    finally:
        if was is None:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = was
