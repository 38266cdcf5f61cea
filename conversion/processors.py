"""The image processor of a checkpoint: its own, else what another program's files say, else what its models are known
to want. What none of these says is left open, and why is said.

Differs: the programs' own evaluation also crops; here the whole image is resized, as ViTImageProcessor does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from conversion.detecting import Source
from vit_core.config import PretrainedConfig, pair
from vit_core.errors import ImageError
from vit_core.files.json import read_json
from vit_core.limits import LIMITS, Limits

if TYPE_CHECKING:
    from vit_core.images.processor import ViTImageProcessor

PREPROCESSOR_NAME = "preprocessor_config.json"


class Found(NamedTuple):
    """The image processor of a checkpoint.

    Attributes:
        processor: None if nothing tells how images are prepared.
        said: where it comes from, or why there is none; empty for the checkpoint's own.
    """

    processor: ViTImageProcessor | None
    said: str


def find_processor(source: Source, config: PretrainedConfig, limits: Limits = LIMITS) -> Found:
    """The image processor of an opened checkpoint.

    Args:
        config: of the model; it has the size of the images.
        limits: bounds on the size of JSON files.

    Raises:
        ImageError: a file that says so is there and cannot be used.
        UnsafeFileError: it is a link out of the checkpoint.
    """
    from vit_core.images.processor import ViTImageProcessor  # Pillow, which conversion needs here alone

    beside = source.beside(PREPROCESSOR_NAME)
    if beside and not _is_the_dialect_s(beside, source, limits):
        own: Any = ViTImageProcessor.from_pretrained(beside.parent, limits=limits)
        return Found(own, "")
    read = source.dialect.read_images
    options, said = read(source, config, limits) if read else (None, "")
    if options is None:
        return Found(None, said or "nothing tells how images for it are prepared")
    height, width = pair(config.image_size)
    return Found(ViTImageProcessor(**{**options, "size": {"height": height, "width": width}}), said)


def _is_the_dialect_s(path: Path, source: Source, limits: Limits) -> bool:
    """Whether a file is of an image processor that only the dialect knows how to read."""
    known = source.dialect.processors
    said = read_json(path, limit="config_bytes", error=ImageError, limits=limits, within=True) if known else {}
    return said.get("image_processor_type") in known
