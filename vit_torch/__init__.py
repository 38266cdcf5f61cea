"""ViT and ViTMAE in PyTorch: transformers' class names, file formats and numbers."""

from vit_core.config import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.images.processor import AutoImageProcessor, ViTFeatureExtractor, ViTImageProcessor
from vit_core.outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ViTMAEForPreTrainingOutput,
    ViTMAEModelOutput,
)
from vit_core.tensors import missing_backend

try:
    import torch as _torch  # noqa: F401  # only to say what to install
except ImportError as error:
    raise missing_backend("torch", "vit_torch") from error

from vit_torch import _pytree
from vit_torch.auto import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    AutoModelForPreTraining,
)
from vit_torch.inference import optimize_for_inference, undo_optimization
from vit_torch.pretrained import ViTMAEPreTrainedModel, ViTPreTrainedModel
from vit_torch.vit import ViTForImageClassification, ViTForMaskedImageModeling, ViTModel
from vit_torch.vit_mae import ViTMAEForPreTraining, ViTMAEModel

_pytree.register()

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForMaskedImageModeling",
    "AutoModelForPreTraining",
    "BaseModelOutput",
    "BaseModelOutputWithPooling",
    "ImageClassifierOutput",
    "MaskedImageModelingOutput",
    "ViTConfig",
    "ViTFeatureExtractor",
    "ViTForImageClassification",
    "ViTForMaskedImageModeling",
    "ViTImageProcessor",
    "ViTMAEConfig",
    "ViTMAEForPreTraining",
    "ViTMAEForPreTrainingOutput",
    "ViTMAEModel",
    "ViTMAEModelOutput",
    "ViTMAEPreTrainedModel",
    "ViTModel",
    "ViTPreTrainedModel",
    "optimize_for_inference",
    "undo_optimization",
]
