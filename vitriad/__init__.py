"""The front door: the command line, Auto classes and `load`.

Everything is imported on first use, so importing this package costs nothing, and a framework only when a model of its
backend is asked for.
"""

from importlib import import_module
from typing import Any

# name -> module that defines it
_PUBLIC = {
    "AutoConfig": "vit_core.config",
    "AutoImageProcessor": "vit_core.image_processing",
    "AutoModel": "vitriad.auto",
    "AutoModelForImageClassification": "vitriad.auto",
    "AutoModelForMaskedImageModeling": "vitriad.auto",
    "AutoModelForPreTraining": "vitriad.auto",
    "ViTConfig": "vit_core.config",
    "ViTImageProcessor": "vit_core.image_processing",
    "ViTMAEConfig": "vit_core.config",
    "VitError": "vit_core.errors",
    "convert": "conversion.streaming",
    "load": "vitriad.auto",
    "open_image": "vit_core.image_files",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vitriad' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
