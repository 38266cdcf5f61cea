"""Programs that AOTInductor has compiled to machine code, run by torch alone.

Whoever wrote one can make it do anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vit_core.tensors import Array, to_numpy


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
    if threads is not None:
        torch.set_num_threads(threads)
    program: Any = torch._inductor.aoti_load_package(str(file))

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        with torch.no_grad():
            found = program(*(torch.from_numpy(arrays[name]) for name in inputs))
        return [to_numpy(each) for each in found]

    return run
