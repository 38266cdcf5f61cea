"""Dialect "vitriad_tf": what `save` and `save_weights` of Keras make of the models of vit_tf.

Names are those of Keras 3, as in `conversion.dialects.keras_hub`. The number of the position table depends on the
tokens that there are, so there is a table for each case.

Source: keras 3.15.1; the layers of vit_tf.
"""

from __future__ import annotations

from collections.abc import Sequence

from conversion.dialect import Dialect, Row
from conversion.dialects.keras_hub import DROPPED, variables

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
        rows |= variables(f"{canonical}.{{i}}.{module}", *(f"{block}/{name}" for block in blocks))
    for k in (1, 2):
        name = f"{canonical}.{{i}}.layer_scale{k}.lambda1"
        rows[name] = tuple(f"{block}/layer_scale{k}/vars/0" for block in blocks)
    for layer, tensors in _ACTIVATIONS.items():
        for k, tensor in enumerate(tensors):
            rows[f"{canonical}.{{i}}.intermediate.intermediate_act_fn.{tensor}"] = tuple(
                f"{block}/intermediate/parts/{layer}/vars/{k}" for block in blocks
            )
    return rows


_SHARED: dict[str, Row] = {
    **variables("embeddings.patch_embeddings.projection", "embeddings/patch_embeddings/projection"),
    **_layers("encoder.layer", "encoder/layer"),
    **variables("layernorm", "layernorm"),
    **variables("pooler.dense", "pooler/dense"),
    **variables("pooler.layernorm", "pooler/layernorm"),
    "pooler.activation.weight": ("pooler/activation/vars/0",),
    **variables("classifier", "classifier"),
    **variables("decoder.0", "decoder/parts/conv2d"),
    "decoder.mask_token": ("decoder/vars/0",),
    "decoder.decoder_pos_embed": ("decoder/vars/1",),
    **variables("decoder.decoder_embed", "decoder/decoder_embed"),
    **_layers("decoder.decoder_layers", "decoder/decoder_layers"),
    **variables("decoder.decoder_norm", "decoder/decoder_norm"),
    **variables("decoder.decoder_pred", "decoder/decoder_pred"),
}
# The tokens of the embeddings that a model may have, in the order in which they are made. Registers without a mask
# token are not among them: their numbers are those of a mask token, so such a file is refused for what is missing.
_TOKENS = (
    ("position_embeddings",),
    ("cls_token", "position_embeddings"),
    ("cls_token", "mask_token", "position_embeddings"),
    ("cls_token", "mask_token", "register_tokens", "position_embeddings"),
)


def _dialect(tokens: Sequence[str]) -> Dialect:
    own: dict[str, Row] = {f"embeddings.{name}": (f"embeddings/vars/{k}",) for k, name in enumerate(tokens)}
    rows = {**own, **_SHARED}
    return Dialect(
        name="vitriad_tf", convention="keras", rows=rows, encoder_prefix="vit/", dropped=DROPPED, framework="tf"
    )


DIALECTS = tuple(map(_dialect, _TOKENS))
