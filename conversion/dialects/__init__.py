"""Every dialect that is read, one module per family of programs. A new one is a module, and a line here."""

from __future__ import annotations

from conversion.dialect import Dialect, Target
from conversion.dialects import google, hf, hf_relatives, keras_hub, mae, timm, torchvision, vitriad_tf

# The one that explains most names of a file is the file's; of equals the first.
DIALECTS = [
    *hf.DIALECTS,
    *hf_relatives.DIALECTS,
    timm.TIMM,
    mae.MAE,
    google.GOOGLE,
    torchvision.TORCHVISION,
    *keras_hub.DIALECTS,
    *vitriad_tf.DIALECTS,
]


def written() -> dict[str, Dialect]:
    """The dialects that are written, by name."""
    return {dialect.name: dialect for dialect in DIALECTS if dialect.target}


def targets() -> dict[str, Target]:
    """How each of them is written."""
    return {dialect.name: dialect.target for dialect in DIALECTS if dialect.target}
