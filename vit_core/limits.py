"""Upper bounds on what files and configurations may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from vit_core.errors import InputError
from vit_core.plain_values import short


@dataclass(frozen=True)
class Limits:
    """Bounds checked before anything is allocated.

    Code can raise them: pass `limits=replace(LIMITS, layers=2000)` to a function that takes `limits=`. Files cannot.

    Units: bytes for `*_bytes`, pixels for `image_*`, counts otherwise.
    """

    config_bytes: int = 16_000_000  # as many labels as there may be, LABEL_0 on, are 12 MB both ways
    json_depth: int = 32
    index_bytes: int = 16_000_000
    shards: int = 1_024
    header_bytes: int = 16_000_000
    tensors: int = 100_000
    rank: int = 8
    program_steps: int = 1_000_000  # instructions in a .bin or .pth file
    inflation: int = 4  # how many times its size a compressed tensor may take
    hidden_size: int = 65_536
    layers: int = 1_024
    heads: int = 1_024
    register_tokens: int = 1_024
    image_side: int = 16_384
    labels: int = 200_000
    parameters: int = 50_000_000_000
    image_file_bytes: int = 100_000_000
    image_pixels: int = 100_000_000
    image_file_side: int = 65_535
    batch_images: int = 4_096

    def bound(self, name: str) -> str:
        """The words in which an error names one of these limits, and how to raise it."""
        return f"the limit of {getattr(self, name)}; to raise it: limits=replace(LIMITS, {name}=...)"


LIMITS = Limits()


def check_limits(limits: object) -> None:
    """Raises InputError if a value is not a `Limits`."""
    if not isinstance(limits, Limits):
        raise InputError(f"limits: expected replace(LIMITS, name=...), got {short(limits)}.")
