"""Familiar keywords of loading and saving, for all backends: which values are true already, and what to write instead.

A keyword is either honoured, by who takes it (`conversion.load_pretrained`, the `save_pretrained` of a class), or it
stands in one of the two tables here: then a value passes only where what it asks for is so anyway. Nothing is accepted
and ignored.

The types of all that pass are here too; each backend adds those of its own in its `keywords.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from conversion.adapting import asked
from vit_core.errors import InputError, UnsafeFileError
from vit_core.keywords import EITHER, ConfigFields, HubKeywords, Rule, refusals
from vit_core.positions import KERNELS

if TYPE_CHECKING:
    from pathlib import Path

    from vit_core.config import PretrainedConfig
    from vit_core.limits import Limits


LOADING: dict[str, Rule] = {
    **dict.fromkeys(("device_map", "max_memory"), Rule("load the model, then move it to its device")),
    **dict.fromkeys(
        ("tp_plan", "tp_size", "device_mesh", "distributed_config"), Rule("load the model, then distribute it")
    ),
    "offload_folder": Rule("files are mapped, not read"),
    **dict.fromkeys(("offload_state_dict", "offload_buffers"), Rule("files are mapped, not read", (False,))),
    **dict.fromkeys(("low_cpu_mem_usage", "_fast_init"), Rule("nothing is initialised before loading", EITHER)),
    "quantization_config": Rule("quantise the model after loading it"),
    **dict.fromkeys(("load_in_8bit", "load_in_4bit"), Rule("quantise the model after loading it", (False,))),
    **dict.fromkeys(("state_dict", "gguf_file"), Rule("from_tensors(config, tensors) of the class takes tensors")),
    **dict.fromkeys(
        ("adapter_name", "adapter_kwargs"),
        Rule("load the model, then its adapter: PeftModel.from_pretrained(model, …)"),
    ),
    **dict.fromkeys(("use_kernels", "allow_all_kernels"), Rule("no code is loaded from elsewhere", (False,))),
    "kernel_config": Rule("no code is loaded from elsewhere"),
    "key_mapping": Rule("rename the tensors, and hand them to from_tensors(config, tensors) of the class"),
    "weights_only": Rule("nothing is ever unpickled", (True,)),
    "disable_mmap": Rule("write mmap=False", (False,)),
    "fusion_config": Rule("no module is replaced by a fused one"),
    "use_auth_token": Rule("write token="),
    "proxies": Rule("set the environment variable HTTPS_PROXY"),
    "mirror": Rule("set the environment variable HF_ENDPOINT"),
    "resume_download": Rule("downloads are always resumed", EITHER),
    "use_flash_attention_2": Rule('write attn_implementation="sdpa"', (False,)),
    "generation_config": Rule("these models do not generate"),
}

_OF_PUSH = Rule("it is an argument of push_to_hub(repo_id) of the model")
SAVING: dict[str, Rule] = {
    "push_to_hub": Rule("call push_to_hub(repo_id) of the model", (False,)),
    **dict.fromkeys(("token", "use_auth_token", "repo_id", "commit_message", "private", "tags"), _OF_PUSH),
    "create_pr": _OF_PUSH._replace(passes=(False,)),
    "safe_serialization": Rule("nothing here writes pickles", (True,)),
    "state_dict": Rule("save from_tensors(config, tensors) of the class"),
    "save_function": Rule("files are written by vitriad itself"),
    "saved_model": Rule("export the model after saving it", (False,)),
    **dict.fromkeys(("version", "signatures"), Rule("it is an argument of exporting")),
    "save_peft_format": Rule("these models hold no adapters; save the PeftModel around it", EITHER),
    "save_original_format": Rule("the names written are those of transformers 4", (True,)),
    "distributed_checkpoint": Rule("gather the weights, then save them: state_dict=", (False,)),
    "save_config": Rule("weights are never written without their configuration", (True,)),
}


def check_saving(call: str, given: Mapping[str, Any]) -> None:
    """Checks the keywords of a `save_pretrained` that it does not honour.

    Args:
        call: for messages, such as "ViTModel.save_pretrained".
        given: those keywords.

    Raises:
        InputError: one is unknown, or asks for something that does not happen.
    """
    wrong = [f"no keyword {name!r}" for name in given if name not in SAVING] + refusals(SAVING, given)
    if wrong:
        raise InputError(f"{call}: {'; '.join(wrong)}.")


# --- types -----------------------------------------------------------------------------------------------------------

LoadingInfo = dict[str, list[str]]  # missing_keys, unexpected_keys, mismatched_keys, error_msgs


class Opening(HubKeywords, total=False):
    """How the files of a checkpoint are opened, see `conversion.detecting.open_source`."""

    variant: str | None
    weights: str | None
    allow: Collection[str] | None
    mmap: bool | None
    verify: bool | Literal["auto"] | None
    limits: Limits | None


class Fitting(TypedDict, total=False):
    """What may be done where a checkpoint does not fit."""

    strict: bool | None
    ignore_mismatched_sizes: bool | None
    position_kernel: str | None
    allow_nonfinite: bool | None
    adapt: str | Collection[str] | None


class Choosing(TypedDict, total=False):
    """What else `load_pretrained` takes."""

    config: PretrainedConfig | str | Path | None
    use_safetensors: Literal[True] | None
    trust_remote_code: Literal[False] | None


class Asserting(TypedDict, total=False):
    """Whose weights a checkpoint is said to hold; it is recognised anyway."""

    from_pt: bool | None
    from_tf: bool | None
    from_flax: bool | None


class Parts(TypedDict, total=False):
    """Options of a ViTModel."""

    add_pooling_layer: bool | None
    use_mask_token: bool | None


class FamiliarLoading(TypedDict, total=False):
    """The keywords in `LOADING` that have a value that passes."""

    offload_state_dict: Literal[False] | None
    offload_buffers: Literal[False] | None
    low_cpu_mem_usage: bool | None
    _fast_init: bool | None
    load_in_8bit: Literal[False] | None
    load_in_4bit: Literal[False] | None
    use_kernels: Literal[False] | None
    allow_all_kernels: Literal[False] | None
    weights_only: Literal[True] | None
    disable_mmap: Literal[False] | None
    resume_download: bool | None
    use_flash_attention_2: Literal[False] | None


class LoadingKeywords(Opening, Fitting, Choosing, Asserting, Parts, FamiliarLoading, ConfigFields, total=False):
    """What `from_pretrained` of a model class takes in every backend."""


class AutoKeywords(LoadingKeywords, total=False):
    """What `vitriad.load` and the Auto classes take: they hand it to a class of some backend."""

    dtype: Any
    torch_dtype: Any
    params_dtype: Any
    device_map: Any
    state_dict: Mapping[str, Any] | None
    input_shape: Any
    seed: int


class SavingKeywords(TypedDict, total=False):
    """The keywords in `SAVING` that have a value that passes, and that no backend honours."""

    create_pr: Literal[False] | None
    save_peft_format: bool | None
    save_original_format: Literal[True] | None
    distributed_checkpoint: Literal[False] | None
    save_config: Literal[True] | None


# --- who takes what --------------------------------------------------------------------------------------------------

# Keywords of from_pretrained, by who takes them; every other one is a field of the configuration.
OPENING = (*Opening.__annotations__,)
FITTING = (*Fitting.__annotations__,)
CHOOSING = (*Choosing.__annotations__, "dtype", "torch_dtype")
# Keyword -> the framework that it stands for, see `conversion.dialect.Dialect`. What a class of ours saved is of none,
# and passes all three.
ASSERTIONS = {"from_pt": "pt", "from_tf": "tf", "from_flax": "flax"}
MODEL_OPTIONS: dict[str, dict[str, bool]] = {"ViTModel": {"add_pooling_layer": True, "use_mask_token": False}}


def is_option(name: str) -> bool:
    """Whether a keyword of loading is taken by somebody, or refused, and so is no field of the configuration."""
    return name in (*OPENING, *FITTING, *CHOOSING, *ASSERTIONS, *LOADING)


def checked(model: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that were given, None meaning not given; those that mean nothing here are refused."""
    known = {*OPENING, *FITTING, *CHOOSING, *ASSERTIONS, *LOADING, *MODEL_OPTIONS.get(model, {})}
    given = {name: value for name, value in kwargs.items() if value is not None or name not in known}
    if given.get("trust_remote_code"):
        raise UnsafeFileError(f"{model}.from_pretrained: delete trust_remote_code=: code of a checkpoint is never run.")
    refused = refusals(LOADING, given)
    if given.get("use_safetensors") is False:
        refused.append(
            "delete use_safetensors=False: safetensors come first where there are any; name another file to load that"
        )
    if refused:
        raise InputError(f"{model}.from_pretrained: {'; '.join(refused)}.")
    if (kernel := given.get("position_kernel", "hf")) not in KERNELS:
        raise InputError(f"position_kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}.")
    asked(given.get("adapt"))
    return {name: value for name, value in given.items() if name not in LOADING}
