"""Keywords that the classes of all backends take: their types, and how those that nobody honours are refused.

A keyword of transformers is either honoured, or it stands in a table of `Rule`s: then a value passes only where what it
asks for is so anyway. Nothing is accepted and ignored. The table of image processors is here, `conversion.keywords` has
those of loading and saving models, the `keywords.py` of a backend the types of what only that one takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from vit_core.errors import InputError, UnknownKeywordError

if TYPE_CHECKING:
    from pathlib import Path

    from vit_core.config.sizes import Size
    from vit_core.images.options import PerChannel
    from vit_core.images.options import Size as Sides
    from vit_core.limits import Limits


class Rule(NamedTuple):
    """One keyword that nobody honours.

    Attributes:
        instead: what to do instead, or why nothing needs to be done.
        passes: the values that ask for what is so anyway. None always counts as not given.
    """

    instead: str
    passes: tuple[object, ...] = ()


EITHER = (True, False)

PREPROCESSING: dict[str, Rule] = {
    "disable_grouping": Rule("images are worked on one by one, whatever their sizes", EITHER),
    "default_to_square": Rule('write size={"height": h, "width": w}', (True,)),
    **dict.fromkeys(("do_pad", "do_reduce_labels"), Rule("there is no such step here", (False,))),
    **dict.fromkeys(("pad_size", "size_divisor", "segmentation_maps"), Rule("there is no such step here")),
    "interpolation": Rule("write resample="),
}


def refusals(table: Mapping[str, Rule], given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keywords that stand in a table, in the order in which they are given."""
    return [
        f"delete {name}=: {table[name].instead}"
        for name, value in given.items()
        if name in table and value is not None and not any(value is passing for passing in table[name].passes)
    ]


def check_keywords(called: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuses keywords of a call that nobody takes.

    Raises:
        InputError: there are some; all of them are named.
    """
    for name in (unknown := [name for name in given if name not in known])[:1]:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UnknownKeywordError(f"{called}: a call takes no {', '.join(map(repr, unknown))}{hint}")


def check_preprocessing(processor: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Checks the keywords of a call of an image processor that it does not honour.

    Args:
        processor: name of its class, for messages.
        given: those keywords.
        known: the names of those that it honours, to find the one that was meant.

    Raises:
        InputError: one is unknown, or asks for something that does not happen.
    """
    check_keywords(processor, given, {*PREPROCESSING, *known})
    if wrong := refusals(PREPROCESSING, given):
        raise InputError(f"{processor}: {'; '.join(wrong)}.")


# --- types -----------------------------------------------------------------------------------------------------------


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
    drop_path_rate: float | None
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
    use_class_token: bool
    num_register_tokens: int
    use_mean_pooling: bool
    norm_before_pooling: bool
    pool_class_token: bool
    layerscale_value: float | None
    use_swiglu_ffn: bool
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


class FamiliarPreprocessing(TypedDict, total=False):
    """Keywords of a call of an image processor that pass where they change nothing, see `PREPROCESSING`."""

    disable_grouping: bool | None
    default_to_square: Literal[True] | None
    do_pad: Literal[False] | None
    do_reduce_labels: Literal[False] | None


class PreprocessKeywords(ProcessorOptions, FamiliarPreprocessing, total=False):
    """What a call of a ViTImageProcessor takes beside the images, see `ViTImageProcessor.preprocess`."""

    return_tensors: object
    data_format: object
    input_data_format: object
    num_threads: int | None
    device: object
    limits: Limits
