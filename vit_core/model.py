"""What the model classes of all backends share, whatever a tensor is: configuration, switches of a call, pruning.

`conversion.model` adds loading and saving; the `pretrained.py` of a backend what needs its framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, NamedTuple

from vit_core.config import PretrainedConfig, pair
from vit_core.errors import InputError
from vit_core.hub.upload import PushToHub
from vit_core.inputs import Grid, warn_unseen
from vit_core.parameters import BASE_CLASSES, Parameter, class_name, parameter_table, pruned_heads


class Flags(NamedTuple):
    """The three output switches of a call, settled, and what else the framework's layers are told in a call."""

    attentions: bool
    hidden_states: bool
    return_dict: bool
    others: Mapping[str, bool] | None = None

    def named(self) -> dict[str, bool]:
        """All but the third, by the names of arguments."""
        return {"output_attentions": self.attentions, "output_hidden_states": self.hidden_states, **(self.others or {})}

    def nested(self, grid: Grid) -> dict[str, Any]:
        """The same for a model inside another one, which takes its outputs by name, and images that were checked."""
        return {**self.named(), "return_dict": True, "interpolate_pos_encoding": grid}


class NeutralModel(PushToHub):
    """Base of every model class of every backend.

    A backend says how it prunes (`_prune`), which of its parts attend (`_parts`) and what its weights hold (`_sizes`).

    Attributes:
        config: the model's own copy of its configuration.
        options: constructor options of the class: add_pooling_layer and use_mask_token, where it has them.
        _called_as: name of the model in messages; for a model inside another one the outer one's.
    """

    config_class: ClassVar[type[PretrainedConfig]]
    base_model_prefix: ClassVar[str] = "vit"
    main_input_name: ClassVar[str] = "pixel_values"
    framework: ClassVar[str]
    config: Any
    options: dict[str, bool]
    _called_as: str

    @classmethod
    def can_generate(cls) -> bool:
        """False: these models do not generate text."""
        return False

    def _settle(self, config: PretrainedConfig) -> None:
        """Keeps a copy of the configuration, once it is known to be valid.

        Raises:
            InputError: it is of another class.
            ConfigError: a field is invalid.
        """
        model = type(self).__name__
        if not isinstance(config, self.config_class):
            raise InputError(
                f"{model}: expected a {self.config_class.__name__}, got {type(config).__name__}.\n"
                f"To load a checkpoint, use {model}.from_pretrained(...)."
            )
        config.validate()
        warn_unseen(pair(config.image_size), pair(config.patch_size))
        self._called_as = model
        self.config = deepcopy(config)

    def parameter_table(self) -> dict[str, Parameter]:
        """Every parameter of this model: canonical name -> shape, kind, initialiser, trainability."""
        return parameter_table(self.config, type(self), **self.options)

    def _flags(
        self, output_attentions: bool | None, output_hidden_states: bool | None, return_dict: bool | None
    ) -> Flags:
        """The output switches of a call, None meaning the configuration's value."""
        config = self.config
        return Flags(
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            config.use_return_dict if return_dict is None else return_dict,
        )

    @property
    def base_model(self) -> Any:
        """The encoder: this model itself, or the one inside a model with a head."""
        return self if class_name(type(self)) in BASE_CLASSES else getattr(self, self.base_model_prefix)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold.

        Args:
            only_trainable: leave out what gets no gradient.
            exclude_embeddings: leave out the patch projection, the tokens and the positions.
        """
        embeddings = ("embeddings.", f"{self.base_model_prefix}.embeddings.")
        return sum(
            size
            for name, size, is_trainable in self._sizes()
            if (is_trainable or not only_trainable) and not (exclude_embeddings and name.startswith(embeddings))
        )

    def _sizes(self) -> Iterable[tuple[str, int, bool]]:
        """Canonical name, count of numbers, and whether it is trained, of every parameter."""
        raise NotImplementedError

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Chooses "sdpa" or "eager" attention for every layer.

        Raises:
            ConfigError: another name.
        """
        self.config.attn_implementation = attn_implementation
        for part in self._parts():
            if hasattr(part, "implementation"):
                part.implementation = attn_implementation

    def _parts(self) -> Iterable[Any]:
        """The layers that the model holds; none where they are made anew from the configuration."""
        return ()

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Removes attention heads from the encoder.

        Args:
            heads_to_prune: layer, from the end where negative -> heads, numbered as in the unpruned model. Heads that
                are gone are passed over.

        Raises:
            ConfigError: no such layer or head, or none would be left in a layer. Nothing is pruned then.
        """
        new, every = pruned_heads(self.config, heads_to_prune)
        self._prune(new)
        self.config.pruned_heads = every

    def _prune(self, heads: Mapping[int, Sequence[int]]) -> None:
        """Cuts heads out of the weights, given by layer; heads that are gone are passed over."""
        raise NotImplementedError
