"""Keywords of loading and saving that only this backend takes, with their types, beside those of all backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from conversion.keywords import LoadingKeywords, SavingKeywords

if TYPE_CHECKING:
    from jax.typing import DTypeLike


class FlaxLoading(LoadingKeywords, total=False):
    """What `from_pretrained` of a model takes beside its named arguments."""

    torch_dtype: DTypeLike | None
    input_shape: Sequence[int]
    seed: int


class FlaxSaving(SavingKeywords, total=False):
    """What `save_pretrained` of a model takes beside its named arguments."""

    saved_model: Literal[False] | None
