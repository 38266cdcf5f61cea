"""Features from inside an encoder, in the two forms that users of timm and of DINO know; for every backend.

A block is a layer of the encoder, numbered from 0; what block i gives is `hidden_states[i + 1]` of a call. Here is
which blocks are meant and in which form their outputs are given; a backend says how its tensors are cut and normalised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vit_core.errors import InputError
from vit_core.inputs import Grid
from vit_core.parameters import BASE_CLASSES, class_name
from vit_core.plain_values import is_int, plain, short

FORMATS = ("NCHW", "NLC")


class Intermediates:
    """The two calls, of an encoder of any backend."""

    config: Any

    def forward_intermediates(
        self,
        pixel_values: Any,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_format: str = "NCHW",
        return_prefix_tokens: bool = False,
        intermediates_only: bool = False,
        **call: Any,
    ) -> Any:
        """What blocks give, as timm's models of this name have it; images may have any size.

        Example:
            >>> last, (middle, late) = model.forward_intermediates(pixel_values, [5, -1])

        Args:
            pixel_values: as for a call; positions are resized where the size is not the configuration's. A masked
                autoencoder sees every patch.
            indices: blocks, from the end where negative; a number for so many last ones; None for all.
            norm: apply the final norm to each of them.
            stop_early: leave out the blocks behind the last one that is asked for.
            output_format: "NCHW" for maps (batch, hidden, rows, columns), "NLC" for (batch, patches, hidden).
            return_prefix_tokens: make each of them a pair with the class token and registers, (batch, count, hidden).
            intermediates_only: return the list alone.
            **call: other arguments of a call, such as `params` in Flax.

        Returns:
            the tokens (batch, tokens, hidden) of the last block that was computed, after the norm, and the list of what
            was asked for, in that order.

        Raises:
            InputError: no such block or form, or the images do not fit the model.

        Differs: timm sorts the list by depth.
        """
        if output_format not in FORMATS:
            raise InputError(
                f"{type(self).__name__}: output_format: expected {' or '.join(FORMATS)}, got {short(output_format)}."
            )
        blocks = self._blocks("indices", indices)
        last, states, grid = self._outputs_of(pixel_values, blocks, stop_early, norm, call)
        prefix = self.config.num_prefix_tokens
        found: list[Any] = [state[:, prefix:] for state in states]
        if output_format == "NCHW":
            found = [self._as_map(patches, grid) for patches in found]
        if return_prefix_tokens:
            found = [(patches, state[:, :prefix]) for patches, state in zip(found, states, strict=True)]
        return found if intermediates_only else (last, found)

    def get_intermediate_layers(
        self,
        x: Any,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
        **call: Any,
    ) -> tuple[Any, ...]:
        """What blocks give, as DINOv2's models have it; images may have any size.

        Args:
            x: as `pixel_values` of `forward_intermediates`.
            n: so many last blocks, or blocks by number.
            reshape: give maps (batch, hidden, rows, columns) instead of (batch, patches, hidden).
            return_class_token: make each of them a pair with the class token (batch, hidden).
            norm: apply the final norm.
            **call: other arguments of a call, such as `params` in Flax.

        Returns:
            for each block what was asked for, in that order.

        Raises:
            InputError: no such block, no class token, or the images do not fit the model.

        Source: dinov2 b8931f7b. DINO's own method of this name gives class token and patches in one tensor.
        """
        if return_class_token and not self.config.use_class_token:
            raise InputError(f"{type(self).__name__}: return_class_token: the model has none (use_class_token=False).")
        _, states, grid = self._outputs_of(x, self._blocks("n", n), True, norm, call)
        found = [state[:, self.config.num_prefix_tokens :] for state in states]
        found = [self._as_map(patches, grid) for patches in found] if reshape else found
        if not return_class_token:
            return tuple(found)
        return tuple((patches, state[:, 0]) for patches, state in zip(found, states, strict=True))

    def _blocks(self, name: str, asked: Any) -> list[int]:
        """Which blocks are meant, in the order in which they are asked for."""
        layers, asked = self.config.num_hidden_layers, plain(asked)
        if asked is None:
            return [*range(layers)]
        if is_int(asked) and 1 <= asked <= layers:
            return [*range(layers - asked, layers)]
        some = [plain(each) for each in asked] if isinstance(asked, list | tuple | range) else []
        found = [block % layers for block in some if is_int(block) and -layers <= block < layers]
        if not found or len({*found}) < len(some):
            raise InputError(
                f"{type(self).__name__}: {name}: expected a number from 1 to {layers}, or different blocks from "
                f"{-layers} to {layers - 1}, got {short(asked)}."
            )
        return found

    def _outputs_of(
        self, pixel_values: Any, blocks: Sequence[int], stop_early: bool, norm: bool, call: Mapping[str, Any]
    ) -> tuple[Any, list[Any], Grid]:
        """The tokens of the last block that is computed, after the norm; those of some blocks; and the patch grid."""
        if class_name(type(self)) not in BASE_CLASSES:
            raise InputError(
                f"{type(self).__name__}: features from inside are the encoder's.\n"
                "Call forward_intermediates or get_intermediate_layers of its base_model."
            )
        depth = 1 + max(blocks)
        encoder, call = self, dict(call)
        if stop_early and depth < self.config.num_hidden_layers:
            encoder, call = self._first_layers(depth, call)
        options = {"mask_ratio": 0.0} if self.config.model_type == "vit_mae" else {}
        switches = {"output_hidden_states": True, "interpolate_pos_encoding": True, "return_dict": True}
        pixel_values, grid = self._images_of(pixel_values)
        output = encoder(pixel_values=pixel_values, **options, **switches, **call)  # type: ignore[operator]
        states = [output.hidden_states[block + 1] for block in blocks]
        return output.last_hidden_state, [self._normed(state, call) for state in states] if norm else states, grid

    # --- of a backend ------------------------------------------------------------------------------------------------

    def _images_of(self, pixel_values: Any) -> tuple[Any, Grid]:
        """The images of a call, and their patch grid."""
        raise NotImplementedError

    def _first_layers(self, depth: int, call: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """This model with its first layers only, which are the same ones; and the arguments of a call for it."""
        raise NotImplementedError

    def _normed(self, state: Any, call: Mapping[str, Any]) -> Any:
        """A hidden state after the final norm."""
        raise NotImplementedError

    def _as_map(self, patches: Any, grid: Grid) -> Any:
        """(batch, patches, hidden) -> (batch, hidden, rows, columns)."""
        raise NotImplementedError
