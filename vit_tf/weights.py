"""The weights of a model: fresh values, those of a checkpoint in Keras' layout, and pruning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from conversion.layouts import AXES as LAYOUTS
from conversion.layouts import canonical_axes, from_canonical
from vit_core.config import PretrainedConfig
from vit_core.files.arrays import copied
from vit_core.files.reading import being_read
from vit_core.parameters import Kind, Parameter, sincos_of
from vit_core.tensors import Array, to_numpy
from vit_tf import _keras
from vit_tf.modules import VALUE, setting

Ready = Callable[[], Any]  # waits for a tensor in Keras' layout
given: ContextVar[Mapping[str, Ready] | None] = ContextVar("given", default=None)  # by canonical name


@contextmanager
def laid_out(
    table: Mapping[str, Parameter], tensors: Mapping[str, Any], release: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Models made in here start with these tensors (by canonical name), which threads bring into Keras' layout.

    `release` is that of `being_read`.
    """

    def change(name: str, value: Any) -> Any:
        return _laid_out(value, table[name].kind)

    with being_read(tensors, change, release) as ready, setting(given, ready):
        yield


def _laid_out(value: Any, kind: Kind) -> Any:
    """A tensor in Keras' layout. TensorFlow takes over the memory that NumPy copied it into."""
    axes = canonical_axes(kind, "keras")
    if not isinstance(value, np.ndarray) or value.dtype.name == "bfloat16":  # which NumPy cannot hand over
        return value if axes is None else tf.transpose(value, axes)
    array = copied(value) if axes is None else from_canonical(value, kind, "keras")
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def canonical(value: Tensor, row: Parameter | None) -> Array:
    """The values of a weight in the canonical layout; those of a weight that is not in the table as they are."""
    axes = row and LAYOUTS["keras"].get(row.kind)
    return to_numpy(tf.transpose(value, axes) if axes else value)  # five times as fast as NumPy


def prune(attention: Any, heads: Sequence[int]) -> None:
    """Cuts heads out of one attention: columns of query, key and value, rows of the output."""
    kept = [place for place, head in enumerate(attention.heads) if head not in heads]
    places = np.arange(len(attention.heads) * attention.head_dim).reshape(-1, attention.head_dim)[kept].flatten()
    for projection in attention.attention.values():
        kernel, *bias = projection.get_weights()
        _rebuild(projection, kernel[:, places], *(values[places] for values in bias))
    dense = attention.attention_output["dense"]
    kernel, bias = dense.get_weights()
    _rebuild(dense, kernel[places], bias)
    attention.heads = tuple(attention.heads[place] for place in kept)


def _rebuild(dense: keras.layers.Dense, kernel: Array, bias: Array | None = None) -> None:
    """Gives a dense layer weights of another shape, for which Keras has no public way."""
    _keras.forget_weights(dense)
    dense.units = kernel.shape[1]
    dense.kernel_initializer = keras.initializers.Constant(kernel)
    dense.bias_initializer = keras.initializers.Constant(0.0 if bias is None else bias)
    dense.build((None, None, kernel.shape[0]))
    dense.kernel_initializer = dense.bias_initializer = VALUE
    dense.trainable = dense.trainable  # for the new weights too


def fresh(row: Parameter, config: PretrainedConfig, dtype: Any) -> Any:
    """Fresh values of a row in Keras' layout, from Keras' global seed."""
    kind, value = row.init
    axes = canonical_axes(row.kind, "keras") or range(len(row.shape))
    shape = tuple(row.shape[axis] for axis in axes)
    if kind == "trunc_normal":
        return _truncated_normal(shape, value, dtype)
    if kind == "normal":
        return keras.random.normal(shape, mean=0.0, stddev=value, dtype=dtype)
    if kind == "uniform":
        return keras.random.uniform(shape, minval=-value, maxval=value, dtype=dtype)
    if kind == "sincos":
        return ops.cast(sincos_of(row, config), dtype)
    return ops.full(shape, value, dtype=dtype)


def _truncated_normal(shape: tuple[int, ...], deviation: float, dtype: Any) -> Tensor:
    """Normal numbers of mean 0, cut at -2 and 2.

    Differs: Keras cuts at two deviations.
    """
    inside = math.erf(2 / (deviation * math.sqrt(2)))
    uniform = keras.random.uniform(shape, minval=-inside, maxval=inside, dtype="float64")
    return ops.cast(deviation * math.sqrt(2) * ops.erfinv(uniform), dtype)
