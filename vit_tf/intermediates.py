"""Features from inside an encoder: what `vit_core.intermediates` needs of Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops
from tensorflow import Tensor

from vit_core.inputs import Grid
from vit_core.intermediates import Intermediates
from vit_tf.graphs import Graphs


class TFIntermediates(Intermediates):
    """The tensors of `forward_intermediates` and `get_intermediate_layers`."""

    def _images_of(self: Any, pixel_values: Any) -> tuple[Tensor, Grid]:
        images: tuple[Tensor, Grid] = self._checked_images(self._as_tensor("pixel_values", pixel_values), True)
        return images

    def _first_layers(self: Any, depth: int, call: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        kept = self._graphs.of_first_layers  # a graph is known by its layers: the same objects at every call
        if depth not in kept:
            encoder = _twin(self.encoder, {"layer": [*self.encoder.layer[:depth]]})
            kept[depth] = _twin(self, {"encoder": encoder, "_graphs": Graphs()})
        made = kept[depth]
        for twin, whole in ((made.encoder, self.encoder), (made, self)):  # what was set since, such as checkpointing
            own = {name: vars(twin)[name] for name in ("layer", "encoder", "_graphs") if name in vars(twin)}
            vars(twin).update({**vars(whole), **own})
        return made, dict(call)

    def _normed(self: Any, state: Tensor, call: Mapping[str, Any]) -> Tensor:
        return self.layernorm(state)

    def _as_map(self: Any, patches: Tensor, grid: Grid) -> Tensor:
        maps = ops.reshape(patches, (-1, grid.rows, grid.columns, self.config.hidden_size))
        return ops.transpose(maps, (0, 3, 1, 2))


def _twin(whole: Any, parts: Mapping[str, Any]) -> Any:
    """A layer that differs in some parts and shares all others: neither is copied, nor told of the other."""
    made = object.__new__(type(whole))
    vars(made).update({**vars(whole), **parts})
    return made
