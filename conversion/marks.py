"""What tells that a file holds something that no ViT and no ViTMAE is, and what it is.

A mark is a run of whole words of a tensor's name, words being what stands between dots and slashes.

Source: timm 1.0.31, transformers 4.57.6, big_vision 0127fb6b, DeiT 7e160fe4, DINOv2 b8931f7b, keras-hub 0.32.0.
"""

from __future__ import annotations

MARKS: dict[str, str] = {
    **dict.fromkeys(("reg_token", "register_tokens", "embeddings.register_tokens"), "register tokens"),
    "fc_norm": "mean pooling with a norm of its own (fc_norm)",
    **dict.fromkeys(("attn_pool", "MAPHead_0", "probe"), "an attention pooling head"),
    "norm_pre": "a norm in front of the blocks (CLIP)",
    **dict.fromkeys(("q_norm", "k_norm"), "norms of queries and keys"),
    **dict.fromkeys(("attn.norm", "mlp.norm", "sub_norm", "inner_attn_ln"), "norms inside a block"),
    **dict.fromkeys(("attn.gate", "lambda_q1", "lambda_k1"), "gated or differential attention"),
    **dict.fromkeys(("w12", "fc1_g", "fc1_x", "weights_in", "gate_proj"), "a gated MLP (SwiGLU)"),
    **dict.fromkeys(("attns", "ffns", "norm11", "attn1", "in_proj"), "parallel blocks"),
    **dict.fromkeys(
        ("relative_position_bias_table", "relative_position_bias", "rel_pos_h", "rope"), "relative positions"
    ),
    **dict.fromkeys(
        ("patch_embed.backbone", "patch_embeddings.backbone", "conv_root", "gn_root"), "a hybrid with a CNN"
    ),
    **dict.fromkeys(("patch_embed.proj.0", "conv_proj.conv_bn_relu_0"), "a stem of several convolutions"),
    **dict.fromkeys(
        ("dei_t_embeddings", "embeddings.distillation_token", "distillation_token"), "a distillation token"
    ),
    **dict.fromkeys(("detection_tokens", "mid_position_embeddings"), "YOLOS, a detector"),
    **dict.fromkeys(("lambda_1", "lambda_2"), "BEiT or Data2Vec"),
    **dict.fromkeys(("layer_scale1", "layer_scale2"), "Dinov2 of transformers; its original .pth file is read here"),
    **dict.fromkeys(("resblocks", "vision_model"), "CLIP or SigLIP"),
    "visual.trunk": "OpenCLIP",
    "image_encoder": "Segment Anything",
    "to_patch_embedding": "the ViT of lucidrains' vit-pytorch",
    "backbone.encoder.layer": "a backbone of another model",
    **dict.fromkeys(("predictor", "predictor_blocks"), "I-JEPA"),
    "_layer_checkpoint_dependencies": "a model of Keras 2",
    "pos_embeddings.cls_token": "a ViT of Bonsai (NNX), which loads safetensors of transformers: load those here",
    **dict.fromkeys(("lora_A", "lora_B"), "an adapter of PEFT (LoRA), to be merged first: merge_and_unload()"),
    "dpt": "DPT, for depth and segmentation",
}
