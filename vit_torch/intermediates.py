"""Features from inside an encoder: what `vit_core.intermediates` needs of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vit_core.inputs import Grid
from vit_core.intermediates import Intermediates


class TorchIntermediates(Intermediates):
    """The tensors of `forward_intermediates` and `get_intermediate_layers`."""

    def _images_of(self: Any, pixel_values: Any) -> tuple[Tensor, Grid]:
        images: tuple[Tensor, Grid] = self._checked_images(pixel_values, True)
        return images

    def _first_layers(self: Any, depth: int, call: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        encoder = _twin(self.encoder, layer=self.encoder.layer[:depth])
        return _twin(self, encoder=encoder), dict(call)

    def _normed(self: Any, state: Tensor, call: Mapping[str, Any]) -> Tensor:
        normed: Tensor = self.layernorm(state)
        return normed

    def _as_map(self, patches: Tensor, grid: Grid) -> Tensor:
        return patches.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))


def _twin(whole: Any, **parts: Any) -> Any:
    """A module that differs in some parts and shares all others: neither is copied, nor told of the other."""
    made = object.__new__(type(whole))
    vars(made).update(vars(whole))
    vars(made)["_modules"] = {**whole._modules, **parts}
    return made
