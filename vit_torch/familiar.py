"""What scripts for transformers ask of a model beside calling it, and what to write instead of what is left out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

_ADAPTERS = "use peft: get_peft_model(model, config), PeftModel.from_pretrained(model, folder)"
_FRESH = "fresh values are drawn when a model is made; to add layers, keep the model inside an nn.Module of your own"
_DISTRIBUTED = "load the model, then distribute it with torch (parallelize_module, fully_shard)"
_TEXT = "images have no tokens to mask or to embed"
_INTERNAL = "a step inside transformers' own from_pretrained"

# Public names of a model of transformers 4.57.6 and 5.24.0 that are left out here -> what to write instead.
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        ("active_adapters", "add_adapter", "delete_adapter", "disable_adapters", "enable_adapters"), _ADAPTERS
    ),
    **dict.fromkeys(("enable_peft_hotswap", "get_adapter_state_dict", "load_adapter", "set_adapter"), _ADAPTERS),
    **dict.fromkeys(("init_weights", "initialize_weights", "post_init"), _FRESH),
    **dict.fromkeys(("ep_plan", "fsdp_plan", "fsdp_size", "pp_plan", "tp_plan", "tp_size"), _DISTRIBUTED),
    **dict.fromkeys(("supports_context_parallel", "supports_pp_plan", "supports_tp_plan"), _DISTRIBUTED),
    **dict.fromkeys(("init_parallel_plans", "maybe_distribute_model", "prepare_distribute_model"), _DISTRIBUTED),
    **dict.fromkeys(("barrier_after_gathered_checkpoint_save", "gather_sharded_state_dict_for_save"), _DISTRIBUTED),
    **dict.fromkeys(("is_distributed_loading_by_transformers", "save_distributed_checkpoint"), _DISTRIBUTED),
    **dict.fromkeys(("is_parallelizable", "should_save_on_this_rank"), _DISTRIBUTED),
    **dict.fromkeys(("create_extended_attention_mask_for_decoder", "get_extended_attention_mask"), _TEXT),
    **dict.fromkeys(("invert_attention_mask", "warn_if_padding_and_no_attention_mask"), _TEXT),
    **dict.fromkeys(("resize_token_embeddings", "generation_config", "generation_config_class"), _TEXT),
    **dict.fromkeys(("get_correct_attn_implementation", "get_init_context", "is_backend_compatible"), _INTERNAL),
    **dict.fromkeys(("get_expanded_tied_weights_keys", "mark_tied_weights_as_initialized"), _INTERNAL),
    **dict.fromkeys(("can_record_outputs", "retrieve_modules_from_names"), _INTERNAL),
    **dict.fromkeys(("get_correct_experts_implementation", "get_experts_implementation"), "there are no experts"),
    "set_experts_implementation": "there are no experts",
    **dict.fromkeys(("all_tied_weights_keys", "tie_embeddings_and_encoder_decoder"), "no weights are tied"),
    "layers": "it is model.encoder.layer, as in transformers 4",
    "warnings_issued": "warnings go through Python's warnings and the logger vitriad",
    **dict.fromkeys(
        ("get_position_embeddings", "resize_position_embeddings"), "from_pretrained(…, image_size=) resizes"
    ),
    "set_output_embeddings": "assign model.classifier",
    **dict.fromkeys(("get_encoder", "set_encoder"), "it is model.base_model"),
    **dict.fromkeys(("get_decoder", "set_decoder"), "it is model.decoder"),
    "get_head_mask": "hand head_mask to the call: (heads,) or (layers, heads)",
    "loss_type": "model.config.problem_type says it",
    "loss_function": "model.loss(logits, labels) is computed in the call with labels",
    "dummy_inputs": "torch.zeros(1, channels, height, width)",
    **dict.fromkeys(("to_bettertransformer", "reverse_bettertransformer"), 'attn_implementation="sdpa" is that'),
    **dict.fromkeys(
        ("kernel_config", "kernelize", "set_use_kernels", "use_kernels"),
        "no code is loaded from elsewhere; torch.compile(model)",
    ),
    "get_compiled_call": "torch.compile(model)",
    "dequantize": "keep the checkpoint that was quantised",
    **dict.fromkeys(("add_memory_hooks", "reset_memory_hooks_state"), "torch.profiler"),
    **dict.fromkeys(("estimate_tokens", "floating_point_ops"), "torch.utils.flop_counter.FlopCounterMode"),
    **dict.fromkeys(("add_model_tags", "model_tags"), "write them into README.md, the model card"),
    "get_parameter_or_buffer": "get_parameter or get_buffer of torch",
    "named_non_persistent_buffers": "there are none",
    **dict.fromkeys(("is_custom_code", "is_remote_code", "register_for_auto_class"), "no code of a checkpoint is run"),
    "input_modalities": 'they are ("image",)',
}


class Familiar:
    """Gives a model what trainers, accelerate, peft and scripts ask of one; they find an encoder by `base_model`.

    Attributes:
        _no_split_modules: classes whose parts stay on one device (accelerate, FSDP).
        _keys_to_ignore_on_save: names that a checkpoint may lack; none, also not when it is loaded.
        _keep_in_fp32_modules: parts that stay wide in half precision; none.
        _supports_sdpa: whether "sdpa" is a choice of attention.
    """

    base_model: Any
    config: Any
    _no_split_modules: ClassVar[list[str]] = ["ViTEmbeddings", "ViTMAEEmbeddings", "ViTLayer"]
    _keys_to_ignore_on_save: ClassVar[None] = None
    _keys_to_ignore_on_load_missing: ClassVar[None] = None
    _keep_in_fp32_modules: ClassVar[None] = None
    _supports_sdpa: ClassVar[bool] = True

    @classmethod
    def _from_config(
        cls,
        config: Any,
        *,
        attn_implementation: str | None = None,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> Self:
        """A model with fresh weights, of another attention or dtype where one is given."""
        config = deepcopy(config)
        config.attn_implementation = attn_implementation or config.attn_implementation
        model: Any = cls(config)  # type: ignore[call-arg]  # of what this is mixed into
        return model.to(dtype or torch_dtype) if dtype or torch_dtype else model

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """True: `set_attn_implementation` chooses it, at any time."""
        return True

    @property
    def num_labels(self) -> int:
        """Number of classes, as the configuration says."""
        return int(self.config.num_labels)

    @property
    def name_or_path(self) -> str:
        """What the model was loaded from; empty for a new one."""
        return str(self.config.name_or_path)

    def get_input_embeddings(self) -> Any:
        """The module that turns pixels into patch embeddings."""
        return self.base_model.embeddings.patch_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Puts another module in its place: (batch, channels, height, width) -> (batch, patches, hidden)."""
        self.base_model.embeddings.patch_embeddings = value

    def get_output_embeddings(self) -> None:
        """None: no layer mirrors the embeddings."""

    def tie_weights(self) -> None:
        """Nothing: no weights are tied."""

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters, and of the buffers unless told otherwise."""
        model: nn.Module = self  # type: ignore[assignment]  # what this is mixed into
        tensors = [*model.parameters(), *(model.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    def enable_input_require_grads(self) -> None:
        """Lets gradients reach the patch embeddings' output, which reentrant checkpointing of frozen models needs."""
        self.disable_input_require_grads()
        self._input_hook: Any = self.get_input_embeddings().register_forward_hook(_require_grad)

    def disable_input_require_grads(self) -> None:
        """Undoes `enable_input_require_grads`."""
        if hook := vars(self).pop("_input_hook", None):
            hook.remove()

    def __getattr__(self, name: str) -> Any:
        found: Callable[[str], Any] = super().__getattr__  # type: ignore[misc]  # of nn.Module
        try:
            return found(name)
        except AttributeError:
            if name not in LEFT_OUT:
                raise
            raise AttributeError(f"{type(self).__name__} has no {name}: {LEFT_OUT[name]}.") from None


def _require_grad(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_(True)
