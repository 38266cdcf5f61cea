"""Dialects "keras_hub" and "vitriad_tf": files of Keras 3, which number variables and name layers by their classes.

The first of several layers of a class has no number. Where the meaning of a number depends on what else is there, there
is a table for each case; the one that explains more of a file is the right one.

Source: keras-hub 0.32.0 (presets, tasks), keras 3.15.1; the layers of vit_tf.
"""

from __future__ import annotations

from conversion.dialect import Row


def _tensors(canonical: str, *names: str) -> dict[str, Row]:
    return {
        f"{canonical}.{tensor}": tuple(f"{name}/vars/{k}" for name in names)
        for k, tensor in enumerate(("weight", "bias"))
    }


# --- keras-hub -------------------------------------------------------------------------------------------------------

_HUB = "layers/vi_t_patching_and_embedding"
_HUB_BLOCKS = tuple(f"layers/vi_t_encoder/encoder_layers/vi_t_encoder_block{number}" for number in ("", "_{i}"))
_HUB_MODULES = {
    "layernorm_before": "layer_norm_1",
    "attention.attention.query": "mha/query_dense",
    "attention.attention.key": "mha/key_dense",
    "attention.attention.value": "mha/value_dense",
    "attention.output.dense": "mha/output_dense",
    "layernorm_after": "layer_norm_2",
    "intermediate.dense": "mlp/dense_1",
    "output.dense": "mlp/dense_2",
}
_HUB_ENCODER: dict[str, Row] = {
    "embeddings.cls_token": (f"{_HUB}/vars/0",),
    "embeddings.position_embeddings": (f"{_HUB}/position_embedding/vars/0",),
    **_tensors("embeddings.patch_embeddings.projection", f"{_HUB}/patch_embedding"),
    **{
        row: cell
        for module, name in _HUB_MODULES.items()
        for row, cell in _tensors(
            f"encoder.layer.{{i}}.{module}", *(f"{block}/{name}" for block in _HUB_BLOCKS)
        ).items()
    },
    **_tensors("layernorm", "layers/vi_t_encoder/layer_norm"),
}
HUB_ROWS: dict[str, Row] = {**_HUB_ENCODER, **_tensors("classifier", "layers/dense")}
HUB_ROWS_WITH_POOLER: dict[str, Row] = {
    **_HUB_ENCODER,
    **_tensors("pooler.dense", "layers/dense"),
    **_tensors("classifier", "layers/dense_1"),
}
HUB_DROPPED = {
    "optimizer/": "the state of an optimiser",
    "optimizer_variables/": "the state of an optimiser",
    "preprocessor/": "settings of the preprocessor",
    "seed_generator": "the state of random numbers",
}

# --- vit_tf ----------------------------------------------------------------------------------------------------------

_MODULES = {
    "layernorm_before": "layernorm_before",
    "attention.attention.query": "attention/attention/parts/dense",
    "attention.attention.key": "attention/attention/parts/dense_1",
    "attention.attention.value": "attention/attention/parts/dense_2",
    "attention.output.dense": "attention/attention_output/parts/dense",
    "layernorm_after": "layernorm_after",
    "intermediate.dense": "intermediate/parts/dense",
    "output.dense": "mlp_output/parts/dense",
}
_ACTIVATIONS = {
    "p_re_lu": ("weight",),
    "xielu": ("alpha_p", "alpha_n", "beta", "eps"),
}


def _layers(canonical: str, path: str) -> dict[str, Row]:
    blocks = (f"{path}/vi_t_layer", f"{path}/vi_t_layer_{{i}}")
    rows: dict[str, Row] = {}
    for module, name in _MODULES.items():
        rows |= _tensors(f"{canonical}.{{i}}.{module}", *(f"{block}/{name}" for block in blocks))
    for layer, tensors in _ACTIVATIONS.items():
        for k, tensor in enumerate(tensors):
            rows[f"{canonical}.{{i}}.intermediate.intermediate_act_fn.{tensor}"] = tuple(
                f"{block}/intermediate/parts/{layer}/vars/{k}" for block in blocks
            )
    return rows


_TF: dict[str, Row] = {
    "embeddings.cls_token": ("embeddings/vars/0",),
    **_tensors("embeddings.patch_embeddings.projection", "embeddings/patch_embeddings/projection"),
    **_layers("encoder.layer", "encoder/layer"),
    **_tensors("layernorm", "layernorm"),
    **_tensors("pooler.dense", "pooler/dense"),
    "pooler.activation.weight": ("pooler/activation/vars/0",),
    **_tensors("classifier", "classifier"),
    **_tensors("decoder.0", "decoder/parts/conv2d"),
    "decoder.mask_token": ("decoder/vars/0",),
    "decoder.decoder_pos_embed": ("decoder/vars/1",),
    **_tensors("decoder.decoder_embed", "decoder/decoder_embed"),
    **_layers("decoder.decoder_layers", "decoder/decoder_layers"),
    **_tensors("decoder.decoder_norm", "decoder/decoder_norm"),
    **_tensors("decoder.decoder_pred", "decoder/decoder_pred"),
}
TF_ROWS: dict[str, Row] = {**_TF, "embeddings.position_embeddings": ("embeddings/vars/1",)}
TF_ROWS_WITH_MASK_TOKEN: dict[str, Row] = {
    **_TF,
    "embeddings.mask_token": ("embeddings/vars/1",),
    "embeddings.position_embeddings": ("embeddings/vars/2",),
}
TF_DROPPED = HUB_DROPPED
