"""`vitriad deploy`: a model as a folder that TensorFlow Serving, Triton, Docker, Kubernetes, KServe or Vertex AI runs.

TensorFlow Serving and Triton run exported programs. The others run `vitriad serve` in an image, made from the files in
`deployments/`: plain files with `{{words}}` to fill in.
"""

from __future__ import annotations

import math
import platform
import re
import shutil
from argparse import Namespace
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from conversion.converting import convert
from vit_core.errors import CheckpointError, InputError
from vit_core.files.atomic_folder import replacing, sync_files, write_file
from vit_core.files.targets import check_target
from vit_core.installing import own_source, own_version
from vitriad.artefacts import CERTIFICATE, Artefact, read_artefact
from vitriad.engines import DESCRIPTION, artefact_folder
from vitriad.models import find
from vitriad.naming import named
from vitriad.programs.exporting import export

TEMPLATES = Path(__file__).parent / "deployments"
PROGRAMS = {"tfserving": "savedmodel", "triton": "onnx"}  # layouts of programs -> their format
IMAGES = {  # layouts of images -> what they have beside the image
    "docker": (),
    "kubernetes": ("kubernetes.yaml", "kserve.yaml"),
    "vertex": ("vertex.sh",),
}
INSTALLED = (  # in an image: what vitriad needs, and its extras torch and serve
    *("numpy", "pillow", "safetensors", "ml_dtypes", "huggingface_hub", "tqdm", "torch"),
    *("starlette", "uvicorn", "h11", "prometheus_client"),
)
_ROWS, _DELAY = 32, 5_000  # images of a batch, microseconds: as `vitriad serve` has them
_BASE, _PER_BYTE, _STEP = 1 << 30, 4, 512 << 20  # bytes of memory of a container: torch, of its weights, rounded up to
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")  # what Docker and Kubernetes take as a name


def run(arguments: Namespace) -> int:
    """Writes the folder, and prints what to do with it."""
    print(deploy(arguments.model, arguments.target, arguments.to, force=arguments.force))
    return 0


def deploy(model: str, path: str | Path, to: str, *, force: bool = False) -> str:
    """Writes a folder that another program runs.

    Args:
        model: what `vitriad.load` takes, behind NAME= or NAME@VERSION= if it is to be called something else. For
            "tfserving" and "triton" also a program that was exported to their format, with the options of that.
        path: the folder. Of "tfserving" and "triton" it may hold other models, and other versions of this one.
        to: "tfserving", "triton", "docker", "kubernetes" or "vertex".
        force: replace what is there.

    Returns:
        what to do with it.

    Raises:
        InputError: a layout, a name or a program that cannot be used.
        CheckpointError: something is there already, or the folder cannot be written.
    """
    if to not in (*PROGRAMS, *IMAGES):
        raise InputError(f"to: expected one of {', '.join((*PROGRAMS, *IMAGES))}, got {to[:80]!r}.")
    check_target(path, is_folder=True, error=CheckpointError)
    wanted = _Wanted(*named(model), Path(path), force)
    return {"tfserving": _tfserving, "triton": _triton}[to](wanted) if to in PROGRAMS else _image(wanted, to)


class _Wanted(NamedTuple):
    """What is to be written: a model and where."""

    name: str
    version: str
    source: str
    path: Path
    force: bool


# --- programs --------------------------------------------------------------------------------------------------------


def _tfserving(wanted: _Wanted) -> str:
    """A SavedModel in a folder of its version, and the lists of all models in the folder."""
    folder = _program(wanted, "tfserving").folder
    models = sorted({file.parent.parent.name for file in wanted.path.glob("*/*/saved_model.pb")})
    blocks = "\n".join(
        f'  config {{ name: "{each}" base_path: "/models/{each}" model_platform: "tensorflow" }}' for each in models
    )
    command = f"docker run --rm -p 127.0.0.1:8501:8501 -v {wanted.path.resolve()}:/models:ro tensorflow/serving"
    command += " --model_config_file=/models/models.config"
    command += " --enable_batching --batching_parameters_file=/models/batching.config"
    head = "# TensorFlow Serving reads this: --model_config_file=/models/models.config"
    _write(wanted.path / "models.config", f"{head}\nmodel_config_list {{\n{blocks}\n}}\n")
    _write(wanted.path / "batching.config", _filled("batching.config", {}))
    return f"{folder}: {wanted.name}, version {wanted.version}\n{command}"


def _triton(wanted: _Wanted) -> str:
    """An ONNX program in a folder of its version, and its configuration, read from the program itself."""
    from vitriad.engines.onnx import signature  # brings onnxruntime

    artefact = _program(wanted, "triton")
    folder = wanted.path / wanted.name
    labels = artefact.program.config.id2label if artefact.program.purpose == "logits" else {}
    _write(folder / "config.pbtxt", _pbtxt(wanted.name, *signature(artefact.folder / "model.onnx"), bool(labels)))
    if labels:
        _write(folder / "labels.txt", "".join(f"{' '.join(labels[i].split())}\n" for i in range(len(labels))))
    command = f"docker run --rm -p 127.0.0.1:8000:8000 -v {wanted.path.resolve()}:/models:ro"
    command += " nvcr.io/nvidia/tritonserver:VERSION-py3 tritonserver --model-repository=/models"
    return f"{artefact.folder}: {wanted.name}, version {wanted.version}\n{command}"


def _program(wanted: _Wanted, to: str) -> Artefact:
    """The program in the folder of its version: exported there, or copied, if the model is one."""
    folder, source = wanted.path / wanted.name / wanted.version, find(wanted.source)
    given = artefact_folder(source)
    if given is None:
        export(source, folder, PROGRAMS[to], force=wanted.force)
        return read_artefact(folder)
    artefact = read_artefact(given)
    if artefact.to != PROGRAMS[to]:
        raise InputError(f"deploy: {to} runs programs of {PROGRAMS[to]}, {given} is one of {artefact.to}.")
    _check_free(folder, wanted.force)
    names = [*artefact.files, DESCRIPTION, CERTIFICATE]
    size = sum((given / name).stat().st_size for name in names)
    parts = {name.partition("/")[0] for name in names if "/" in name}
    with replacing(folder, size=size, is_replaced=lambda _: True, folders=parts) as new:
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(given / name, new / name)
        sync_files(new)
    return read_artefact(folder)


def _pbtxt(name: str, inputs: Collection[Any], outputs: Collection[Any], has_labels: bool) -> str:
    """The configuration of Triton for a program with such inputs and outputs: (name, type, dims), -1 for any."""
    every = [*inputs, *outputs]
    is_batched = all(dims[:1] == (-1,) for _, _, dims in every)  # else Triton is told all sides, and puts none together
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', 'default_model_filename: "model.onnx"']
    lines += [f"max_batch_size: {_ROWS if is_batched else 0}"]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for called, dtype, dims in tensors:
            sides = ", ".join(map(str, dims[is_batched:]))
            named = ' label_filename: "labels.txt"' if has_labels and called == "logits" else ""
            lines.append(f'{kind} [ {{ name: "{called}" data_type: TYPE_{dtype} dims: [ {sides} ]{named} }} ]')
    if is_batched:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY} }}")
    return "\n".join([f"# {name} for Triton, read from its ONNX program", *lines, ""])


# --- images ----------------------------------------------------------------------------------------------------------


def _image(wanted: _Wanted, to: str) -> str:
    """What an image of `vitriad serve` is built from, and what runs it."""
    if not _LABEL.fullmatch(wanted.name):
        raise InputError(
            f"deploy: {wanted.name}: images and services need a name of small letters, digits and -.\n"
            f"Give it one: my-vit={wanted.source}"
        )
    if artefact_folder(find(wanted.source)) is not None:
        raise InputError(f"deploy: {wanted.source} is an exported program; an image takes the checkpoint.")
    _check_free(wanted.path, wanted.force)
    path = wanted.path
    convert(find(wanted.source), path / "model", to="hf", force=wanted.force)
    weights = sum(file.stat().st_size for file in (path / "model").glob("*.safetensors"))
    values = {
        "name": wanted.name,
        "version": wanted.version,
        "image": f"{wanted.name}:{wanted.version}",
        "python": ".".join(platform.python_version_tuple()[:2]),
        "vitriad": own_version(),
        "memory": f"{_memory(weights) >> 20}Mi",
    }
    for file in ("Dockerfile", *IMAGES[to]):
        _write(path / file, _filled(file, values))
        (path / file).chmod(0o755 if file.endswith(".sh") else 0o644)
    _write(path / "constraints.txt", _constraints())
    (path / "wheels").mkdir(exist_ok=True)
    wheel = f"pip wheel --no-deps --wheel-dir wheels {own_source()}"
    _write(path / "wheels" / "README", f"A wheel of vitriad in this folder goes before the package index:\n{wheel}\n")
    command = "./vertex.sh" if to == "vertex" else f"docker build --tag {values['image']} ."
    after = "\nkubectl apply -f kubernetes.yaml" if to == "kubernetes" else ""
    return f"{path}: {wanted.name}, version {wanted.version}\ncd {path.resolve()}\n{wheel}\n{command}{after}"


def _memory(weights: int) -> int:
    """Bytes of memory of a container for a model with so many bytes of weights."""
    return math.ceil((_BASE + _PER_BYTE * weights) / _STEP) * _STEP


def _constraints() -> str:
    """The versions that this copy runs with, of what the image installs; of what is not here pip takes the newest."""
    found = []
    for name in INSTALLED:
        with suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name).partition('+')[0]}\n")  # torch 2.13.0+cpu
    return "".join(found)


# --- files -----------------------------------------------------------------------------------------------------------


def _check_free(folder: Path, force: bool) -> None:
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(f"{folder}: something is there already.\n--force replaces it.")


def _filled(file: str, values: Mapping[str, str]) -> str:
    """A file of `deployments/` with its words filled in."""
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda word: values[word[1]], text)


def _write(path: Path, text: str) -> None:
    write_file(path, text, error=CheckpointError)
