"""From what a checkpoint says it is to the class of this backend that does a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from conversion.auto import AutoClass
from vit_torch.vit import ViTForImageClassification, ViTForMaskedImageModeling, ViTModel
from vit_torch.vit_mae import ViTMAEForPreTraining, ViTMAEModel


class AutoModel(AutoClass[ViTModel | ViTMAEModel]):
    """The encoder without a head."""

    models: ClassVar[Mapping[str, Any]] = {"vit": ViTModel, "vit_mae": ViTMAEModel}


class AutoModelForImageClassification(AutoClass[ViTForImageClassification]):
    """The classifier."""

    models: ClassVar[Mapping[str, Any]] = {"vit": ViTForImageClassification}


class AutoModelForMaskedImageModeling(AutoClass[ViTForMaskedImageModeling]):
    """The model that paints masked patches."""

    models: ClassVar[Mapping[str, Any]] = {"vit": ViTForMaskedImageModeling}


class AutoModelForPreTraining(AutoClass[ViTMAEForPreTraining]):
    """The masked autoencoder."""

    models: ClassVar[Mapping[str, Any]] = {"vit_mae": ViTMAEForPreTraining}
