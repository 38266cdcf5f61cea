"""Configurations: what a model is built from, checked once, written as transformers 4.57 writes them."""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

from vit_core.atomic_folder import write_file
from vit_core.config_rules import (
    ACTIVATION,
    ACTIVATIONS,
    ATTENTION_IMPLEMENTATIONS,
    BASE_DEFAULTS,
    BASE_RULES,
    BOOL,
    HEADS,
    LAYERS,
    MASK_RATIO,
    PROBLEM_TYPES,
    SHARED_RULES,
    SIDE,
    WIDTH,
    Rule,
)
from vit_core.errors import ConfigError
from vit_core.foreign_fields import FOREIGN, Spelling
from vit_core.jsonfile import check_text, json_text, read_json
from vit_core.labels import inverse, settle_labels
from vit_core.limits import LIMITS
from vit_core.near_misses import NearMisses
from vit_core.plain_values import is_int, short
from vit_core.presets import PRESETS
from vit_core.upload import PushToHub

CONFIG_NAME = "config.json"

# The release whose files ours match; written into new files, a version that was read is kept.
TRANSFORMERS_VERSION = "4.57.6"

__all__ = [
    "ACTIVATIONS",
    "ATTENTION_IMPLEMENTATIONS",
    "CONFIGS",
    "CONFIG_NAME",
    "PROBLEM_TYPES",
    "TRANSFORMERS_VERSION",
    "AutoConfig",
    "PretrainedConfig",
    "Size",
    "ViTConfig",
    "ViTMAEConfig",
    "pair",
    "patch_grid",
    "read_config",
]

Size = int | tuple[int, int]

logger = logging.getLogger("vitriad")

_SEARCHED = 1_000  # unknown keys of a file that are looked at for misspellings: nobody types more
_UNWRITTEN = ("name_or_path", "hub_commit", "attn_implementation")
_SPELLINGS = {"torch_dtype": "dtype", "_name_or_path": "name_or_path", "_attn_implementation": "attn_implementation"}


class PretrainedConfig(PushToHub):
    """What ViTConfig and ViTMAEConfig share; not built directly.

    Known fields are attributes, checked alone when they are assigned; how they fit together is checked by the
    constructor, by `validate()`, and by every model. Unknown keys are kept in `extra`, readable as attributes, and
    written back: they are inert, and never stand in front of a field or a method. Keys that ask for another model
    (`vit_core.foreign_fields`) pass with the values that ask for nothing.

    Raises:
        ConfigError: listing every violation; also for a key that asks for what is not here, and for one that is most
            likely a field misspelt, unless it stands in a file: there it is kept, with one warning.

    Labels are kept as `id2label`, for every index from 0 on, and may be given as a dict or a list. `label2id` is the
    inverse, anew whenever `id2label` is assigned; one that is given beside it, or assigned after it, is kept. A dict
    that is changed in place is seen by `validate()` and by every save, but label2id does not follow it.

    Differs: label2id is never null; indices written as strings become ints in both, and numbers as labels text; indices
    that are not 0 to n - 1, and two numbers of labels that disagree, are errors; `pooler_output_size` follows
    `hidden_size` until it is set to something else.
    """

    model_type: ClassVar[str] = ""
    _rules: ClassVar[Mapping[str, Rule]] = BASE_RULES
    _defaults: ClassVar[Mapping[str, Any]] = BASE_DEFAULTS
    _parameters: ClassVar[frozenset[str]] = frozenset()  # of the constructor, and of those it overrides
    _misspelt: ClassVar[NearMisses] = NearMisses(())

    def __init_subclass__(cls) -> None:
        parameters = [*inspect.signature(cls.__init__).parameters.values()]
        own = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        cls._defaults = {**cls._defaults, **own}
        cls._parameters |= {p.name for p in parameters}
        cls._misspelt = NearMisses([*dict.fromkeys([*cls._defaults, "num_labels"])], FOREIGN)

    def __init__(self, fields: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        given = {name: v for name, v in _canonical(others).items() if v is not None or name not in BASE_RULES}
        problems = settle_labels(given)
        vars(self)["extra"] = {}
        wrong = self._assign({**deepcopy(BASE_DEFAULTS), **fields, **given})
        fits = [text for text in self._violations() if not {*re.findall(r"\w+", text)} & {*wrong}]
        self._raise([*problems, *wrong.values(), *fits])

    def _assign(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Assigns every key, those that are refused to their defaults; returns what is wrong with which."""
        wrong = {}
        fields = [name for name in self._rules if name in values]  # label2id after id2label, which it follows
        for name in [*fields, *(name for name in values if name not in self._rules)]:
            try:
                setattr(self, name, values[name])
            except ConfigError as error:
                wrong[name] = str(error).removeprefix(f"{type(self).__name__}.")
                if name in self._rules and name not in vars(self):  # so that the others can be checked
                    setattr(self, name, deepcopy(self._defaults[name]))
        return wrong

    def __setattr__(self, name: str, value: Any) -> None:
        name = _SPELLINGS.get(name, name)
        if rule := self._rules.get(name):
            vars(self)[name] = rule.checked(f"{type(self).__name__}.{name}", value)
            if name == "id2label":
                vars(self)["label2id"] = inverse(self.id2label)
        elif getattr(getattr(type(self), name, None), "fset", None):
            object.__setattr__(self, name, value)
        elif problem := self._why_foreign(name, value):
            raise ConfigError(f"{type(self).__name__}.{name}: {problem}")
        elif name in self._parameters or not isinstance(
            FOREIGN.get(name), Spelling
        ):  # that of a field, which may change
            self.extra[name] = value

    def __getattr__(self, name: str) -> Any:
        name = _SPELLINGS.get(name, name)
        if name in vars(self):
            return vars(self)[name]
        if name in (extra := vars(self).get("extra", {})) and not name.startswith("_"):
            return extra[name]
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    @property
    def num_labels(self) -> int:
        """Number of classes: the length of `id2label`. Setting another number renames them LABEL_0, LABEL_1, …"""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        labels: dict[str, Any] = {"num_labels": num_labels}
        if problems := settle_labels(labels) or ["num_labels: expected an int, got None"] * (num_labels is None):
            raise ConfigError(f"{type(self).__name__}.{problems[0]}")
        if num_labels != self.num_labels:
            self.id2label = labels["id2label"]

    @property
    def use_return_dict(self) -> bool:
        """Whether calls return outputs with named fields rather than tuples (as the key torchscript wants them)."""
        return bool(self.return_dict) and not self.extra.get("torchscript")

    def validate(self) -> None:
        """Checks every field, as it is by now, and how the fields fit together.

        Raises:
            ConfigError: listing every violation.
        """
        wrong = self._assign({name: vars(self)[name] for name in self._rules})
        self._raise([*wrong.values()] or [*self._violations()])

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """The configuration of a published size, such as "vit-base-patch16-224" or "vit-mae-base".

        Source: vit_core/presets.py, which cites the tables of the papers.
        """
        known = PRESETS[cls.model_type]
        if name not in known:
            raise ConfigError(f"{cls.__name__}.preset: no preset {name!r}.\nExpected one of {', '.join(known)}.")
        return cls(**{**known[name], **overrides})

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """The configuration stored in a folder, a JSON file or a hub repository.

        Args:
            name_or_path: folder holding config.json, a weight file beside it, a JSON file, or "owner/name" on the hub.
            return_unused_kwargs: return (config, keywords that are no fields) instead of refusing such keywords.
            **kwargs: hub options (`vit_core.hub.HUB_OPTIONS`), limits, and fields that override those of the file.

        Raises:
            MissingFileError: no such file; a folder without config.json is never a default configuration.
            ConfigError: the file, or an override, is invalid.
        """
        data, overrides = read_config(name_or_path, kwargs)
        return cls.from_dict(data, return_unused_kwargs=return_unused_kwargs, **overrides)

    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """The configuration in a plain dict, with overrides; between ViT and ViTMAE the other's own fields are dropped.

        Raises:
            ConfigError: the dict is invalid, or of another model type, or (unless `return_unused_kwargs`) a keyword
                is neither a field nor a key of the dict.
        """
        data = cls._own(config_dict)
        known = {*cls._rules, *_SPELLINGS, "num_labels", *FOREIGN, *data}
        unused = {name: value for name, value in kwargs.items() if name not in known}
        if unused and not return_unused_kwargs:
            meant = [repr(near) for name in unused if (near := cls._misspelt.of(name))]
            advice = f"\nDid you mean {', '.join(meant)}?" if meant else ""
            raise ConfigError(f"{cls.__name__}: no field called {', '.join(map(repr, unused))}.{advice}")
        overrides = {name: value for name, value in kwargs.items() if name in known}
        config = cls._stored(data, overrides)
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def _stored(cls, data: Mapping[str, Any], overrides: Mapping[str, Any]) -> Self:
        """The configuration of a file, in which misspelt keys are kept as they are, with one warning."""
        fields = {*cls._rules, *cls._parameters, *_SPELLINGS, "num_labels", *FOREIGN, *overrides}
        others = [name for name in data if name not in fields]
        near = {name: meant for name in others[:_SEARCHED] if (meant := cls._misspelt.of(name))}
        aside = {*(near if len(others) <= _SEARCHED else others)}
        plain = {name: value for name, value in data.items() if name not in aside}
        config = cls(**_merge(cls._without_spellings(plain) if overrides else plain, {**overrides}))
        config.extra.update({name: data[name] for name in data if name in aside})
        if near:
            shown = [f"{name[:80]!r} (did you mean {meant!r}?)" for name, meant in [*near.items()][:5]]
            text = ", ".join([*shown, *([f"and {len(near) - 5} more"] if len(near) > 5 else [])])
            _warn_of_keys(config.name_or_path or cls.__name__, config.hub_commit, text)
        return config

    @classmethod
    def _without_spellings(cls, data: dict[str, Any]) -> dict[str, Any]:
        """`data` without the keys that say again what its own fields say, which overrides may change."""
        spelt = [name for name in data if isinstance(FOREIGN.get(name), Spelling)]
        if not spelt:
            return data
        try:
            config = cls(**{name: value for name, value in data.items() if name not in spelt})
        except ConfigError:  # an override may mend it
            return data
        return {n: value for n, value in data.items() if n not in spelt or FOREIGN[n].problem(config, value)}

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """The configuration in one JSON file."""
        return cls._stored(cls._own(read_json(Path(json_file), limit="config_bytes", error=ConfigError)), {})

    def to_dict(self) -> dict[str, Any]:
        """Every field and every extra key, as a new dict."""
        version = self.transformers_version or TRANSFORMERS_VERSION
        return deepcopy({**self._content(), "transformers_version": version})

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds: every field of the architecture, the shared ones only where not at their default."""
        at_default = [name for name, default in BASE_DEFAULTS.items() if vars(self)[name] == default]
        dropped = {*at_default, *_UNWRITTEN} - {"transformers_version"}
        return {name: value for name, value in self.to_dict().items() if name not in dropped}

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json.

        Raises:
            ConfigError: a field holds something that JSON cannot, such as a callable activation.
        """
        try:
            return json_text(self.to_diff_dict() if use_diff else self.to_dict())
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{type(self).__name__} cannot be written as JSON: {error}.\n"
                "A callable activation lives in code only: use the name of a known one to save."
            ) from None

    def file_text(self, use_diff: bool = True) -> str:
        """As `to_json_string`, if a load with the default limits reads it: the text to save.

        Raises:
            ConfigError: listing every violation, as fields may have been changed since they were checked; or it cannot
                be written, or is too large or too deep to be read again.
        """
        self.validate()
        text = self.to_json_string(use_diff)
        return check_text(text, what=f"{type(self).__name__}: {CONFIG_NAME}", limit="config_bytes", error=ConfigError)

    def to_json_file(self, json_file_path: str | Path, use_diff: bool = True) -> None:
        """Writes `to_json_string` to a file, as a whole; its folder is made where missing."""
        write_file(json_file_path, self.file_text(use_diff), error=ConfigError)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes config.json into a folder, which is made where missing."""
        self.to_json_file(Path(save_directory) / CONFIG_NAME)

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Assigns every key of a dict and checks the whole; nothing is changed if anything is wrong."""
        changed = copy(self)
        vars(changed)["extra"] = {**self.extra}
        given = {**config_dict}
        problems = settle_labels(given)
        refused = {name: value for name, value in config_dict.items() if value is None}  # also of labels
        changed._raise([*problems, *changed._assign({**given, **refused}).values()])
        changed.validate()
        vars(self).update(vars(changed))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PretrainedConfig):
            return NotImplemented
        unlike = {"transformers_version": None, "name_or_path": None, "hub_commit": None}
        return {**self._content(), **unlike} == {**other._content(), **unlike}

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        try:
            text = self.to_json_string()
        except ConfigError:
            text = repr(self.to_diff_dict())
        return f"{type(self).__name__} {text}"

    def _content(self) -> dict[str, Any]:
        return {**self.extra, **{name: vars(self)[name] for name in self._rules}, "model_type": self.model_type}

    @classmethod
    def _own(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """`data` without its model type and, where it is the sibling's, without the fields only the sibling has."""
        found = data.get("model_type", cls.model_type)
        if not (isinstance(found, str) and found in CONFIGS):
            raise ConfigError(
                f"{cls.__name__}: expected model_type {cls.model_type!r}, got {short(found)}.\n"
                f"Models read here: {', '.join(CONFIGS)}."
            )
        foreign = {"model_type"} if found == cls.model_type else {"model_type", *CONFIGS[found]._rules} - {*cls._rules}
        return {name: value for name, value in data.items() if name not in foreign}

    def _why_foreign(self, name: str, value: Any) -> str | None:
        """Why a key that is no field is refused; None where it is not, as where a subclass takes it."""
        if name in self._parameters - {"self", "kwargs"}:
            return None
        if row := FOREIGN.get(name):
            return row.problem(self, value)
        near = self._misspelt.of(name)
        return f"no such field; did you mean {near!r}" if near else None

    def _violations(self) -> Iterator[str]:
        """Cross-field checks; every field is valid on its own by now."""
        yield from _indivisible(self, "hidden_size", "num_attention_heads")
        for axis, image, patch in zip(("height", "width"), pair(self.image_size), pair(self.patch_size), strict=True):
            if patch > image:
                yield f"patch_size: expected a {axis} of at most image_size {image}, got {patch}"
        for layer, heads in self.pruned_heads.items():
            known = {*range(self.num_attention_heads)}
            if not 0 <= layer < self.num_hidden_layers or not {*heads} < known:
                yield (
                    f"pruned_heads: expected layers below {self.num_hidden_layers}, heads below "
                    f"{self.num_attention_heads} and one head left in each, got {layer}: {short(heads)}"
                )
        if outside := next((label for label, i in self.label2id.items() if not 0 <= i < self.num_labels), None):
            yield (
                f"label2id: expected classes of id2label, 0 to {self.num_labels - 1}, got "
                f"{short({outside: self.label2id[outside]})}; where none is given, it follows id2label"
            )
        for name, value in self.extra.items():
            if name in FOREIGN and (problem := self._why_foreign(name, value)):
                yield f"{name}: {problem}"
        if (weights := self._num_weights()) > LIMITS.parameters:
            yield f"the sizes together: about {weights} parameters, the limit is {LIMITS.parameters}"

    def _num_weights(self) -> int:
        """About how many parameters the largest model of this configuration has."""
        rows, columns = patch_grid(self)
        pixels = math.prod(pair(self.patch_size)) * self.num_channels
        layers = self.num_hidden_layers * (4 * self.hidden_size + 2 * self.intermediate_size)
        total: int = self.hidden_size * (rows * columns + pixels + layers + self.num_labels)
        return total

    def _raise(self, problems: list[str]) -> None:
        if problems:
            of = f" of {self.name_or_path}" if self.name_or_path else ""
            count = f"{len(problems)} invalid setting{'s' if len(problems) > 1 else ''}"
            shown = [*problems[:20], *([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])]
            raise ConfigError(f"{type(self).__name__}{of}: {count}:\n{'; '.join(shown)}.")


class ViTConfig(PretrainedConfig):
    """Configuration of a Vision Transformer; the defaults are ViT-Base/16 at 224 pixels.

    Args:
        hidden_size: width of every token; divisible by `num_attention_heads`.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads of each attention.
        intermediate_size: width of the MLP.
        hidden_act: activation of the MLP: a name in `ACTIVATIONS`, or a callable of the backend (cannot be saved).
        hidden_dropout_prob: dropout after the embeddings, the attention output and the MLP output.
        attention_probs_dropout_prob: dropout of the attention probabilities.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: epsilon of every LayerNorm.
        image_size: pixels, int for a square or (height, width).
        patch_size: pixels, int for a square or (height, width).
        num_channels: channels of the images.
        qkv_bias: whether query, key and value have biases.
        encoder_stride: pixels per patch side that the masked-image-modelling head paints.
        pooler_output_size: width of the pooler; None or 0 means hidden_size.
        pooler_act: activation of the pooler.
        **kwargs: the shared fields: num_labels, id2label, label2id, problem_type, output_attentions,
            output_hidden_states, return_dict, dtype (or torch_dtype), attn_implementation ("sdpa" | "eager"),
            pruned_heads, architectures; anything else is kept in `extra`.

    Raises:
        ConfigError: listing every violation.
    """

    model_type = "vit"
    _rules: ClassVar[Mapping[str, Rule]] = {
        **BASE_RULES,
        **SHARED_RULES,
        "encoder_stride": SIDE,
        "pooler_output_size": WIDTH,
        "pooler_act": ACTIVATION,
    }

    def __init__(
        self,
        /,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        image_size: Size = 224,
        patch_size: Size = 16,
        num_channels: int = 3,
        qkv_bias: bool = True,
        encoder_stride: int = 16,
        pooler_output_size: int | None = None,
        pooler_act: str | Callable[..., Any] = "tanh",
        **kwargs: Any,
    ) -> None:
        super().__init__({name: value for name, value in locals().items() if name in self._rules}, kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        hidden_size = vars(self).get("hidden_size")
        if name == "pooler_output_size" and (value is None or (is_int(value) and value == 0)):
            value = hidden_size
        super().__setattr__(name, value)
        if name == "hidden_size" and vars(self).get("pooler_output_size", 0) == hidden_size:
            super().__setattr__("pooler_output_size", value)

    def _violations(self) -> Iterator[str]:
        yield from super()._violations()
        yield from _odd_glu(self, "hidden_act", "intermediate_size")
        yield from _odd_glu(self, "pooler_act", "pooler_output_size")

    def _num_weights(self) -> int:
        heads: int = self.hidden_size * (self.pooler_output_size + self.encoder_stride**2 * self.num_channels)
        return super()._num_weights() + heads


class ViTMAEConfig(PretrainedConfig):
    """Configuration of a Masked Autoencoder; the defaults are ViTMAE-Base at 224 pixels.

    Args:
        hidden_size … qkv_bias: as in `ViTConfig`; hidden_size is divisible by 4 as well (sin-cos positions).
        decoder_num_attention_heads: heads of each decoder attention.
        decoder_hidden_size: width of the decoder; divisible by its heads and by 4.
        decoder_num_hidden_layers: decoder layers.
        decoder_intermediate_size: width of the decoder's MLP.
        mask_ratio: share of the patches hidden from the encoder, in [0, 1).
        norm_pix_loss: whether the loss compares pixels normalised per patch.
        **kwargs: as in `ViTConfig`.

    Raises:
        ConfigError: listing every violation.
    """

    model_type = "vit_mae"
    _rules: ClassVar[Mapping[str, Rule]] = {
        **BASE_RULES,
        **SHARED_RULES,
        "decoder_num_attention_heads": HEADS,
        "decoder_hidden_size": WIDTH,
        "decoder_num_hidden_layers": LAYERS,
        "decoder_intermediate_size": WIDTH,
        "mask_ratio": MASK_RATIO,
        "norm_pix_loss": BOOL,
    }

    def __init__(
        self,
        /,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        image_size: Size = 224,
        patch_size: Size = 16,
        num_channels: int = 3,
        qkv_bias: bool = True,
        decoder_num_attention_heads: int = 16,
        decoder_hidden_size: int = 512,
        decoder_num_hidden_layers: int = 8,
        decoder_intermediate_size: int = 2048,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__({name: value for name, value in locals().items() if name in self._rules}, kwargs)

    def _violations(self) -> Iterator[str]:
        yield from super()._violations()
        yield from _indivisible(self, "decoder_hidden_size", "decoder_num_attention_heads")
        if self.norm_pix_loss and math.prod(pair(self.patch_size)) * self.num_channels == 1:
            yield "norm_pix_loss: expected patches of at least 2 numbers (one alone has no variance), got 1"
        for name in ("hidden_size", "decoder_hidden_size"):
            if (width := getattr(self, name)) % 4:
                yield f"{name}: expected a multiple of 4 for the sin-cos positions, got {width}"
        yield from _odd_glu(self, "hidden_act", "intermediate_size")
        yield from _odd_glu(self, "hidden_act", "decoder_intermediate_size")

    def _num_weights(self) -> int:
        rows, columns = patch_grid(self)
        pixels = math.prod(pair(self.patch_size)) * self.num_channels
        layers = self.decoder_num_hidden_layers * (4 * self.decoder_hidden_size + 2 * self.decoder_intermediate_size)
        decoder: int = self.decoder_hidden_size * (rows * columns + pixels + layers + self.hidden_size)
        return super()._num_weights() + decoder


CONFIGS: dict[str, type[PretrainedConfig]] = {config.model_type: config for config in (ViTConfig, ViTMAEConfig)}


class AutoConfig:
    """Reads a configuration of whichever class its `model_type` names."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, **kwargs: Any) -> Any:
        """As `ViTConfig.from_pretrained`, for the class that the file names.

        Raises:
            ConfigError: model_type is missing or not one of "vit", "vit_mae".
        """
        unused = kwargs.pop("return_unused_kwargs", False)
        data, overrides = read_config(name_or_path, kwargs)
        config_class = _class_of(data.get("model_type"), str(name_or_path))
        return config_class.from_dict(data, return_unused_kwargs=unused, **overrides)

    @staticmethod
    def for_model(model_type: str, **kwargs: Any) -> PretrainedConfig:
        """A new configuration of the class for `model_type`."""
        return _class_of(model_type, "AutoConfig.for_model")(**kwargs)


def read_config(name_or_path: str | Path, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON object of a stored configuration, with its origin, and the fields among `kwargs`."""
    from vit_core.hub import HUB_OPTIONS, commit_of, resolve
    from vit_core.weight_files import is_weights

    options = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
    overrides = {name: value for name, value in kwargs.items() if name not in HUB_OPTIONS}
    limits = overrides.pop("limits", LIMITS)
    path = Path(name_or_path)
    if is_weights(path.name) or (path.suffix != ".json" and not os.path.isfile(path)):
        path = resolve(name_or_path, [CONFIG_NAME], **options) / CONFIG_NAME
    data = read_json(path, limit="config_bytes", error=ConfigError, limits=limits)
    return {**data, "name_or_path": str(name_or_path), "hub_commit": commit_of(path)}, overrides


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size given as an int or as such a pair."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def patch_grid(config: PretrainedConfig, image_size: Size | None = None) -> tuple[int, int]:
    """(rows, columns) of whole patches in an image.

    Args:
        config: gives the patch size and, without `image_size`, the image size.
        image_size: pixels, int or (height, width).
    """
    height, width = pair(config.image_size if image_size is None else image_size)
    patch_height, patch_width = pair(config.patch_size)
    return height // patch_height, width // patch_width


@lru_cache(maxsize=256)
def _warn_of_keys(where: str, commit: str | None, text: str) -> None:
    """Warns once per checkpoint, which is often read twice: for its class, and by it."""
    del commit
    logger.warning("%s: config.json: kept, but no fields: %s", where, text)


def _class_of(model_type: object, where: str) -> type[PretrainedConfig]:
    if isinstance(model_type, str) and model_type in CONFIGS:
        return CONFIGS[model_type]
    raise ConfigError(f"{where}: expected model_type to be one of {', '.join(CONFIGS)}, got {short(model_type)}.")


def _canonical(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` under our own names; of two spellings ours wins, and None counts as not given."""
    ours = {name: value for name, value in given.items() if name not in _SPELLINGS}
    for spelling, name in _SPELLINGS.items():
        if given.get(spelling) is not None and ours.get(name) is None:
            ours[name] = given[spelling]
    return ours


def _merge(data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Overrides laid over a file's keys; derived values that nobody overrode are derived anew."""
    data, overrides = _canonical(data), _canonical(overrides)
    labels, stale = data.get("id2label"), set()
    known = len(labels) if isinstance(labels, Mapping | list | tuple) else data.get("num_labels", 2)
    if overrides.get("id2label") is not None or overrides.get("num_labels") not in (None, known):
        stale |= {"id2label", "label2id", "num_labels"}
    if "hidden_size" in overrides and data.get("pooler_output_size") == data.get("hidden_size"):
        stale.add("pooler_output_size")
    return {**{name: value for name, value in data.items() if name not in stale}, **overrides}


def _indivisible(config: PretrainedConfig, width: str, heads: str) -> Iterator[str]:
    if getattr(config, width) % getattr(config, heads):
        yield f"{width}: expected a multiple of {heads} {getattr(config, heads)}, got {getattr(config, width)}"


def _odd_glu(config: PretrainedConfig, activation: str, width: str) -> Iterator[str]:
    if getattr(config, activation) == "glu" and getattr(config, width) % 2:
        yield f"{width}: expected an even number for {activation} 'glu', which halves it, got {getattr(config, width)}"
