"""Keys that ask for another model: the values that ask for nothing pass, others say what to do."""

import json

import numpy as np
import pytest
from refusing import refusal

from vit_core.config import AutoConfig, ViTConfig
from vit_core.config.foreign_fields import FOREIGN, Spelling

OFF = ([False, None], [True, 1, "yes", [True]])
ON = ([True, None], [False, 0, "no", {}])
NONE = ([None], [1, True, "x", {"a": 1}, [1]])
ZERO = ([0, 0.0, np.float32(0), None], [0.5, 1e-5, "0.1", True, [0.1, 0.2]])
TOKENS = ([0, None], [4, 1, "four", [4]])
TOKEN = (["token", "cls", "cls_token", None], ["mean", "avg", "gap", "map", 1, True, ["token"]])
LEARNED = (["learn", "learned", None], ["rope", "sincos2d", "none", ""])
NO_LIST = ([None, [], ()], [[2], (2, 5), {"a": 1}, 1])
NO_DICT = ([None, {}], [{"rope_type": "default"}, 10000.0])

CASES = {  # key -> (values that pass, values that are refused)
    **dict.fromkeys(("pool", "pooling", "pool_type", "pooling_type", "classifier"), TOKEN),
    "global_pool": ([*TOKEN[0], ""], TOKEN[1]),
    **dict.fromkeys(("class_token", "with_cls_token", "use_cls_token"), ON),
    **dict.fromkeys(("reg_tokens", "num_reg_tokens", "num_detection_tokens"), TOKENS),
    **dict.fromkeys(("representation_size", "qk_scale", "embed_norm_layer"), NONE),
    **dict.fromkeys(("layer_scale_init_value", "init_values"), ZERO),
    **dict.fromkeys(("distilled", "use_layer_scale", "use_layerscale"), OFF),
    **dict.fromkeys(("use_gated_mlp", "swiglu_mlp", "scale_mlp", "scale_mlp_norm"), OFF),
    "ffn_layer": (["mlp", None], ["swiglu", "swiglufused", "identity"]),
    "mlp_layer": (["mlp", "Mlp", None], ["GluMlp", len]),
    "num_experts": ([1, None], [6, 0]),
    **dict.fromkeys(("depths", "hidden_sizes", "patch_sizes", "mlp_ratios"), NONE),
    **dict.fromkeys(("qk_norm", "use_qk_norm", "scale_attn_norm", "scale_attn_inner"), OFF),
    "window_size": ([0, None], [14, (7, 7)]),
    "window_block_indices": NO_LIST,
    **dict.fromkeys(("query_bias", "key_bias", "value_bias"), ON),  # as qkv_bias says
    **dict.fromkeys(("proj_bias", "mlp_bias", "ffn_bias"), ON),
    "num_key_value_heads": ([12, None], [4, "12", [12]]),
    "head_dim": ([64, 64.0, None], [32, "64"]),
    **dict.fromkeys(("fc_norm", "use_fc_norm", "pre_norm", "post_norm", "use_post_norm", "no_embed_class"), OFF),
    **dict.fromkeys(("final_norm", "apply_layernorm"), ON),
    "norm_layer": (["layernorm", None], ["rmsnorm", len]),
    **dict.fromkeys(("pos_embed", "posemb"), LEARNED),
    "position_embedding_type": (["absolute", None], ["relative_key", "rope"]),
    **dict.fromkeys(("use_absolute_position_embeddings", "use_absolute_embeddings"), ON),
    **dict.fromkeys(("use_abs_pos", "use_abs_pos_emb"), ON),
    **dict.fromkeys(("use_relative_position_bias", "use_shared_relative_position_bias", "use_rel_pos"), OFF),
    **dict.fromkeys(("use_relative_position_embeddings", "use_rel_pos_bias", "use_shared_rel_pos_bias"), OFF),
    **dict.fromkeys(("use_mid_position_embeddings", "use_rope", "use_rot_pos_emb"), OFF),
    "rope_theta": NONE,
    **dict.fromkeys(("rope_scaling", "rope_parameters"), NO_DICT),
    **dict.fromkeys(("drop_path", "stochastic_depth_prob", "layerdrop"), ZERO),
    **dict.fromkeys(("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"), ZERO),
    **dict.fromkeys(("classifier_dropout", "classifier_dropout_prob"), ZERO),
    **dict.fromkeys(("backbone", "backbone_config", "embed_layer"), NONE),
    **dict.fromkeys(("use_timm_backbone", "use_pretrained_backbone", "is_hybrid", "use_conv_stem"), OFF),
    "conv_stem_configs": NO_LIST,
    **dict.fromkeys(("num_frames", "tubelet_size"), ([1, None], [16, [2, 16, 16]])),
    **dict.fromkeys(("embed_dim", "embed_dims", "hidden_dim"), ([768, np.int64(768), None], [384, "768", True, [768]])),
    **dict.fromkeys(("depth", "num_layers", "num_heads"), ([12, None], [3, "12", [12]])),
    "mlp_dim": ([3072, None], [768]),
    "mlp_ratio": ([4, 4.0, 3.9999, None], [3, 4.01, "4", [4]]),
    "act_layer": (["gelu", None], ["silu", len]),
    "layer_norm_epsilon": ([1e-12, None], [1e-6, 0]),
    "img_size": ([224, [224, 224], (224, 224), None], [384, [224], [224, 225], "224"]),
    "in_chans": ([3, None], [1, True]),
    "num_classes": ([2, None], [1000, {"a": [1, None]}]),
}


def test_every_key_has_its_case():
    assert {*CASES} == {*FOREIGN}
    assert all(row.advice and not row.advice.endswith(".") and ";" not in row.advice for row in FOREIGN.values())


@pytest.mark.parametrize("key", CASES)
def test_what_asks_for_nothing_passes(key, config_class, tmp_path):
    plain = config_class(num_channels=3)
    for value in CASES[key][0]:
        config, assigned = config_class(**{key: value}), config_class()
        setattr(assigned, key, value)
        kept = {} if isinstance(FOREIGN[key], Spelling) else {key: value}
        assert config.extra == assigned.extra == kept
        assert {**config.to_dict(), **kept} == {**plain.to_dict(), **kept}
        if not isinstance(value, np.generic):
            config.save_pretrained(tmp_path)
            assert AutoConfig.from_pretrained(tmp_path, **{key: value}).hidden_size == 768


@pytest.mark.parametrize("key", CASES)
def test_anything_else_is_refused_everywhere(key, config_class, tmp_path):
    config_class().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    for value in CASES[key][1]:
        message = refusal(lambda value=value: config_class(**{key: value}))
        assert message.startswith(f"{config_class.__name__}: 1 invalid setting:\n{key}: expected ")
        assert FOREIGN[key].advice in message and "got " in message
        assert key in refusal(lambda value=value: setattr(config_class(), key, value))
        assert key in refusal(lambda value=value: config_class().update({key: value}))
        for reader in config_class, AutoConfig:
            assert key in refusal(lambda value=value, reader=reader: reader.from_pretrained(tmp_path, **{key: value}))
        assert key in refusal(lambda value=value: config_class.from_dict({**stored, key: value}))
        unset = config_class.from_dict({**stored, key: value}, **{key: None})  # said by who knows better
        assert unset.to_dict().items() >= config_class.from_dict(stored).to_dict().items()


def test_all_that_are_refused_are_named_at_once():
    message = refusal(lambda: ViTConfig(layerdrop=0.5, pool="mean", num_register_tokens=-4, hidden_size="a"))
    assert message.startswith("ViTConfig: 4 invalid settings:\n")
    assert [key for key in ("layerdrop", "pool", "num_register_tokens", "hidden_size") if f"{key}: " in message]


def test_a_spelling_agrees_with_its_field_or_is_refused():
    small = ViTConfig(hidden_size=192, num_attention_heads=3, embed_dim=192, num_heads=3, num_labels=10, num_classes=10)
    assert (small.hidden_size, small.num_labels, small.extra) == (192, 10, {})
    message = refusal(lambda: ViTConfig(embed_dim=192, depth=6, num_heads=3))
    assert "embed_dim: expected 768 as the fields say, got 192: write hidden_size=" in message
    assert ViTConfig(image_size=(32, 48), img_size=[32, 48], qkv_bias=False, key_bias=False).extra == {}
    assert "img_size" in refusal(lambda: ViTConfig(image_size=(32, 48), img_size=32))
    small.update({"embed_dim": 96, "hidden_size": 96})
    assert small.hidden_size == 96


def test_a_spelling_of_a_file_does_not_hold_an_override_back():
    stored = {**ViTConfig(num_labels=10).to_dict(), "num_classes": 10, "embed_dim": 768}
    assert ViTConfig.from_dict(stored, num_labels=3).num_labels == 3
    assert ViTConfig.from_dict(stored, hidden_size=96).hidden_size == 96
    assert "num_classes" in refusal(lambda: ViTConfig.from_dict({**stored, "num_classes": 5}, hidden_size=96))
    assert ViTConfig.from_dict({**stored, "num_classes": 3}, num_labels=3).num_labels == 3


# Of transformers' base configuration and of its decoders and backbones: nothing in them changes a ViT
INERT = {
    **{"is_decoder": True, "add_cross_attention": True, "is_encoder_decoder": True, "tie_word_embeddings": False},
    **{"chunk_size_feed_forward": 2, "cross_attention_hidden_size": 3, "tie_encoder_decoder": True, "vocab_size": 8192},
    **{"use_mask_token": True, "finetuning_task": "pets", "gradient_checkpointing": True, "tf_legacy_loss": True},
    **{"patch_stride": 4, "hidden_dropout": 0.1, "pooler_output": 3, "out_indices": [1, 2], "use_bfloat16": True},
    **{"bos_token_id": 0, "readout_type": "project", "auxiliary_loss": True, "mask_patch_size": 32},
}


def test_keys_that_change_nothing_are_kept(config_class):
    assert config_class(**INERT).extra == INERT
    assert config_class.from_dict(config_class(**INERT).to_dict()).extra == INERT


def test_torchscript_asks_for_tuples():
    assert ViTConfig(torchscript=False).use_return_dict and not ViTConfig(torchscript=True).use_return_dict
    assert not ViTConfig(return_dict=False).use_return_dict


def test_a_subclass_that_takes_a_key_has_it():
    class Deep(ViTConfig):
        def __init__(self, layerdrop=0.1, image_sizes=(32,), **kwargs):
            super().__init__(**kwargs)
            self.layerdrop, self.image_sizes = layerdrop, image_sizes

    config = Deep(layerdrop=0.5)
    assert (config.layerdrop, config.image_sizes) == (0.5, (32,))
    assert config.extra == {"layerdrop": 0.5, "image_sizes": (32,)}
    assert "pool" in refusal(lambda: Deep(pool="mean"))
    assert Deep.from_dict(config.to_dict()).extra == config.extra
