"""Keywords of loading and saving that only this backend takes, with their types, beside those of all backends."""

from __future__ import annotations

from typing import Any, Literal

from conversion.keywords import LoadingKeywords, SavingKeywords


class TFLoading(LoadingKeywords, total=False):
    """What `from_pretrained` of a model takes."""

    dtype: Any  # in any form that Keras takes, policies included; neither TensorFlow nor Keras has types
    torch_dtype: Any


class TFSaving(SavingKeywords, total=False):
    """What `save_pretrained` of a model takes beside its named arguments."""

    push_to_hub: Literal[False] | None
    safe_serialization: Literal[True] | None
