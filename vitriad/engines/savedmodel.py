"""SavedModels, run by TensorFlow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from vit_core.errors import InputError
from vit_core.tensors import Array


def open_program(file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Any:
    """See `vitriad.engines.open_program`."""
    if threads is not None:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise InputError("threads: TensorFlow is at work already; load this program first.") from None
    loaded = tf.saved_model.load(str(file.parent))
    serve = loaded.signatures["serving_default"]

    def run(arrays: Mapping[str, Array]) -> Sequence[Array]:
        found = serve(**{name: tf.constant(arrays[name]) for name in inputs})
        return [found[name].numpy() for name in outputs]

    return run
