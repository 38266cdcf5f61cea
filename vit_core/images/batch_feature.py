"""What an image processor returns: a dict of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from vit_core.errors import ImageError, InputError
from vit_core.plain_values import short
from vit_core.tensors import Array, framework_of, from_numpy, to_numpy


class BatchFeature(dict[str, Any]):
    """A dict whose string keys are attributes too: `batch["pixel_values"]`, `batch.pixel_values`, `model(**batch)`.

    Args:
        data: the entries.
        tensor_type: as for `convert_to_tensors`.
    """

    def __init__(self, data: Mapping[str, Any] | None = None, tensor_type: object = None) -> None:
        super().__init__(data or {})
        self.convert_to_tensors(tensor_type)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"BatchFeature has no entry {name!r}; it has {', '.join(self)}.")

    def convert_to_tensors(self, tensor_type: object = None) -> Self:
        """Makes every entry a tensor, in place: a list of equal shapes is stacked along a new first axis.

        Args:
            tensor_type: "np", "pt", "tf", "jax", an enum member of that value, or None to leave all as it is.

        Raises:
            ImageError: the arrays of a list have different shapes.
            InputError: unknown `tensor_type`.
            BackendError: that framework is not installed.
        """
        if tensor_type is not None:
            self.update({name: from_numpy(_stacked(name, value), tensor_type) for name, value in self.items()})
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves and casts torch tensors in place, with the arguments of torch.Tensor.to; integers are only moved.

        Raises:
            InputError: there are no torch tensors.
        """
        tensors = {name: value for name, value in self.items() if framework_of(value) == "pt"}
        if not tensors:
            raise InputError("BatchFeature.to: expected torch tensors.\nPass return_tensors='pt' to the processor.")
        for name, value in tensors.items():
            moved = value.to(*args, **kwargs)
            self[name] = moved if value.is_floating_point() else value.to(moved.device)
        return self


def _stacked(name: str, value: Any) -> Array:
    if not isinstance(value, list | tuple):
        return to_numpy(value)
    arrays = [to_numpy(item) for item in value]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise ImageError(
            f"{name}: expected equal shapes to stack into one tensor, got {short(shapes)}.\n"
            "Switch do_resize on, or leave return_tensors unset for a list."
        )
    return np.array(arrays)  # C order, where np.stack would keep the strides of transposed pictures
