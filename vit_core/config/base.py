"""What every configuration shares: fields that are checked, unknown keys, labels, and the ways to and from files."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from copy import copy, deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, Unpack, overload

from vit_core.config.foreign_fields import FOREIGN, NEUTRAL, ROWS, Spelling
from vit_core.config.labels import inverse, settle_labels
from vit_core.config.near_misses import NearMisses
from vit_core.config.presets import PRESETS
from vit_core.config.relatives import OWN_TYPE, READ, as_vit
from vit_core.config.rules import BASE_DEFAULTS, BASE_RULES, Rule
from vit_core.config.sizes import indivisible, pair, patch_grid
from vit_core.config.stored import CONFIG_NAME, SEARCHED, SPELLINGS, canonical, merge, read_config, warn_of_keys
from vit_core.errors import ConfigError
from vit_core.files.atomic_folder import write_file
from vit_core.files.json import check_text, json_text, read_json
from vit_core.hub.upload import PushToHub
from vit_core.keywords import ConfigKeywords
from vit_core.limits import LIMITS
from vit_core.plain_values import short

# The release whose files ours match; written into new files, a version that was read is kept.
TRANSFORMERS_VERSION = "4.57.6"

_UNWRITTEN = ("name_or_path", "hub_commit", "attn_implementation")

# What transformers' base configuration has of every model, for code that asks; a file's own value is in `extra`.
_OF_ANY_MODEL: Mapping[str, Any] = {
    **dict.fromkeys(("is_encoder_decoder", "is_decoder", "add_cross_attention", "tie_word_embeddings"), False),
    "torchscript": False,
    "sub_configs": MappingProxyType({}),
}

CONFIGS: dict[str, type[PretrainedConfig]] = {}  # by model_type


class PretrainedConfig(PushToHub):
    """What ViTConfig and ViTMAEConfig share; not built directly.

    Fields are attributes. Each is checked when it is assigned; whether they fit together is checked by the
    constructor, by `validate()`, and by every model. Unknown keys are kept in `extra`, can be read as attributes, and
    are saved again, but have no effect and never hide a field or a method. Keys of other programs that would change the
    model, such as `num_register_tokens` (`vit_core.config.foreign_fields`), are accepted only with a value that
    changes nothing.

    Raises:
        ConfigError: listing every violation. A key that is most likely a misspelt field is one too; in a file it is
            kept instead, with one warning.

    Labels are kept as `id2label`, with an entry for every index from 0 on, and may be given as a dict or a list.
    `label2id` is its inverse, and is computed again whenever `id2label` is assigned; a table of your own, given beside
    `id2label` or assigned after it, is kept. Changes of the dict in place are seen by `validate()` and are saved, but
    `label2id` does not follow them.

    Differs: label2id is never null; indices written as strings become ints in both, and numbers as labels text; indices
    that are not 0 to n - 1, and two numbers of labels that disagree, are errors; `pooler_output_size` follows
    `hidden_size` until it is set to something else.
    """

    model_type: ClassVar[str] = ""
    _rules: ClassVar[Mapping[str, Rule]] = BASE_RULES
    _defaults: ClassVar[Mapping[str, Any]] = BASE_DEFAULTS
    _parameters: ClassVar[frozenset[str]] = frozenset()  # of the constructor, and of those it overrides
    _misspelt: ClassVar[NearMisses] = NearMisses(())

    # Options that only a ViTConfig has as fields; here as every other configuration has them.
    use_class_token: Any = NEUTRAL["use_class_token"]
    num_register_tokens: Any = NEUTRAL["num_register_tokens"]
    use_mean_pooling: Any = NEUTRAL["use_mean_pooling"]
    norm_before_pooling: Any = NEUTRAL["norm_before_pooling"]
    pool_class_token: Any = NEUTRAL["pool_class_token"]
    layerscale_value: Any = NEUTRAL["layerscale_value"]
    use_swiglu_ffn: Any = NEUTRAL["use_swiglu_ffn"]

    def __init_subclass__(cls) -> None:
        parameters = [*inspect.signature(cls.__init__).parameters.values()]
        own = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        cls._defaults = {**cls._defaults, **own}
        cls._parameters |= {p.name for p in parameters}
        cls._misspelt = NearMisses([*dict.fromkeys([*cls._defaults, "num_labels"])], ROWS)

    def __init__(self, fields: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        given = {name: v for name, v in canonical(others).items() if v is not None or name not in BASE_RULES}
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
        name = SPELLINGS.get(name, name)
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
        name = SPELLINGS.get(name, name)
        if name in vars(self):
            return vars(self)[name]
        if name in (extra := vars(self).get("extra", {})) and not name.startswith("_"):
            return extra[name]
        if name in _OF_ANY_MODEL:
            return _OF_ANY_MODEL[name]
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
    def drop_path_rates(self) -> tuple[float, ...]:
        """How likely each layer leaves out a branch for an image in training: none in the first, most in the last.

        Source: Huang et al., Deep Networks with Stochastic Depth (2016), section 3, counted from 0 as in BEiT and timm.
        """
        last = max(self.num_hidden_layers - 1, 1)
        return tuple(self.drop_path_rate * layer / last for layer in range(self.num_hidden_layers))

    @property
    def family_options(self) -> dict[str, Any]:
        """The options of the family that are not off, by field: what transformers' own ViT does not compute."""
        return {name: getattr(self, name) for name, off in NEUTRAL.items() if getattr(self, name) != off}

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens in front of the patches: the class token and registers."""
        return int(self.use_class_token) + int(self.num_register_tokens)

    @property
    def pooled_size(self) -> int:
        """How many numbers a classifier reads for an image: `hidden_size`, and twice that with `pool_class_token`."""
        return int(self.hidden_size) * (2 if self.pool_class_token else 1)

    @property
    def mlp_act(self) -> Any:
        """The activation of the MLP: `hidden_act`, or "swiglu" where `use_swiglu_ffn` asks for it."""
        return "swiglu" if self.use_swiglu_ffn else self.hidden_act

    @property
    def use_return_dict(self) -> bool:
        """Whether calls return outputs with named fields rather than tuples (as the key torchscript wants them)."""
        return bool(self.return_dict) and not self.extra.get("torchscript")

    def get_text_config(self, decoder: bool = False) -> Self:
        """This configuration itself: code for many kinds of models asks for the part about text, and here is none."""
        del decoder
        return self

    @property
    def _commit_hash(self) -> Any:
        """`hub_commit`, as pipelines of transformers ask for it."""
        return self.hub_commit

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

        Source: vit_core/config/presets.py, which cites the tables of the papers.
        """
        known = PRESETS[cls.model_type]
        if name not in known:
            raise ConfigError(f"{cls.__name__}.preset: no preset {name!r}.\nExpected one of {', '.join(known)}.")
        return cls(**{**known[name], **overrides})

    @overload
    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, return_unused_kwargs: Literal[False] = False, **kwargs: Unpack[ConfigKeywords]
    ) -> Self: ...
    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """The configuration stored in a folder, a JSON file or a hub repository.

        Example:
            config = ViTConfig.from_pretrained("my-vit", num_labels=10)
            config, unused = ViTConfig.from_pretrained("my-vit", return_unused_kwargs=True, mine=1)

        Args:
            name_or_path: folder holding config.json, a weight file beside it, a JSON file, or "owner/name" on the hub.
            return_unused_kwargs: return (config, keywords that are no fields) instead of refusing such keywords.
            **kwargs: `vit_core.keywords.ConfigKeywords`: revision, subfolder, cache_dir, token, local_files_only,
                force_download and endpoint (see `vit_core.hub.download.Repository`), limits, and fields that override
                those of the file.

        Raises:
            MissingFileError: no such file; a folder without config.json is never a default configuration.
            ConfigError: the file, or an override, is invalid.
        """
        data, overrides = read_config(name_or_path, kwargs)
        read: Any = cls.from_dict
        return read(data, return_unused_kwargs=return_unused_kwargs, **overrides)

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...
    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **kwargs: Any
    ) -> Self: ...
    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """The configuration in a plain dict, with overrides; between ViT and ViTMAE the other's own fields are dropped.

        Raises:
            ConfigError: the dict is invalid, or of another model type, or (unless `return_unused_kwargs`) a keyword
                is neither a field nor a key of the dict.
        """
        data = cls._own(config_dict)
        known = {*cls._rules, *SPELLINGS, "num_labels", *ROWS, *data}
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
        fields = {*cls._rules, *cls._parameters, *SPELLINGS, "num_labels", *ROWS, *overrides}
        others = [name for name in data if name not in fields]
        near = {name: meant for name in others[:SEARCHED] if (meant := cls._misspelt.of(name))}
        aside = {*(near if len(others) <= SEARCHED else others)}
        plain = {name: value for name, value in data.items() if name not in aside}
        config = cls(**merge(cls._without_spellings(plain) if overrides else plain, {**overrides}))
        config.extra.update({name: data[name] for name in data if name in aside})
        if near:
            shown = [f"{short(name)} (did you mean {meant!r}?)" for name, meant in [*near.items()][:5]]
            text = ", ".join([*shown, *([f"and {len(near) - 5} more"] if len(near) > 5 else [])])
            warn_of_keys(config.name_or_path or cls.__name__, config.hub_commit, text)
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
        defaults = {**BASE_DEFAULTS, **NEUTRAL}
        at_default = [name for name, default in defaults.items() if vars(self).get(name, default) == default]
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
        unlike = dict.fromkeys(("transformers_version", *_UNWRITTEN))
        return {**self._content(), **unlike} == {**other._content(), **unlike}

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        try:
            text = self.to_json_string()
        except ConfigError:
            text = repr(self.to_diff_dict())
        return f"{type(self).__name__} {text}"

    def _content(self) -> dict[str, Any]:
        model_type = OWN_TYPE if self.family_options else self.model_type
        return {**self.extra, **{name: vars(self)[name] for name in self._rules}, "model_type": model_type}

    @classmethod
    def _own(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """`data` without its model type and, where it is the sibling's, without the fields only the sibling has."""
        data = as_vit(data)
        found = data.get("model_type", cls.model_type)
        if not (isinstance(found, str) and found in CONFIGS):
            raise ConfigError(
                f"{cls.__name__}: expected model_type {cls.model_type!r}, got {short(found)}.\n"
                f"Models read here: {', '.join([*CONFIGS, *READ])}."
            )
        others = {*CONFIGS[found]._rules} - {*cls._rules}
        others -= {name for name, off in NEUTRAL.items() if data.get(name, off) != off}  # to be refused by name
        foreign = {"model_type", *others}
        return {name: value for name, value in data.items() if name not in foreign}

    def _why_foreign(self, name: str, value: Any) -> str | None:
        """Why a key that is no field is refused; None where it is not, as where a subclass takes it."""
        if name in self._parameters - {"self", "kwargs"}:
            return None
        if row := ROWS.get(name):
            return row.problem(self, value)
        near = self._misspelt.of(name)
        return f"no such field; did you mean {near!r}" if near else None

    def _violations(self) -> Iterator[str]:
        """Cross-field checks; every field is valid on its own by now."""
        yield from indivisible(self, "hidden_size", "num_attention_heads")
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
            if name in ROWS and (problem := self._why_foreign(name, value)):
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
