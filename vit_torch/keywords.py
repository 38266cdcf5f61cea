"""Keywords of loading and saving that only this backend takes, with their types, beside those of all backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from conversion.keywords import LoadingKeywords, SavingKeywords

if TYPE_CHECKING:
    import torch


class TorchLoading(LoadingKeywords, total=False):
    """What `from_pretrained` of a model takes."""

    dtype: torch.dtype | str | None
    torch_dtype: torch.dtype | str | None
    device_map: str | int | torch.device | Mapping[str, str | int | torch.device] | None
    state_dict: Mapping[str, torch.Tensor] | None


class TorchSaving(SavingKeywords, total=False):
    """What `save_pretrained` of a model takes beside its named arguments."""

    saved_model: Literal[False] | None
