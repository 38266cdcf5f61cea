"""What every field of a configuration accepts, and the form in which it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


_TINY = float(np.finfo(np.float32).tiny)  # smaller ones are 0, or become it on some devices
BOOL = Rule("True or False", lambda v: isinstance(v, bool))
TEXT = Rule("a string", lambda v: isinstance(v, str))
PROBABILITY = Rule("a number in [0, 1]", lambda v: is_number(v) and 0 <= v <= 1)
MASK_RATIO = Rule("a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
ACTIVATION = Rule(
    f"a callable or one of {', '.join(ACTIVATIONS)}",
    lambda v: callable(v) or (isinstance(v, str) and v in ACTIVATIONS),
)
WIDTH = count(1, LIMITS.hidden_size)
HEADS = count(1, LIMITS.heads)
LAYERS = count(0, LIMITS.layers)
SIDE = count(1, LIMITS.image_side)

# Fields of both architectures.
SHARED_RULES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": PROBABILITY,
    "attention_probs_dropout_prob": PROBABILITY,
    "initializer_range": Rule("a number of at least 0", lambda v: is_number(v) and v >= 0),
    "layer_norm_eps": Rule("a number above 0 in float32", lambda v: is_number(v) and v >= _TINY),
    "image_size": size(LIMITS.image_side),
    "patch_size": size(LIMITS.image_side),
    "num_channels": WIDTH,
    "qkv_bias": BOOL,
}

# Fields that every config has beside its architecture. They are written to config.json only where they differ.
BASE_DEFAULTS: dict[str, Any] = {
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
    "dtype": None,
    "pruned_heads": {},
    "architectures": None,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "transformers_version": None,
    "name_or_path": "",
    "hub_commit": None,
    "attn_implementation": None,
}

BASE_RULES: dict[str, Rule] = {
    "output_hidden_states": BOOL,
    "output_attentions": BOOL,
    "return_dict": BOOL,
    "dtype": Rule(
        "one of float16, bfloat16, float32, float64, or None",
        lambda v: v is None or (isinstance(v, str) and v in ("float16", "bfloat16", "float32", "float64")),
        _kept_dtype,
    ),
    "pruned_heads": Rule(
        "a dict of layer index to a list of head indices",
        lambda v: (
            isinstance(v, dict)
            and all(is_int(k) and isinstance(heads, list) and all(map(is_int, heads)) for k, heads in v.items())
        ),
        _kept_heads,
    ),
    "architectures": Rule(
        "a list of class names, or None",
        lambda v: v is None or (isinstance(v, list) and all(isinstance(name, str) for name in v)),
        _kept_names,
    ),
    "id2label": _Labels("labels", lambda v: True),
    "label2id": Rule(  # after id2label, which it follows
        "a dict of label to class index",
        lambda v: isinstance(v, dict) and all(isinstance(k, str) and is_int(i) for k, i in v.items()),
        _kept_indices,
    ),
    "problem_type": optional(one_of(*PROBLEM_TYPES)),
    "transformers_version": optional(TEXT),
    "name_or_path": TEXT,
    "hub_commit": optional(TEXT),
    "attn_implementation": optional(one_of(*ATTENTION_IMPLEMENTATIONS)),
}
