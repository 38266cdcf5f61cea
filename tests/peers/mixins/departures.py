"""What transformers' common tests of models say of ours that is not "passed", with the reason, for each framework.

`make test-peers` fails on a test that is not in here and does not pass, on one in here that passes by now, and on one
that fails for another reason than the one in here. docs/guides/migration.md shows what FAILS.
"""

from fnmatch import fnmatchcase
from typing import NamedTuple

FAILS, SKIPPED = "fails", "is skipped"


class Departure(NamedTuple):
    """Tests that do not pass for one reason.

    Attributes:
        tests: their names behind `test_`, as patterns of fnmatch; "ViT.…" or "ViTMAE.…" where only one of them departs.
        outcome: FAILS or SKIPPED.
        said: a part of what pytest reports of each.
        reason: why that is right.
    """

    tests: tuple[str, ...]
    outcome: str
    said: str
    reason: str

    def covers(self, test: str) -> bool:
        """Whether a test, such as "ViT.test_save_load", is one of these."""
        cls, name = test.split(".test_", 1)
        return any(fnmatchcase(name if "." not in row else f"{cls}.{name}", row) for row in self.tests)


_TEXT = "it is about models of text, whose first inputs are input_ids"

TORCH = [
    Departure(
        ("model_get_set_embeddings",),
        *(FAILS, "is not an instance of <class 'torch.nn.modules.sparse.Embedding'>"),
        "patches are embedded by a convolution; get_input_embeddings and set_input_embeddings work",
    ),
    Departure(
        ("ViT.torch_fx", "ViT.torch_fx_output_loss"),
        *(FAILS, "root is not a transformers.PreTrainedModel"),
        "the tracer knows classes of transformers only; torch.export.export traces these",
    ),
    Departure(
        ("ViTMAE.torch_fx", "ViTMAE.torch_fx_output_loss"),
        *(FAILS, "Model ViTMAEModel is not supported yet"),
        "the tracer knows classes of transformers only, and not this one; torch.export.export traces these",
    ),
    Departure(
        ("ViT.can_load_ignoring_mismatched_shapes",),
        *(FAILS, "'the shapes did not match' not found in ''"),
        "it reads transformers' own logger; output_loading_info=True names what did not fit",
    ),
    Departure(
        ("can_set_attention_dynamically",),
        *(FAILS, "attn_implementation: expected one of sdpa, eager, or None, got 'foo'"),
        "the choice works, and another name is a ValueError, in words of its own",
    ),
    Departure(
        ("cannot_load_with_meta_device_context_manager",),
        *(FAILS, 'weights were to be loaded while torch\'s default device is "meta"'),
        'loading inside torch.device("meta") is refused, in words of its own and as a ValueError',
    ),
    Departure(
        ("head_pruning_save_load_from_config_init",),
        *(FAILS, "pruned_heads: expected layers below 2"),
        "a configuration numbers layers from 0; prune_heads({-1: …}) counts from the end",
    ),
    Departure(
        ("model_weights_reload_no_missing_tied_weights",),
        *(FAILS, "not a known dialect"),
        "a file without any of the model's weights is refused, not replaced by fresh values",
    ),
    Departure(
        ("ViTMAE.headmasking",),
        *(FAILS, "iteration over a 0-d tensor"),
        "it sums the first output as a list, and that of a masked autoencoder is its loss",
    ),
    Departure(
        (
            *("can_load_with_device_context_manager", "can_load_with_global_device_set", "cpu_offload"),
            *("disk_offload_bin", "disk_offload_safetensors", "flex_attention_with_grads"),
            *("sdpa_can_compile_dynamic", "sdpa_can_dispatch_on_flash", "torch_compile_for_training"),
        ),
        *(SKIPPED, "test requires accelerator"),
        "the peers run on the CPU",
    ),
    Departure(
        ("model_parallel_equal_results", "model_parallelization", "multi_gpu_data_parallel_forward"),
        *(SKIPPED, "test requires CUDA"),
        "the peers run on the CPU",
    ),
    Departure(("model_parallelism",), SKIPPED, "test requires multiple accelerators", "the peers run on the CPU"),
    Departure(("flash_attn_2_*",), SKIPPED, "test requires Flash Attention", 'attention is "sdpa" or "eager"'),
    Departure(("flash_attn_3_*",), SKIPPED, "test requires Flash Attention 3", 'attention is "sdpa" or "eager"'),
    Departure(
        ("flash_attn_kernels_inference_equivalence",),
        *(SKIPPED, "test requires the kernels library"),
        "no code is loaded from elsewhere",
    ),
    Departure(
        ("flash_attn_kernels_mps_inference_equivalence",),
        *(SKIPPED, "test requires MPS"),
        "no code is loaded from elsewhere",
    ),
    Departure(
        ("resize_*_with_deepspeed", "resize_*_with_deepspeed_multi_gpu"),
        *(SKIPPED, "test requires deepspeed"),
        "images have no tokens to embed",
    ),
    Departure(
        ("resize_embeddings_untied", "resize_tokens_embeddings"),
        *(SKIPPED, "test_resize_embeddings is set to `False`"),
        "images have no tokens to embed",
    ),
    Departure(
        ("inputs_embeds", "inputs_embeds_matches_input_ids"),
        *(SKIPPED, "This model doesn't use `inputs_embeds`"),
        "images have no tokens to embed",
    ),
    Departure(
        ("resize_position_vector_embeddings",),
        *(SKIPPED, "Model does not have position embeddings"),
        "it is off unless a class asks for it; from_pretrained(…, image_size=) resizes positions",
    ),
    Departure(
        ("sliding_window_mask",),
        *(SKIPPED, "Model does not support sliding window mask"),
        "attention is over the whole image",
    ),
    Departure(
        ("attn_implementation_composite_models",),
        *(SKIPPED, "Model is not a composite model"),
        "a model has one configuration",
    ),
    Departure(
        ("can_set_attention_dynamically_composite_model",),
        *(SKIPPED, "This model is not composite"),
        "a model has one configuration",
    ),
    Departure(
        ("sdpa_can_dispatch_composite_models",), SKIPPED, "does not support SDPA", "a model has one configuration"
    ),
    Departure(
        ("internal_model_config_and_subconfig_are_same",),
        *(SKIPPED, "No subconfigs so the test does not make sense"),
        "a model has one configuration",
    ),
    Departure(
        ("keep_in_fp32_modules",),
        *(SKIPPED, "Model class has no _keep_in_fp32_modules attribute defined"),
        "no part stays wide in half precision; softmax and losses are computed in float32 anyway",
    ),
    Departure(
        ("can_init_all_missing_weights",),
        *(SKIPPED, "is not a priorited model for now"),
        "it runs for a list of classes of transformers",
    ),
    Departure(("torchscript_*",), SKIPPED, "many failing tests after #39120", "transformers skips it for every model"),
]

FLAX = [
    Departure(
        ("ViT.save_load_from_base", "ViT.save_load_to_base"),
        *(FAILS, "KeyError: ('embeddings', 'mask_token')"),
        "the encoder of masked image modelling has a mask token, and the encoder alone has none; the rest is the same",
    ),
    Departure(
        ("jit_compilation",),
        *(FAILS, "missing 1 required positional argument: 'input_ids'"),
        f"{_TEXT}; calls under jit are held by the tests of vit_flax",
    ),
    Departure(("forward_signature",), FAILS, "!= ['input_ids', 'attention_mask']", f"{_TEXT}; ours is pixel_values"),
    Departure(
        ("checkpoint_sharding_from_hub", "checkpoint_sharding_local"),
        *(FAILS, "We couldn't connect to"),
        "it loads a BERT from the hub; shards are held by the tests of what every backend does",
    ),
    Departure(
        ("no_automatic_init", "from_pretrained_with_no_automatic_init"),
        *(FAILS, "ValueError not raised"),
        "parameters may be given to a model that was made without: it holds them from then on",
    ),
    Departure(
        ("save_load_in_bf16", "save_load_in_fp16"),
        *(FAILS, "is not in "),
        'parameters are read as float32 unless params_dtype= says otherwise ("auto": as stored)',
    ),
]

TF = [
    Departure(("forward_signature",), FAILS, "!= ['input_ids']", f"{_TEXT}; ours is pixel_values"),
    Departure(("inputs_embeds",), FAILS, "KeyError: 'input_ids'", _TEXT),
    Departure(
        ("model_common_attributes",),
        *(FAILS, "object has no attribute 'get_lm_head'"),
        "no model here has a language model's head; get_input_embeddings works",
    ),
    Departure(
        ("keras_fit",),
        *(FAILS, "sample_weight: the model's own loss takes none"),
        "a loss over masked pixels is one mean over all images, so it takes no sample_weight; the classifier's does",
    ),
    Departure(
        ("compile_tf_model",),
        *(FAILS, "Invalid filepath extension for saving"),
        "the last line saves a functional model without .keras, which Keras 3 refuses; write .keras, or export()",
    ),
    Departure(
        ("onnx_compliancy",),
        *(FAILS, "No such file or directory: './utils/tf_ops/onnx.json'"),
        'its table is not in the source archive; export(format="onnx") is held by the tests of vit_tf in onnxruntime',
    ),
    Departure(
        ("onnx_runtime_optimize",),
        *(SKIPPED, "`tf2onnx` broke with TF 2.13"),
        "transformers skips it for every model; the tests of vit_tf run the written files in onnxruntime",
    ),
    Departure(
        ("embeddings_out_of_bounds_raise_exception",),
        *(SKIPPED, "This test always passes on CPU"),
        "the peers run on the CPU, and images have no tokens to embed",
    ),
]

DEPARTURES = {"torch": TORCH, "flax": FLAX, "tf": TF}
