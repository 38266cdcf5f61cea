"""Reading a checkpoint in several threads: each tensor is brought into its form once, and maps are given back."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from vit_core.files.arrays import LazyArray
from vit_core.tensors import Array

_MOST = 8  # threads: by then memory is what all of them wait for


def readers() -> ThreadPoolExecutor:
    """Threads to read with: one for each processor that this process may use, up to eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(min(cores, _MOST), "reading")


@contextmanager
def being_read(
    tensors: Mapping[str, LazyArray | Array],
    change: Callable[[str, Array], Any],
    release: Callable[[], object] = lambda: None,
) -> Iterator[dict[str, Callable[[], Any]]]:
    """Inside, threads read tensors in their order.

    Args:
        tensors: by name.
        change: called with the name and the data of each, in a thread; what it returns is kept until the end.
        release: called when a tensor was changed: gives the memory back that its file was mapped into.

    Yields:
        name -> function that waits for what became of the tensor, and raises what reading it raised.
    """

    def read(name: str) -> Any:
        tensor = tensors[name]
        found = change(name, tensor.read() if isinstance(tensor, LazyArray) else tensor)
        release()
        return found

    pool = readers()
    try:
        yield {name: pool.submit(read, name).result for name in tensors}
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def uncollected() -> Iterator[None]:
    """Turns garbage collection off inside the block, where it finds nothing.

    With 100,000 names it takes most of the time, and a third of what the layers of a large Keras model take to be made.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
