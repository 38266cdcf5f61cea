"""ViT and ViTMAE in JAX / Flax Linen: transformers' class names, file formats and numbers."""

from vit_core.config import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.images.processor import AutoImageProcessor, ViTFeatureExtractor, ViTImageProcessor
from vit_core.outputs import BaseModelOutput as FlaxBaseModelOutput
from vit_core.outputs import BaseModelOutputWithPooling as FlaxBaseModelOutputWithPooling
from vit_core.outputs import ImageClassifierOutput as FlaxSequenceClassifierOutput
from vit_core.outputs import MaskedImageModelingOutput as FlaxMaskedImageModelingOutput
from vit_core.outputs import ViTMAEForPreTrainingOutput as FlaxViTMAEForPreTrainingOutput
from vit_core.outputs import ViTMAEModelOutput as FlaxViTMAEModelOutput
from vit_core.tensors import missing_backend

try:
    import flax as _flax  # noqa: F401  # only to say what to install
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise missing_backend("flax", "vit_flax") from error

from vit_flax import _pytree
from vit_flax.auto import (
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxAutoModelForMaskedImageModeling,
    FlaxAutoModelForPreTraining,
)
from vit_flax.models import (
    FlaxViTForImageClassification,
    FlaxViTForMaskedImageModeling,
    FlaxViTMAEForPreTraining,
    FlaxViTMAEModel,
    FlaxViTModel,
)
from vit_flax.pretrained import FlaxViTPreTrainedModel
from vit_flax.vit import FlaxViTForImageClassificationModule, FlaxViTForMaskedImageModelingModule, FlaxViTModule
from vit_flax.vit_mae import FlaxViTMAEForPreTrainingModule, FlaxViTMAEModule

_pytree.register()

FlaxImageClassifierOutput = FlaxSequenceClassifierOutput

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "FlaxAutoModel",
    "FlaxAutoModelForImageClassification",
    "FlaxAutoModelForMaskedImageModeling",
    "FlaxAutoModelForPreTraining",
    "FlaxBaseModelOutput",
    "FlaxBaseModelOutputWithPooling",
    "FlaxImageClassifierOutput",
    "FlaxMaskedImageModelingOutput",
    "FlaxSequenceClassifierOutput",
    "FlaxViTForImageClassification",
    "FlaxViTForImageClassificationModule",
    "FlaxViTForMaskedImageModeling",
    "FlaxViTForMaskedImageModelingModule",
    "FlaxViTMAEForPreTraining",
    "FlaxViTMAEForPreTrainingModule",
    "FlaxViTMAEForPreTrainingOutput",
    "FlaxViTMAEModel",
    "FlaxViTMAEModelOutput",
    "FlaxViTMAEModule",
    "FlaxViTModel",
    "FlaxViTModule",
    "FlaxViTPreTrainedModel",
    "ViTConfig",
    "ViTFeatureExtractor",
    "ViTImageProcessor",
    "ViTMAEConfig",
]
