"""`vitriad doctor`: what is installed and which backends run, to paste into a bug report."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Any

from vit_core.errors import BackendError
from vit_core.installing import install_command
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.printing import print_table

# What brings a framework the GPUs of NVIDIA (CUDA) and of Apple (MPS, Metal).
_CUDA = {
    "torch": "pip install torch, from PyPI and not from the index of CPU builds",
    "tf": "pip install 'tensorflow[and-cuda]'",
    "flax": "pip install 'jax[cuda12]'",
}
_METAL = {
    "torch": "MPS is part of torch, and needs macOS 14 or newer",
    "tf": "pip install tensorflow-metal",
    "flax": "pip install jax-metal",
}
_PROBE_SECONDS = 120  # a cold import of TensorFlow on a slow disk takes half a minute


def run(arguments: Namespace) -> int:
    """Prints the state of this installation."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "backends": {backend: _backend(backend) for backend in BACKENDS},
        "environment": {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND")},
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


def probe(backend: str) -> None:
    """Prints the devices of a backend as a JSON list. Runs in a process of its own: frameworks may crash or hang."""
    model_class("ViTModel", backend)
    if backend == "torch":
        torch = import_module("torch")
        accelerator = torch.accelerator.current_accelerator()
        devices = ["cpu", *(f"{accelerator}:{i}" for i in range(torch.accelerator.device_count()))]
    elif backend == "tf":
        devices = [device.name for device in import_module("tensorflow").config.list_physical_devices()]
    else:
        devices = [str(device) for device in import_module("jax").devices()]
    print(json.dumps(devices))


def _versions() -> dict[str, str | None]:
    """Version of vitriad and of everything it may use; None for what is not installed."""
    wanted = dict.fromkeys(re.split(r"[^\w.-]", line)[0] for line in requires("vitriad") or ())
    return {name: _version(name) for name in ("vitriad", *(name for name in wanted if name != "vitriad"))}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _backend(backend: str) -> dict[str, Any]:
    """The devices of a backend, or the problem with it."""
    if find_spec(BACKENDS[backend].framework) is None:
        return {"problem": f"not installed: {install_command(backend)}"}
    command = [sys.executable, "-P", "-c", f"from vitriad.doctor import probe; probe({backend!r})"]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True)
        devices = json.loads(child.stdout.splitlines()[-1])
        return {"devices": devices, **_idle(backend, devices)}
    except subprocess.TimeoutExpired:
        return {"problem": f"does not import within {_PROBE_SECONDS} seconds"}
    except subprocess.CalledProcessError as error:
        return {"problem": _reason(error)}


def _idle(backend: str, devices: list[str]) -> dict[str, str]:
    """What to install where this machine has a GPU and the framework sees none."""
    if any("cpu" not in device.lower() for device in devices):
        return {}
    if shutil.which("nvidia-smi"):
        return {"idle": f"an NVIDIA GPU is here, and this build does not see it: {_CUDA[backend]}"}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return {"idle": f"an Apple GPU is here, and this build does not see it: {_METAL[backend]}"}
    return {}


def _reason(error: subprocess.CalledProcessError) -> str:
    """The message of the exception that ended the child, or how it died."""
    lines = [line for line in error.stderr.splitlines() if line.strip()]
    raised = next((i for i in reversed(range(len(lines))) if re.match(r"[\w.]+(Error|Exception): ", lines[i])), None)
    if raised is None:
        return f"ended with code {error.returncode}"
    return " ".join(lines[raised:]).removeprefix(f"{BackendError.__module__}.{BackendError.__name__}: ")


def _print(found: dict[str, Any]) -> None:
    print_table([("python", found["python"]), ("platform", found["platform"])])
    print("\nversions")
    print_table([(f"  {name}", known or "not installed") for name, known in found["versions"].items()])
    print("\nbackends")
    print_table(
        [
            (f"  {name}", state["problem"] if "problem" in state else ", ".join(state["devices"]))
            for name, state in found["backends"].items()
        ]
    )
    for name, state in found["backends"].items():
        if "idle" in state:
            print(f"  {name}: {state['idle']}")
    print(f"\nKERAS_BACKEND  {found['environment']['KERAS_BACKEND'] or 'not set'}")
