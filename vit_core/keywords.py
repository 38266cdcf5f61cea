"""Keywords that the classes of all backends take, with their types: once, for type checkers, editors and the code.

`conversion.keywords` has those of loading and saving models, the `keywords.py` of a backend what only that one takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    from vit_core.config.base import Size
    from vit_core.images.options import PerChannel
    from vit_core.images.options import Size as Sides
    from vit_core.limits import Limits


class HubKeywords(TypedDict, total=False):
    """Where and how to fetch from the hub, see `vit_core.hub.download.Repository`."""

    revision: str | None
    subfolder: str
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool
    force_download: bool
    endpoint: str | None


class ConfigFields(TypedDict, total=False):
    """The fields of the configurations, see `vit_core.config`; `dtype` is not here, as each backend has its own."""

    num_labels: int | None
    id2label: Mapping[int, str] | Mapping[str, str] | Sequence[str] | None
    label2id: Mapping[str, int] | None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None
    output_attentions: bool | None
    output_hidden_states: bool | None
    return_dict: bool | None
    attn_implementation: Literal["sdpa", "eager"] | None
    pruned_heads: Mapping[int, Sequence[int]] | None
    architectures: Sequence[str] | None
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str | Callable[..., Any]
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    initializer_range: float
    layer_norm_eps: float
    image_size: Size
    patch_size: Size
    num_channels: int
    qkv_bias: bool
    # of a ViTConfig
    encoder_stride: int
    pooler_output_size: int | None
    pooler_act: str | Callable[..., Any]
    # of a ViTMAEConfig
    decoder_num_attention_heads: int
    decoder_hidden_size: int
    decoder_num_hidden_layers: int
    decoder_intermediate_size: int
    mask_ratio: float
    norm_pix_loss: bool


class ConfigKeywords(HubKeywords, ConfigFields, total=False):
    """What `from_pretrained` of a configuration takes."""

    dtype: Any
    torch_dtype: Any
    limits: Limits


class ProcessorOptions(TypedDict, total=False):
    """The options of a ViTImageProcessor."""

    do_resize: bool | None
    size: Sides | None
    resample: int | None
    do_rescale: bool | None
    rescale_factor: float | None
    do_normalize: bool | None
    image_mean: PerChannel | None
    image_std: PerChannel | None
    do_convert_rgb: bool | None
    do_center_crop: bool | None
    crop_size: Sides | None
    do_exif_transpose: bool | None
    alpha_background: tuple[int, int, int] | list[int] | None
    compatible: bool | None


class ProcessorKeywords(HubKeywords, ProcessorOptions, total=False):
    """What `from_pretrained` of a ViTImageProcessor takes."""

    limits: Limits


class PreprocessKeywords(ProcessorOptions, total=False):
    """What a call of a ViTImageProcessor takes beside the images, see `ViTImageProcessor.preprocess`."""

    return_tensors: object
    data_format: object
    input_data_format: object
    num_threads: int | None
    limits: Limits
