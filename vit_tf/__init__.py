"""ViT and ViTMAE in TensorFlow / Keras 3: transformers' class names, file formats and numbers."""

from vit_core.config import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.errors import BackendError
from vit_core.images.processor import AutoImageProcessor, ViTFeatureExtractor, ViTImageProcessor
from vit_core.outputs import BaseModelOutput as TFBaseModelOutput
from vit_core.outputs import BaseModelOutputWithPooling as TFBaseModelOutputWithPooling
from vit_core.outputs import ImageClassifierOutput as TFSequenceClassifierOutput
from vit_core.outputs import MaskedImageModelingOutput as TFMaskedImageModelingOutput
from vit_core.outputs import ViTMAEForPreTrainingOutput as TFViTMAEForPreTrainingOutput
from vit_core.outputs import ViTMAEModelOutput as TFViTMAEModelOutput
from vit_core.tensors import missing_backend

try:
    import keras as _framework
    import tensorflow as _tensorflow  # noqa: F401  # only to say what to install
except ImportError as error:
    raise missing_backend("tf", "vit_tf") from error

if _framework.config.backend() != "tensorflow":
    raise BackendError(
        f"vit_tf: Keras runs on {_framework.config.backend()!r} here, expected 'tensorflow'.\n"
        "Set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
    )

from vit_tf import _pytree
from vit_tf.auto import (
    TFAutoModel,
    TFAutoModelForImageClassification,
    TFAutoModelForMaskedImageModeling,
    TFAutoModelForPreTraining,
)
from vit_tf.pretrained import TFViTMAEPreTrainedModel, TFViTPreTrainedModel
from vit_tf.vit import TFViTForImageClassification, TFViTForMaskedImageModeling, TFViTModel
from vit_tf.vit_mae import TFViTMAEForPreTraining, TFViTMAEModel

_pytree.register()

TFImageClassifierOutput = TFSequenceClassifierOutput

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "TFAutoModel",
    "TFAutoModelForImageClassification",
    "TFAutoModelForMaskedImageModeling",
    "TFAutoModelForPreTraining",
    "TFBaseModelOutput",
    "TFBaseModelOutputWithPooling",
    "TFImageClassifierOutput",
    "TFMaskedImageModelingOutput",
    "TFSequenceClassifierOutput",
    "TFViTForImageClassification",
    "TFViTForMaskedImageModeling",
    "TFViTMAEForPreTraining",
    "TFViTMAEForPreTrainingOutput",
    "TFViTMAEModel",
    "TFViTMAEModelOutput",
    "TFViTMAEPreTrainedModel",
    "TFViTModel",
    "TFViTPreTrainedModel",
    "ViTConfig",
    "ViTFeatureExtractor",
    "ViTImageProcessor",
    "ViTMAEConfig",
]
