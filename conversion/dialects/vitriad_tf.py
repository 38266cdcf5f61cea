"""Dialect "vitriad_tf": what `save` and `save_weights` of Keras make of the models of vit_tf.

Names are those of Keras 3, as in `conversion.dialects.keras_hub`. Tokens and the position table have numbers only, in
the order in which they are made. A table for each count of them names the usual ones; the configuration, which such
files need, then tells which they are.

Source: keras 3.15.1; the layers of vit_tf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conversion.dialect import Dialect, Row, Tensors
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
_MADE = ("cls_token", "mask_token", "register_tokens", "position_embeddings")  # in this order
_TOKENS = (
    ("position_embeddings",),
    ("cls_token", "position_embeddings"),
    ("cls_token", "mask_token", "position_embeddings"),
    _MADE,
)


def _settle(config: Any, found: Tensors) -> None:
    """Names the tokens that a model of this configuration has; one more than that is a mask token.

    A wrong configuration is seen: where it has more tokens than the file, or none for several that stand together.
    """
    at = next((name.removesuffix(_MADE[-1]) for name in found if name.endswith(_MADE[-1])), "")
    held = [at + name for name in _MADE if at + name in found]
    is_there = {"cls_token": config.use_class_token, "register_tokens": config.num_register_tokens, _MADE[-1]: True}
    is_there["mask_token"] = len(held) > sum(map(bool, is_there.values()))
    meant = [at + name for name in _MADE if is_there[name]]
    if len(meant) != len(held):
        return
    tensors = dict(zip(meant, [found.pop(name) for name in held], strict=True))
    mask_token = tensors.get(f"{at}mask_token")
    if mask_token is not None and mask_token.shape[1:2] != (1,) and not config.num_register_tokens:
        tensors[f"{at}register_tokens"] = tensors.pop(f"{at}mask_token")
    found.update(tensors)


def _dialect(tokens: Sequence[str]) -> Dialect:
    own: dict[str, Row] = {f"embeddings.{name}": (f"embeddings/vars/{k}",) for k, name in enumerate(tokens)}
    return Dialect(
        name="vitriad_tf",
        convention="keras",
        rows={**own, **_SHARED},
        encoder_prefix="vit/",
        settle=_settle,
        dropped=DROPPED,
        framework="tf",
    )


DIALECTS = tuple(map(_dialect, _TOKENS))
