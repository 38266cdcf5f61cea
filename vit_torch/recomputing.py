"""Layers that are computed anew in the backward pass: gradient checkpointing, under both names that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from vit_core.errors import InputError


@dataclass(frozen=True)
class Recomputing:
    """How layers are computed anew in the backward pass instead of keeping their activations.

    Attributes:
        every_n_layers: 1 for every layer; n for the first of each n, the others keep theirs.
        offload: whether what is kept, the input of each such layer, waits in the host's memory.
        keywords: of `torch.utils.checkpoint.checkpoint`.
    """

    every_n_layers: int = 1
    offload: bool = False
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, place: int, layer: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a layer, the place of which in its stack is counted from 0."""
        if place % self.every_n_layers:
            return layer(*arguments)
        with save_on_cpu(pin_memory=torch.accelerator.is_available()) if self.offload else nullcontext():
            return checkpoint(layer, *arguments, **self.keywords)


class Recomputed:
    """Gives a model the switches of gradient checkpointing, under both names that transformers has for them.

    Parts with a stack of layers have an attribute `recomputing`: a `Recomputing` while it is on, else None.
    """

    supports_gradient_checkpointing = True

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recomputes layers in the backward pass instead of keeping their activations (in training mode).

        Args:
            activation_checkpointing_kwargs: keywords of `torch.utils.checkpoint.checkpoint`; use_reentrant is False
                unless given.
            every_n_layers: recompute the first of each so many layers, of the encoder and of the decoder.
            offload: keep what is still kept in the host's memory.

        Raises:
            InputError: `every_n_layers` is no count.
        """
        if isinstance(every_n_layers, bool) or not isinstance(every_n_layers, int) or every_n_layers < 1:
            raise InputError(
                f"{type(self).__name__}: every_n_layers: expected an int of at least 1, got {every_n_layers!r}."
            )
        keywords = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        self._set_recomputing(Recomputing(every_n_layers, offload, keywords))

    def activation_checkpointing_disable(self) -> None:
        """Keeps activations for the backward pass again."""
        self._set_recomputing(None)

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """`activation_checkpointing_enable` under its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """`activation_checkpointing_disable` under its older name."""
        self.activation_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether layers are recomputed."""
        return any(part.recomputing is not None for part in self._stacks())

    @property
    def is_gradient_checkpointing(self) -> bool:
        """`is_activation_checkpointing` under its older name."""
        return self.is_activation_checkpointing

    def _set_recomputing(self, recomputing: Recomputing | None) -> None:
        for part in self._stacks():
            part.recomputing = recomputing

    def _stacks(self) -> Iterator[Any]:
        return (module for module in self.modules() if hasattr(module, "recomputing"))  # type: ignore[attr-defined]


class InferenceOnly:
    """Marks modules that compute without gradients; see `vit_torch.inference`."""
