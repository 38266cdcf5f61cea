"""Models in `fit`, `evaluate` and `predict`: labels and weights, losses, layers that are recomputed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight
from tensorflow import Tensor

from vit_core.errors import InputError
from vit_tf import _keras
from vit_tf.datasets import batched, collated, column_reader

OWN_LOSS = (None, "passthrough", "auto_with_warning")  # transformers' words for it


class Batch(NamedTuple):
    """Data for `fit` with everything in the place where Keras looks for it."""

    x: Any
    y: Any = None
    sample_weight: Any = None


class TrainedModel(keras.Model):
    """A model that trains on the loss that was given to `compile`, or on its own."""

    loss_of: Callable[..., Tensor]

    # --- Keras' calls, with the data settled before anything looks at it ----------------------------------------------

    @wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  # Keras' own text
        return self._run(super().fit, args, kwargs)

    @wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._run(super().evaluate, args, kwargs)

    @wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._run(super().train_on_batch, args, kwargs)

    @wraps(keras.Model.test_on_batch)
    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._run(super().test_on_batch, args, kwargs)

    def _run(self, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One of Keras' calls on settled data. One that fails leaves the model as it was compiled."""
        bound = inspect.signature(call).bind(*args, **kwargs)
        given = bound.arguments
        x, class_weight = given.get("x"), given.get("class_weight")
        if isinstance(x, Mapping | tuple | list) or hasattr(x, "shape"):
            batch = self._settled_batch(*(given.get(name) for name in Batch._fields))
            self._check_weighted(batch.y, class_weight=class_weight, sample_weight=batch.sample_weight)
            given |= {name: value for name, value in batch._asdict().items() if value is not None}
        elif class_weight is not None and isinstance(x, tf.data.Dataset):
            given |= {"x": x.map(partial(self._class_weighted, class_weight)), "class_weight": None}
        elif class_weight is not None and isinstance(x, keras.utils.PyDataset):
            self._check_plain(x)
        if isinstance(given.get("validation_data"), tuple | list):
            batch = self._settled_batch(*unpack_x_y_sample_weight(given["validation_data"]))
            self._check_weighted(batch.y, sample_weight=batch.sample_weight)
            given["validation_data"] = keras.utils.pack_x_y_sample_weight(*batch)
        with _keras.intact(self):
            return call(*bound.args, **bound.kwargs)

    def _settled_batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
        """The same data, with labels as `y` wherever they were, and as a tensor where they are one.

        Labels that are in `x` although there is a `y` stay: the model's own loss takes those, metrics take `y`.
        """
        x = dict(x) if isinstance(x, Mapping) else x
        y, sample_weight = _lone(y), _lone(sample_weight)
        loss = getattr(self, "loss", None)
        if isinstance(x, dict) and "labels" in x and self._takes_labels() and (y is None or not self._trains_on_own()):
            labels = x.pop("labels")
            y = labels if y is None else y
        if isinstance(loss, Mapping) and len(loss) == 1 and y is not None and not keras.tree.is_nested(y):
            y = dict.fromkeys(loss, y)  # the one output that goes by its name
        return Batch(x, y, sample_weight)

    def _trains_on_own(self) -> bool:
        loss = getattr(self, "loss", None)  # not there before `compile`
        return loss is None or (isinstance(loss, str) and loss in OWN_LOSS)

    def _takes_labels(self) -> bool:
        return "labels" in inspect.signature(self.call).parameters

    def _check_weighted(self, y: Any, **weights: Any) -> None:
        """Refuses weights that there are no labels for: Keras would pass over them."""
        if given := [name for name, value in weights.items() if value is not None and y is None]:
            raise InputError(f"{type(self).__name__}: {given[0]}: {self._why_unweighted()}")

    def _why_unweighted(self) -> str:
        if self._takes_labels():
            return "there are no labels whose losses it could weight: give them as y, or as labels inside x."
        return (
            "the model's own loss takes none: it is one mean over the masked pixels of all images, so there is no "
            "loss of an image to weight.\nDelete the argument, or give targets as y and a loss to compile()."
        )

    def _why_no_loss(self) -> str:
        if self._takes_labels():
            return (
                "expected one array of labels beside the images.\nWrite fit(images, labels) or "
                'fit({"pixel_values": images, "labels": labels}); a data set yields such pairs or dicts.'
            )
        if hasattr(self, "loss_of"):
            return (
                "expected the mask that it is about among the inputs.\nWrite "
                'fit({"pixel_values": images, "bool_masked_pos": mask}); a data set yields such dicts.'
            )
        return "an encoder has none of its own.\nGive one to compile(), and targets as y."

    @tf.autograph.experimental.do_not_convert
    def _class_weighted(self, class_weight: Mapping[int, float], *data: Any) -> tuple[Any, Any, Any]:
        """One element of a data set, with the weight of each label's class."""
        batch = self._settled_batch(*unpack_x_y_sample_weight(data))
        self._check_weighted(batch.y, class_weight=class_weight)
        if batch.sample_weight is not None:
            raise InputError(
                f"{type(self).__name__}: class_weight: the data set has weights already; give one of both."
            )
        return batch.x, batch.y, class_weights(keras.tree.flatten(batch.y)[0], class_weight)

    def _check_plain(self, batches: Any) -> None:
        """Refuses batches in which Keras finds no labels to give class weights to."""
        _, y, _ = unpack_x_y_sample_weight(batches[0])
        if y is None or keras.tree.is_nested(y):
            raise InputError(
                f"{type(self).__name__}: class_weight: expected batches (x, y) with an array of labels as y, got "
                "others.\nGive labels so, or the weight of each image as the third: (x, y, sample_weight)."
            )

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: None = None,
        collate_fn: Callable[..., Any] | None = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> tf.data.Dataset:
        """Rows as batches for `fit`: columns that the model takes, and the one called labels, label or label_ids.

        Args:
            dataset: of the hub's `datasets` (also with a transform), or anything with a length whose rows, taken by
                number, are dicts with `pixel_values`.
            batch_size: images in a batch.
            shuffle: whether rows come in another order in each epoch.
            tokenizer: None; images have none.
            collate_fn: makes a dict of arrays from a list of rows, in place of stacking each column.
            collate_fn_args: its keywords.
            drop_remainder: whether a last batch of fewer rows is left out; None means as `shuffle` says.
            prefetch: whether a batch is read while another one is trained on.

        Raises:
            InputError: a tokenizer, or rows without images.
        """
        where = f"{type(self).__name__}.prepare_tf_dataset"
        if tokenizer is not None:
            raise InputError(f"{where}: tokenizer: expected None: images have none.")
        collate = partial(collate_fn or collated, **(collate_fn_args or {}))
        inputs = inspect.signature(self.call).parameters
        read = column_reader(dataset, collate, inputs, self.variable_dtype, where)
        dropped = shuffle if drop_remainder is None else drop_remainder
        return batched(read, len(dataset), batch_size, shuffle, dropped, prefetch)

    # --- steps -------------------------------------------------------------------------------------------------------

    def make_train_function(self, force: bool = False) -> Any:
        """The step of training as Keras compiles it. The optimizer has its variables before: a step that makes them
        is traced twice.
        """
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, data: Any) -> Any:
        """One step of training on a batch."""
        return super().train_step(tuple(self._settled_batch(*unpack_x_y_sample_weight(data))))

    def test_step(self, data: Any) -> Any:
        """One step of evaluation on a batch."""
        return super().test_step(tuple(self._settled_batch(*unpack_x_y_sample_weight(data))))

    def predict_step(self, data: Any) -> Any:
        """The outputs for one batch, without the loss: batches are put together image by image."""
        output = super().predict_step(data)
        return type(output)(**{name: value for name, value in output.items() if name != "loss"})

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """The loss to train on: the one that was given to `compile`, of the main output; or else the model's own.

        The model's own needs its mask among the inputs `x`; the labels of a classifier may be there or be `y`. Sample
        weights multiply the losses of a classifier's images: their sum is divided by the number of labels.

        Raises:
            InputError: there is nothing to compute a loss from, or a sample weight for a loss that takes none.
        """
        x, y, sample_weight = self._settled_batch(x, y, sample_weight)
        if not self._trains_on_own():
            return super().compute_loss(x, y, self._compared(y_pred), sample_weight, training)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync  # whose gradients are added
        return self._own_loss(x, y, y_pred, sample_weight) / replicas

    def _own_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Tensor:
        model = type(self).__name__
        if "loss" in y_pred and sample_weight is None:
            return y_pred["loss"]
        labels = x.get("labels", y) if isinstance(x, dict) else y
        if sample_weight is not None and not (self._takes_labels() and labels is not None):
            raise InputError(f"{model}: sample_weight: {self._why_unweighted()}")
        if labels is None or keras.tree.is_nested(labels) or not self._takes_labels():
            raise InputError(f"{model}: fit, evaluate: no loss: {self._why_no_loss()}")
        return self.loss_of(y_pred["logits"], labels, sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The metrics that were given to `compile`, of the main output."""
        x, y, sample_weight = self._settled_batch(x, y, sample_weight)
        return super().compute_metrics(x, y, self._compared(y_pred), sample_weight)

    def _compared(self, output: Any) -> Any:
        """What a user's loss and metrics see of an output: everything where they go by name, else the main tensor."""
        is_named = isinstance(self.loss, Mapping)
        return dict(output) if is_named else next(value for name, value in output.items() if name != "loss")


class Recomputed(keras.Model):
    """A model whose layers can be recomputed in the backward pass."""

    def gradient_checkpointing_enable(self) -> None:
        """Recomputes each layer in the backward pass instead of keeping its activations (in training mode)."""
        self._set_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keeps activations for the backward pass again."""
        self._set_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return any(getattr(layer, "checkpointing", False) for layer in _keras.layers_of(self))

    def _set_checkpointing(self, is_on: bool) -> None:
        for layer in _keras.layers_of(self):
            if hasattr(layer, "checkpointing"):
                layer.checkpointing = is_on


def class_weights(labels: Tensor, class_weight: Mapping[int, float]) -> Tensor:
    """The weight of each label's class, 1 for a class that the table does not name: (batch,), float32.

    Args:
        labels: (batch,) or (batch, 1) class indices, or (batch, classes) with the largest number at the class.
        class_weight: class index -> weight.
    """
    is_wide = labels.shape.rank == 2 and labels.shape[1] != 1
    classes = tf.argmax(labels, axis=1) if is_wide else tf.reshape(labels, (-1,))
    named, weights = tf.constant([*class_weight], tf.int64), tf.constant([*class_weight.values()], tf.float32)
    is_class = tf.cast(classes, tf.int64)[:, None] == named  # (batch, named)
    return tf.reduce_sum(tf.where(is_class, weights - 1.0, 0.0), axis=1) + 1.0


def _lone(structure: Any) -> Any:
    """The one array of a dict, list or tuple of one; everything else as it is."""
    if not isinstance(structure, Mapping | tuple | list):
        return structure
    parts = list(structure.values() if isinstance(structure, Mapping) else structure)
    return parts[0] if len(parts) == 1 and hasattr(parts[0], "shape") else structure
