"""StableHLO programs of jax.export, run by JAX alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

from vit_core.errors import InputError
from vit_core.tensors import Array


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
    if threads is not None:
        raise InputError("threads: XLA settles by itself how many it uses; limit the process, as by taskset.")
    program = export.deserialize(bytearray(file.read_bytes()))
    weights = {name: jax.device_put(array) for name, array in load_file(file.with_suffix(".safetensors")).items()}
    call = jax.jit(program.call)

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        return [np.asarray(each) for each in call(weights, *(arrays[name] for name in inputs))]

    return run
