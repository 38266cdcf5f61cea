"""Checkpoint dialects to canonical names and back. Frameworks are known here as layouts, never imported.

A name is imported on first use.
"""

from typing import TYPE_CHECKING

from vit_core.lazy import on_first_use

# name -> module that defines it
_PUBLIC = {
    "DIALECTS": "conversion.dialects",
    "Loaded": "conversion.loading",
    "Report": "conversion.report",
    "convert": "conversion.converting",
    "detect": "conversion.detecting",
    "fit": "conversion.fitting",
    "load": "conversion.loading",
    "load_pretrained": "conversion.loading",
    "save_pretrained": "conversion.saving",
    "written_config": "conversion.saving",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from conversion.converting import convert as convert
    from conversion.detecting import detect as detect
    from conversion.dialects import DIALECTS as DIALECTS
    from conversion.fitting import fit as fit
    from conversion.loading import Loaded as Loaded
    from conversion.loading import load as load
    from conversion.loading import load_pretrained as load_pretrained
    from conversion.report import Report as Report
    from conversion.saving import save_pretrained as save_pretrained
    from conversion.saving import written_config as written_config
else:
    __getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
