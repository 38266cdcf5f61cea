"""What a model is trained on in one step, what of it the model takes, and the parts that a batch is computed in."""

from __future__ import annotations

from typing import Any, NamedTuple

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.parameters import class_name
from vit_core.tensors import Array

# The classes that have a loss, and what it is computed from beside the images.
_GIVEN = {
    "ViTForImageClassification": "targets",
    "ViTForMaskedImageModeling": "bool_masked_pos",
    "ViTMAEForPreTraining": "noise",
}

_NO_PIXELS = 1e-5  # added to the count of masked pixels by the loss of masked image modelling


class TrainingBatch(NamedTuple):
    """What a model is trained on in one step; which fields are there goes by its class.

    Attributes:
        pixel_values: (batch, channels, height, width), float32 or float64.
        targets: (batch, classes), floating: shares of classes, for image classification. The loss is the mean over the
            images of -sum(targets * log_softmax(logits)).
        noise: (batch, patches), float32, which orders the patches: for ViTMAEForPreTraining.
        bool_masked_pos: (batch, patches), bool: for ViTForMaskedImageModeling.
        drop_path_mask: (layers, 2, batch), bool: True where stochastic depth leaves out the attention (0) or the MLP
            (1) of a layer for an image. None: the model draws its own where its configuration has a `drop_path_rate`.
    """

    pixel_values: Array
    targets: Array | None = None
    noise: Array | None = None
    bool_masked_pos: Array | None = None
    drop_path_mask: Array | None = None


def trained_class(cls: type) -> str:
    """The canonical name of a class that has a loss to train by.

    Raises:
        InputError: one that has none.
    """
    name = class_name(cls)
    if name not in _GIVEN:
        raise InputError(f"TrainStep: {cls.__name__} has no loss.\nTrain one of {', '.join(_GIVEN)}.")
    return name


def arguments(cls: type, config: PretrainedConfig, batch: TrainingBatch, *, training: bool) -> dict[str, Array]:
    """What a model is called with, by name: the fields of a batch that are there, but for the targets.

    Args:
        cls: a model class of any backend.
        config: of the model.
        batch: to train on or to evaluate.
        training: whether targets are needed, and paths dropped.

    Raises:
        InputError: a field that the class needs is missing, or one is there that it has no use for.
    """
    name = trained_class(cls)
    given = {field: value for field, value in batch._asdict().items() if value is not None}
    needed = _GIVEN[name]
    if needed not in given and (training or needed != "targets"):
        raise InputError(f"{cls.__name__}: a batch for it needs {needed}, got {', '.join(given)}.")
    if unused := sorted(given.keys() - {"pixel_values", needed, "drop_path_mask"}):
        raise InputError(f"{cls.__name__}: it has no use for {unused[0]} in a batch.\nLeave it None.")
    if (targets := given.pop("targets", None)) is not None:
        expected = (len(batch.pixel_values), config.num_labels)
        if targets.shape != expected or not str(targets.dtype).startswith("float"):
            raise InputError(
                f"{cls.__name__}: targets: expected (batch, classes) {expected}, floating, got {targets.dtype} "
                f"{targets.shape}.\nvit_core.training.soft_targets makes them of class indices."
            )
    if not training:
        given.pop("drop_path_mask", None)
    return given


def parts(
    batch: TrainingBatch, count: int, config: PretrainedConfig, multiple: int = 1
) -> list[tuple[TrainingBatch, Any]]:
    """A batch cut into at most `count` parts, each with its share: the loss of the whole is sum(share * loss of part).

    All parts have equally many images, but for the last one, which may have fewer. Where pixels are masked, a part
    counts by them, as they do in the loss. The arrays may be those of a framework, traced ones too.

    Args:
        batch: to cut.
        count: of parts.
        config: of the model.
        multiple: what the images of each part are divided by afterwards; those that are left over are a part more.
    """
    images, mask = len(batch.pixel_values), batch.bool_masked_pos
    even = images - images % multiple
    size = max(1, -(-images // (count * multiple))) * multiple
    places = [slice(start, min(start + size, even)) for start in range(0, even, size)]
    if even < images:
        places.append(slice(even, images))
    if mask is None:
        return [(_cut(batch, place), len(range(images)[place]) / images) for place in places]
    pixels = mask.reshape(images, -1).sum(axis=1) * config.encoder_stride**2
    return [(_cut(batch, place), (pixels[place].sum() + _NO_PIXELS) / (pixels.sum() + _NO_PIXELS)) for place in places]


def _cut(batch: TrainingBatch, place: slice) -> TrainingBatch:
    """Some images of a batch, with what belongs to them."""
    fields = {field: value for field, value in batch._asdict().items() if value is not None}
    cut = {field: value[:, :, place] if field == "drop_path_mask" else value[place] for field, value in fields.items()}
    return TrainingBatch(**cut)
