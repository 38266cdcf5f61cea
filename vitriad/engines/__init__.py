"""The engines that run exported programs, one module for each: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from vit_core.errors import BackendError, InputError, MissingFileError
from vit_core.installing import install_command
from vit_core.plain_values import short
from vit_core.tensors import Array

_TIMEOUT = 3600  # seconds of a process, for the largest models

Run = Callable[[Mapping[str, Array]], Sequence[Array]]


class Engine(NamedTuple):
    """What runs the programs of one format.

    Attributes:
        package: the module that must be installed.
        distribution: what pip calls it.
        extra: the extra of vitriad that brings it.
        file: what the program is called in its folder; "" for the folder itself.
        is_machine_code: whether the program can do whatever its author wants.
    """

    package: str
    distribution: str
    extra: str
    file: str
    is_machine_code: bool = False


# By format. The module of each is called like the format. "aoti" is "pt2" compiled to machine code.
ENGINES = {
    "onnx": Engine("onnxruntime", "onnxruntime", "onnx", "model.onnx"),
    "openvino": Engine("openvino", "openvino", "openvino", "model.xml"),
    "pt2": Engine("torch", "torch", "torch", "model.pt2"),
    "aoti": Engine("torch", "torch", "torch", "model.pt2", is_machine_code=True),
    "litert": Engine("ai_edge_litert", "ai-edge-litert", "litert", "model.tflite"),
    "savedmodel": Engine("tensorflow", "tensorflow", "tf", "saved_model.pb"),
    "stablehlo": Engine("jax", "jax", "flax", "model.stablehlo"),
}


DESCRIPTION = "vitriad.json"  # what describes a program, in its folder; see `vitriad.artefacts`


def artefact_folder(path: str | Path) -> Path | None:
    """The folder of the exported program that a path names, itself or by a file in it; None for anything else.

    Raises:
        MissingFileError: there is a program in the folder, and nothing that describes it.
    """
    if not path or not isinstance(path, str | os.PathLike):
        return None
    path, files = Path(path), {engine.file for engine in ENGINES.values()}
    folder = path.parent if path.name in files and path.is_file() else path
    if os.path.lexists(folder / DESCRIPTION):
        return folder
    alone = next((file for file in files if (path / file).is_file()), None)
    if alone and not (path / "config.json").is_file():
        raise MissingFileError(
            f"{path}: {alone} is a program without its {DESCRIPTION}, which says what it takes and returns.\n"
            "Run it with its engine, or write it with: vitriad export"
        )
    return None


def check_engine(path: str | Path, backend: str) -> None:
    """Raises for an engine that is asked to run a checkpoint.

    Raises:
        InputError: `backend` is a format, and `path` is no exported program.
    """
    if backend in ENGINES and artefact_folder(path) is None:
        raise InputError(
            f"backend: {backend} runs exported programs, and {path} is none.\n"
            f"Write one first, and name its folder: vitriad export {path} {Path(path).stem}-{backend} --to {backend}"
        )


def engine_of(to: str) -> Engine:
    """The engine of a format.

    Raises:
        InputError: no such format.
        BackendError: the engine is not installed.
    """
    if to not in ENGINES:
        raise InputError(f"to: expected one of {', '.join(ENGINES)}, got {short(to)}.")
    engine = ENGINES[to]
    if find_spec(engine.package) is None:
        raise BackendError(
            f"{to}: needs {engine.distribution}, which is not installed.\n"
            f"Install it with: {install_command(engine.extra)}"
        )
    return engine


def open_program(folder: Path, to: str, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Run:
    """A program as a function from its inputs by name to its outputs, in order.

    Args:
        threads: how many it may use; None leaves that to the engine.
    """
    engine = engine_of(to)
    opened: Run = import_module(f"vitriad.engines.{to}").open_program(folder / engine.file, inputs, outputs, threads)
    return opened


def engine_version(to: str) -> str:
    """Name and version of an engine, such as "onnxruntime 1.32.0"."""
    name = ENGINES[to].distribution
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:  # a build under another name, such as tensorflow-cpu
        return name


def run_apart(module: str, asked: Mapping[str, Any], files: Sequence[Path], failed: str) -> str:
    """What a module of this package prints in a process of its own, which finds the modules that this one finds.

    Args:
        module: "worker" or "race".
        asked: what to do, its first argument as JSON.
        files: the arguments after it.
        failed: what to say if it fails, before its last line.

    Raises:
        BackendError: it failed.
    """
    command = [sys.executable, "-m", f"vitriad.engines.{module}", json.dumps(asked), *map(str, files)]
    # TensorFlow keeps its notes to itself
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{failed}:\n{last[:300]}")
    return done.stdout
