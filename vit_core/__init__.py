"""The framework-neutral core: configurations, image preprocessing, outputs, positions, masking, files.

Stands on NumPy and Pillow, and on no framework. A name is imported on first use.
"""

from typing import TYPE_CHECKING

from vit_core.lazy import on_first_use

# name -> module that defines it
_PUBLIC = {
    "LIMITS": "vit_core.limits",
    "AutoConfig": "vit_core.config",
    "AutoImageProcessor": "vit_core.images.processor",
    "BackendError": "vit_core.errors",
    "BatchFeature": "vit_core.images.batch_feature",
    "ChannelDimension": "vit_core.images.options",
    "CheckpointError": "vit_core.errors",
    "ConfigError": "vit_core.errors",
    "ImageError": "vit_core.errors",
    "InputError": "vit_core.errors",
    "Limits": "vit_core.limits",
    "MissingFileError": "vit_core.errors",
    "MissingImageError": "vit_core.errors",
    "PILImageResampling": "vit_core.images.options",
    "SizeMismatchError": "vit_core.errors",
    "UnsafeFileError": "vit_core.errors",
    "ViTConfig": "vit_core.config",
    "ViTFeatureExtractor": "vit_core.images.processor",
    "ViTImageProcessor": "vit_core.images.processor",
    "ViTMAEConfig": "vit_core.config",
    "VitError": "vit_core.errors",
    "checked": "vit_core.inputs",
    "open_image": "vit_core.images.files",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from vit_core.config import AutoConfig as AutoConfig
    from vit_core.config import ViTConfig as ViTConfig
    from vit_core.config import ViTMAEConfig as ViTMAEConfig
    from vit_core.errors import BackendError as BackendError
    from vit_core.errors import CheckpointError as CheckpointError
    from vit_core.errors import ConfigError as ConfigError
    from vit_core.errors import ImageError as ImageError
    from vit_core.errors import InputError as InputError
    from vit_core.errors import MissingFileError as MissingFileError
    from vit_core.errors import MissingImageError as MissingImageError
    from vit_core.errors import SizeMismatchError as SizeMismatchError
    from vit_core.errors import UnsafeFileError as UnsafeFileError
    from vit_core.errors import VitError as VitError
    from vit_core.images.batch_feature import BatchFeature as BatchFeature
    from vit_core.images.files import open_image as open_image
    from vit_core.images.options import ChannelDimension as ChannelDimension
    from vit_core.images.options import PILImageResampling as PILImageResampling
    from vit_core.images.processor import AutoImageProcessor as AutoImageProcessor
    from vit_core.images.processor import ViTFeatureExtractor as ViTFeatureExtractor
    from vit_core.images.processor import ViTImageProcessor as ViTImageProcessor
    from vit_core.inputs import checked as checked
    from vit_core.limits import LIMITS as LIMITS
    from vit_core.limits import Limits as Limits
else:
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
