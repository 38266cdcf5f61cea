"""From what a checkpoint says it is to the class of this backend that does a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from conversion.auto import AutoClass
from vit_tf.vit import TFViTForImageClassification, TFViTForMaskedImageModeling, TFViTModel
from vit_tf.vit_mae import TFViTMAEForPreTraining, TFViTMAEModel


class TFAutoModel(AutoClass[TFViTModel | TFViTMAEModel]):
    """The encoder without a head."""

    models: ClassVar[Mapping[str, Any]] = {"vit": TFViTModel, "vit_mae": TFViTMAEModel}


class TFAutoModelForImageClassification(AutoClass[TFViTForImageClassification]):
    """The classifier."""

    models: ClassVar[Mapping[str, Any]] = {"vit": TFViTForImageClassification}


class TFAutoModelForMaskedImageModeling(AutoClass[TFViTForMaskedImageModeling]):
    """The model that paints masked patches."""

    models: ClassVar[Mapping[str, Any]] = {"vit": TFViTForMaskedImageModeling}


class TFAutoModelForPreTraining(AutoClass[TFViTMAEForPreTraining]):
    """The masked autoencoder."""

    models: ClassVar[Mapping[str, Any]] = {"vit_mae": TFViTMAEForPreTraining}
