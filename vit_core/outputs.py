"""What models return: named fields that also index like a dict and like a tuple.

Axis words: batch, tokens = 1 + patches (kept patches in ViTMAE's encoder), hidden, heads, classes. A field that was not
asked for is None as an attribute, and is absent everywhere else: from keys, iteration, indexing, length and tuples.
Tensors are those of the backend that made the output; each backend registers these classes as pytrees on import.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from vit_core.errors import InputError


def _refusal(operation: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Always raises: fields of an output cannot be removed."""
        raise InputError(f"{type(self).__name__}: an output has no {operation}; copy it with dict(output).")

    return refuse


class ModelOutput(OrderedDict[Any, Any]):
    """Base of all outputs: a dataclass that is an ordered dict of its fields that are present.

    `output.logits`, `output["logits"]`, `output[0]`, `output[:2]` and `output.to_tuple()` all work. Fields can be given
    other values; nothing can be removed, and no other key added. `type(output)(items)`, from a mapping or an iterator
    of pairs, makes a copy: that is how torch's DataParallel, accelerate and tf.nest build theirs.
    """

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # every subclass is a dataclass
        values = [getattr(self, name) for name in names]
        if isinstance(values[0], Mapping | Iterator) and not any(value is not None for value in values[1:]):
            return type(self).__init__(self, **dict(values[0]))
        for name, value in zip(names, values, strict=True):
            if value is not None:
                super().__setitem__(name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        if key not in names:
            raise InputError(f"{type(self).__name__}: expected one of the fields {', '.join(names)}, got {key!r}.")
        super().__setattr__(key, value)
        super().__setitem__(key, value)
        for name in names[names.index(key) + 1 :]:  # the fields' order, whenever they came
            if name in self:
                self.move_to_end(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are present, in order."""
        return tuple(self[name] for name in self.keys())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    __delitem__ = _refusal("del output[name]")
    clear = _refusal("clear()")
    pop = _refusal("pop()")
    popitem = _refusal("popitem()")
    setdefault = _refusal("setdefault()")
    update = _refusal("update()")


@dataclass
class BaseModelOutput(ModelOutput):
    """Output of an encoder without pooler.

    Shapes: last_hidden_state (batch, tokens, hidden); hidden_states: one such tensor after the embeddings and one after
    each layer, before the final norm; attentions: per layer (batch, heads, tokens, tokens).
    """

    last_hidden_state: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class BaseModelOutputWithPooling(ModelOutput):
    """Output of ViTModel.

    Shapes: as BaseModelOutput; pooler_output (batch, pooler_output_size).
    """

    last_hidden_state: Any = None
    pooler_output: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class ImageClassifierOutput(ModelOutput):
    """Output of ViTForImageClassification.

    Shapes: loss (); logits (batch, classes); hidden_states and attentions as BaseModelOutput.
    """

    loss: Any = None
    logits: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class MaskedImageModelingOutput(ModelOutput):
    """Output of ViTForMaskedImageModeling.

    Shapes: loss (); reconstruction (batch, channels, height, width); hidden_states and attentions as BaseModelOutput.
    """

    loss: Any = None
    reconstruction: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class ViTMAEModelOutput(ModelOutput):
    """Output of ViTMAEModel.

    Shapes: last_hidden_state (batch, 1 + kept, hidden); mask (batch, patches), float32, 1 = removed and 0 = kept;
    ids_restore (batch, patches), integers: where each patch stands in the shuffled order.
    """

    last_hidden_state: Any = None
    mask: Any = None
    ids_restore: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class ViTMAEForPreTrainingOutput(ModelOutput):
    """Output of ViTMAEForPreTraining.

    Shapes: loss (); logits (batch, patches, patch height * patch width * channels); mask and ids_restore as
    ViTMAEModelOutput; hidden_states and attentions of the encoder.
    """

    loss: Any = None
    logits: Any = None
    mask: Any = None
    ids_restore: Any = None
    hidden_states: Any = None
    attentions: Any = None


OUTPUTS: tuple[type[ModelOutput], ...] = (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ViTMAEModelOutput,
    ViTMAEForPreTrainingOutput,
)
