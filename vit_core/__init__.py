"""The framework-neutral core: configurations, image preprocessing, outputs, positions, masking, files.

Imports NumPy and Pillow, and no framework.
"""

from vit_core.config import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    ImageError,
    InputError,
    MissingFileError,
    MissingImageError,
    SizeMismatchError,
    UnsafeFileError,
    VitError,
)
from vit_core.images.batch_feature import BatchFeature
from vit_core.images.files import open_image
from vit_core.images.options import ChannelDimension, PILImageResampling
from vit_core.images.processor import AutoImageProcessor, ViTFeatureExtractor, ViTImageProcessor
from vit_core.inputs import checked
from vit_core.limits import LIMITS, Limits

__all__ = [
    "LIMITS",
    "AutoConfig",
    "AutoImageProcessor",
    "BackendError",
    "BatchFeature",
    "ChannelDimension",
    "CheckpointError",
    "ConfigError",
    "ImageError",
    "InputError",
    "Limits",
    "MissingFileError",
    "MissingImageError",
    "PILImageResampling",
    "SizeMismatchError",
    "UnsafeFileError",
    "ViTConfig",
    "ViTFeatureExtractor",
    "ViTImageProcessor",
    "ViTMAEConfig",
    "VitError",
    "checked",
    "open_image",
]
