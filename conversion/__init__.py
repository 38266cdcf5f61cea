"""Checkpoint dialects to canonical names and back. Frameworks are known here as layouts, never imported."""

from conversion.converting import convert
from conversion.detect import detect
from conversion.dialects import DIALECTS
from conversion.fitting import fit
from conversion.loading import Loaded, load, load_pretrained
from conversion.report import Report
from conversion.saving import save_pretrained, written_config

__all__ = [
    "DIALECTS",
    "Loaded",
    "Report",
    "convert",
    "detect",
    "fit",
    "load",
    "load_pretrained",
    "save_pretrained",
    "written_config",
]
