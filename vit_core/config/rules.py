"""What every field of a configuration accepts, and the form in which it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np

from vit_core.config.labels import index_of, label_table, text_of
from vit_core.errors import ConfigError
from vit_core.limits import LIMITS
from vit_core.plain_values import is_int, is_number, plain, short
from vit_core.tensors import dtype_name

ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "glu", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2"),
    *("relu6", "selu", "sigmoid", "silu", "swish", "tanh", "xielu"),
)
SAME_ACTIVATIONS = {  # another name -> the one that it means
    "gelu_accurate": "gelu_pytorch_tanh",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_pytorch_tanh",
    "swish": "silu",
}
GATED_ACTIVATIONS = ("glu", "swiglu")  # halve what they are given; swiglu is asked for by use_swiglu_ffn
ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclass(frozen=True)
class Rule:
    """What a field accepts.

    Attributes:
        expected: in words, as errors say it.
        accepts: as a predicate over kept values.
        keep: a value that was given -> the value in the form that is kept; one of another kind as it is.
    """

    expected: str
    accepts: Callable[[Any], bool]
    keep: Callable[[Any], Any] = plain

    def checked(self, where: str, value: Any) -> Any:
        """The value to keep.

        Raises:
            ConfigError: it is refused.
        """
        kept = self.keep(value)
        if not self.accepts(kept):
            raise ConfigError(f"{where}: expected {self.expected}, got {short(kept)}")
        return kept


class _Labels(Rule):
    """The rule of `id2label`, whose errors name the index that is wrong."""

    def checked(self, where: str, value: Any) -> Any:
        return label_table(where, value)


def count(low: int, high: int) -> Rule:
    """An int in a range."""
    return Rule(f"an int from {low} to {high}", lambda v: is_int(v) and low <= v <= high)


def size(high: int) -> Rule:
    """An int, or a pair of them."""

    def accepts(value: Any) -> bool:
        sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
        return all(is_int(side) and 1 <= side <= high for side in sides)

    return Rule(f"an int or a (height, width) pair of ints from 1 to {high}", accepts, _kept_size)


def optional(rule: Rule) -> Rule:
    """What another rule accepts, or None."""
    return Rule(f"{rule.expected}, or None", lambda v: v is None or rule.accepts(v), rule.keep)


def one_of(*names: str) -> Rule:
    """One of some strings."""
    return Rule(f"one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names)


def _kept_size(value: Any) -> Any:
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else plain(value)


def _kept_names(value: Any) -> Any:
    return [*value] if isinstance(value, list | tuple) else value


def _kept_heads(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    items = {index_of(layer): _sorted_heads(heads) for layer, heads in value.items()}
    return items if len(items) == len(value) else dict(value)


def _sorted_heads(heads: Any) -> Any:
    """Heads as a list, in the order they were given where they have one."""
    if not isinstance(heads, list | tuple | set | frozenset):
        return heads
    kept = [plain(head) for head in heads]
    return sorted(kept) if isinstance(heads, set | frozenset) and all(map(is_int, kept)) else kept


def _kept_indices(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return plain(value)
    return {text_of(label): index_of(index) for label, index in value.items()}


def _kept_dtype(value: Any) -> Any:
    if value is None:
        return None
    try:
        return dtype_name(value)
    except ValueError:
        return value


_BOOL = Rule("True or False", lambda v: isinstance(v, bool))
_TEXT = Rule("a string", lambda v: isinstance(v, str))
_TINY = float(np.finfo(np.float32).tiny)  # smaller ones are 0, or become it on some devices

# The types of the fields, each with its rule: a constructor's parameter says name, type, rule and default at once.
Bool = Annotated[bool, _BOOL]
Width = Annotated[int, count(1, LIMITS.hidden_size)]
Heads = Annotated[int, count(1, LIMITS.heads)]
Layers = Annotated[int, count(0, LIMITS.layers)]
Registers = Annotated[int, count(0, LIMITS.register_tokens)]
Side = Annotated[int, count(1, LIMITS.image_side)]
Sides = Annotated[int | tuple[int, int], size(LIMITS.image_side)]
Probability = Annotated[float, Rule("a number in [0, 1]", lambda v: is_number(v) and 0 <= v <= 1)]
_SHARE = Rule("a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
MaskRatio = Annotated[float, _SHARE]
Deviation = Annotated[float, Rule("a number of at least 0", lambda v: is_number(v) and v >= 0)]
Epsilon = Annotated[float, Rule("a number above 0 in float32", lambda v: is_number(v) and v >= _TINY)]
LayerScale = Annotated[float | None, optional(Rule("a number", is_number))]
Activation = Annotated[
    str | Callable[..., Any],
    Rule(
        f"a callable or one of {', '.join(ACTIVATIONS)}",
        lambda v: callable(v) or (isinstance(v, str) and v in ACTIVATIONS),
    ),
]


def rules_of(constructor: Callable[..., None]) -> dict[str, Rule]:
    """The rules in the types of a constructor's parameters, by name."""
    hints = get_type_hints(constructor, include_extras=True)
    types = ((name, each) for name, hint in hints.items() for each in (hint, *get_args(hint)))  # get_args: of `| None`
    return {name: rule for name, each in types for rule in getattr(each, "__metadata__", ())}


# The fields that every configuration has beside its architecture: default and rule. config.json has only those that are
# not at their default.
_BASE: dict[str, tuple[Any, Rule]] = {
    "output_hidden_states": (False, _BOOL),
    "output_attentions": (False, _BOOL),
    "return_dict": (True, _BOOL),
    "dtype": (
        None,
        Rule(
            "one of float16, bfloat16, float32, float64, or None",
            lambda v: v is None or (isinstance(v, str) and v in ("float16", "bfloat16", "float32", "float64")),
            _kept_dtype,
        ),
    ),
    "pruned_heads": (
        {},
        Rule(
            "a dict of layer index to a list of head indices",
            lambda v: (
                isinstance(v, dict)
                and all(is_int(k) and isinstance(heads, list) and all(map(is_int, heads)) for k, heads in v.items())
            ),
            _kept_heads,
        ),
    ),
    "architectures": (
        None,
        Rule(
            "a list of class names, or None",
            lambda v: v is None or (isinstance(v, list) and all(isinstance(name, str) for name in v)),
            _kept_names,
        ),
    ),
    "id2label": ({0: "LABEL_0", 1: "LABEL_1"}, _Labels("labels", lambda v: True)),
    "label2id": (  # after id2label, which it follows
        {"LABEL_0": 0, "LABEL_1": 1},
        Rule(
            "a dict of label to class index",
            lambda v: isinstance(v, dict) and all(isinstance(k, str) and is_int(i) for k, i in v.items()),
            _kept_indices,
        ),
    ),
    "problem_type": (None, optional(one_of(*PROBLEM_TYPES))),
    "drop_path_rate": (0.0, _SHARE),  # no field of transformers, which keeps it and computes the same: it only trains
    "transformers_version": (None, optional(_TEXT)),
    "name_or_path": ("", _TEXT),
    "hub_commit": (None, optional(_TEXT)),
    "attn_implementation": (None, optional(one_of(*ATTENTION_IMPLEMENTATIONS))),
}
BASE_DEFAULTS: dict[str, Any] = {name: default for name, (default, _) in _BASE.items()}
BASE_RULES: dict[str, Rule] = {name: rule for name, (_, rule) in _BASE.items()}
