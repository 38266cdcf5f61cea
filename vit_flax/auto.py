"""From what a checkpoint says it is to the class of this backend that does a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from conversion.auto import AutoClass
from vit_flax.models import (
    FlaxViTForImageClassification,
    FlaxViTForMaskedImageModeling,
    FlaxViTMAEForPreTraining,
    FlaxViTMAEModel,
    FlaxViTModel,
)


class FlaxAutoModel(AutoClass[FlaxViTModel | FlaxViTMAEModel]):
    """The encoder without a head."""

    models: ClassVar[Mapping[str, Any]] = {"vit": FlaxViTModel, "vit_mae": FlaxViTMAEModel}


class FlaxAutoModelForImageClassification(AutoClass[FlaxViTForImageClassification]):
    """The classifier."""

    models: ClassVar[Mapping[str, Any]] = {"vit": FlaxViTForImageClassification}


class FlaxAutoModelForMaskedImageModeling(AutoClass[FlaxViTForMaskedImageModeling]):
    """The model that paints masked patches."""

    models: ClassVar[Mapping[str, Any]] = {"vit": FlaxViTForMaskedImageModeling}


class FlaxAutoModelForPreTraining(AutoClass[FlaxViTMAEForPreTraining]):
    """The masked autoencoder."""

    models: ClassVar[Mapping[str, Any]] = {"vit_mae": FlaxViTMAEForPreTraining}
