"""Rows of a data set, such as one of the hub's `datasets`, as batches for `fit`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from vit_core.errors import InputError
from vit_core.tensors import Array

LABELS = ("labels", "label", "label_ids")  # names of the column with the classes

Batch = Callable[[list[Any]], dict[str, Array]]  # rows -> columns


def collated(rows: list[Mapping[str, Any]]) -> dict[str, Array]:
    """The columns of rows that can be stacked, as arrays; others are left out."""
    columns = {name: [np.asarray(row[name]) for row in rows] for name in rows[0]}
    return {name: np.stack(values) for name, values in columns.items() if values[0].dtype.kind in "biuf"}


def column_reader(dataset: Any, collate: Callable[..., Any], inputs: Collection[str], dtype: str, where: str) -> Batch:
    """What reads rows by number as the columns that a model takes, the labels under the name "labels".

    Raises:
        InputError: there are no rows, or no images in them.
    """

    def read(numbers: list[Any]) -> dict[str, Array]:
        batch = {name: np.asarray(values) for name, values in collate([dataset[int(i)] for i in numbers]).items()}
        named = {"labels" if name in LABELS else name: values for name, values in batch.items()}
        kept = {name: values for name, values in named.items() if name in inputs}
        return {name: values.astype(dtype) if values.dtype.kind == "f" else values for name, values in kept.items()}

    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and len(dataset) > 0):
        raise InputError(f"{where}: expected rows with a number each, such as a datasets.Dataset, got {type(dataset)}.")
    if "pixel_values" not in read([0]):
        names = ", ".join(map(str, dataset[0])) if isinstance(dataset[0], Mapping) else type(dataset[0]).__name__
        raise InputError(
            f"{where}: expected a column pixel_values, got {names[:80]}.\n"
            "Make it with the image processor, for example in dataset.with_transform(...)."
        )
    return read


def batched(read: Batch, rows: int, batch_size: int, shuffle: bool, drop_remainder: bool, prefetch: bool) -> Any:
    """A data set of batches: (x, y) where there are labels, else x; x is a tensor where it is the images alone."""
    first = read([0])
    names = sorted(first)

    def load(numbers: Any) -> Any:
        values = tf.numpy_function(
            lambda chosen: _columns(read, chosen, names),
            [numbers],
            [first[name].dtype for name in names],
        )
        batch = dict(zip(names, values, strict=True))
        for name, value in batch.items():
            value.set_shape((batch_size if drop_remainder else None, *first[name].shape[1:]))
        labels = batch.pop("labels", None)
        x = batch["pixel_values"] if len(batch) == 1 else batch
        return x if labels is None else (x, labels)

    numbers = tf.data.Dataset.range(rows)
    numbers = numbers.shuffle(rows) if shuffle else numbers
    batches = numbers.batch(batch_size, drop_remainder=drop_remainder).map(load, num_parallel_calls=1)
    return batches.prefetch(tf.data.AUTOTUNE) if prefetch else batches


def _columns(read: Batch, numbers: Any, names: list[str]) -> list[Array]:
    columns = read(numbers)
    return [columns[name] for name in names]
