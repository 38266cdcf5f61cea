"""The front door: the command line, Auto classes and `load`.

Everything is imported on first use, so importing this package costs nothing, and a framework only when a model of its
backend is asked for.
"""

from typing import TYPE_CHECKING

from vit_core.lazy import on_first_use

# name -> module that defines it
_PUBLIC = {
    "AutoConfig": "vit_core.config",
    "AutoImageProcessor": "vit_core.images.processor",
    "AutoModel": "vitriad.auto",
    "AutoModelForImageClassification": "vitriad.auto",
    "AutoModelForMaskedImageModeling": "vitriad.auto",
    "AutoModelForPreTraining": "vitriad.auto",
    "Embedder": "vitriad.features",
    "ViTConfig": "vit_core.config",
    "ViTImageProcessor": "vit_core.images.processor",
    "ViTMAEConfig": "vit_core.config",
    "VitError": "vit_core.errors",
    "convert": "conversion.converting",
    "export": "vitriad.programs.exporting",
    "load": "vitriad.auto",
    "open_image": "vit_core.images.files",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from conversion.converting import convert as convert
    from vit_core.config import AutoConfig as AutoConfig
    from vit_core.config import ViTConfig as ViTConfig
    from vit_core.config import ViTMAEConfig as ViTMAEConfig
    from vit_core.errors import VitError as VitError
    from vit_core.images.files import open_image as open_image
    from vit_core.images.processor import AutoImageProcessor as AutoImageProcessor
    from vit_core.images.processor import ViTImageProcessor as ViTImageProcessor
    from vitriad.auto import AutoModel as AutoModel
    from vitriad.auto import AutoModelForImageClassification as AutoModelForImageClassification
    from vitriad.auto import AutoModelForMaskedImageModeling as AutoModelForMaskedImageModeling
    from vitriad.auto import AutoModelForPreTraining as AutoModelForPreTraining
    from vitriad.auto import load as load
    from vitriad.features import Embedder as Embedder
    from vitriad.programs.exporting import export as export
else:
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
