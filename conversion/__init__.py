"""Checkpoint dialects to canonical names and back. Frameworks are known here as layouts, never imported."""

from conversion.detect import detect
from conversion.dialects import DIALECTS
from conversion.engine import fit
from conversion.pretrained import Loaded, Report, load, load_pretrained, save_pretrained, written_config
from conversion.streaming import convert

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
