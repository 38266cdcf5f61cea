"""Which model features are of: a digest of its encoder, the same in every backend, and how images are prepared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from vit_core.config import PretrainedConfig, pair
from vit_core.config.base import CONFIGS
from vit_core.config.rules import BASE_RULES
from vit_core.parameters import BASE_CLASSES, BASE_PREFIX, MODEL_CLASSES, class_name, parameter_table
from vit_core.tensors import digest

_SHORT = 12  # characters of a digest in messages
# What the features of a trained encoder do not depend on.
_UNUSED = {"encoder_stride", "mask_ratio", "norm_pix_loss", "initializer_range"}
_UNUSED_ENDINGS = ("_dropout_prob",)
_UNUSED_PREFIXES = ("decoder_", "pooler_")


class Origin(NamedTuple):
    """What made features.

    Attributes:
        model: its name, as it was typed.
        encoder: the digest of its weights and configuration.
        processor: how images were prepared, as an image processor's dict.
        columns: the features.
        commit: of a model from the hub.
    """

    model: str
    encoder: str
    processor: dict[str, Any]
    columns: Sequence[str]
    commit: str | None = None

    def __str__(self) -> str:
        return f"{self.model} (encoder {self.encoder[:_SHORT]})"

    def text(self) -> str:
        """As JSON, on one line; the same for the same origin."""
        return json.dumps(self._asdict(), sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The origin in a text.

        Raises:
            ValueError: it is not one.
        """
        said = json.loads(text)
        try:
            kinds = {"model": str, "encoder": str, "processor": dict, "columns": list, "commit": str | None}
            if wrong := [name for name, kind in kinds.items() if not isinstance(said[name], kind)]:
                raise ValueError(f"{wrong[0]} in what made the features")
            return cls(**{name: said[name] for name in kinds})
        except (TypeError, KeyError):
            raise ValueError("it does not tell what made the features") from None

    def parts_from(self, other: Origin) -> list[str]:
        """What forbids to compare features with another's: "model", or what differs in the image processors.

        Names of models and columns count for nothing.
        """
        if self.encoder != other.encoder:
            return ["model"]
        names = {**self.processor, **other.processor}
        mine, others = (json.loads(json.dumps(each.processor)) for each in (self, other))
        return [name for name in names if mine.get(name) != others.get(name)]


def encoder_digest(model: Any) -> str:
    """SHA-256 of an encoder, in hexadecimal: of its weights, and of the fields of its configuration that features need.

    Heads, poolers, decoders and mask tokens count for nothing: a classifier and its encoder alone have the same.

    Args:
        model: a model of any backend.
    """
    config: PretrainedConfig = model.config
    base = next(name for name in BASE_CLASSES if isinstance(config, MODEL_CLASSES[name]))
    prefix = "" if class_name(type(model)) in BASE_CLASSES else BASE_PREFIX
    tensors = model.canonical_tensors()
    names = parameter_table(config, base, add_pooling_layer=False)
    fields = json.dumps(_fields(config), sort_keys=True)
    return hashlib.sha256(f"{digest({name: tensors[prefix + name] for name in names})} {fields}".encode()).hexdigest()


def _fields(config: PretrainedConfig) -> dict[str, Any]:
    """What the features depend on and is not the default, so that options of later releases change no digest."""
    default = CONFIGS[config.model_type].from_dict({})
    found = {}
    for name in {*config._rules} - {*BASE_RULES} - _UNUSED:
        value, usual = getattr(config, name), getattr(default, name)
        if name in ("image_size", "patch_size"):
            value, usual = pair(value), pair(usual)
        if not (name.startswith(_UNUSED_PREFIXES) or name.endswith(_UNUSED_ENDINGS) or value == usual):
            found[name] = value if isinstance(value, int | float | str | tuple | list) else str(value)
    return found
