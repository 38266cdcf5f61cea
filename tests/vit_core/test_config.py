"""Configurations in memory: fields, what they accept, labels, unknown keys, and how fields fit together."""

import copy
import inspect
import json
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusing import refusal

from vit_core.config import (
    ACTIVATIONS,
    CONFIGS,
    AutoConfig,
    PretrainedConfig,
    ViTConfig,
    ViTMAEConfig,
    pair,
    patch_grid,
)
from vit_core.config.foreign_fields import NEUTRAL
from vit_core.errors import ConfigError
from vit_core.limits import LIMITS

SHARED = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
FIELDS = {
    ViTConfig: {**SHARED, "encoder_stride": 16, "pooler_output_size": 768, "pooler_act": "tanh", **NEUTRAL},
    ViTMAEConfig: {
        **SHARED,
        "decoder_num_attention_heads": 16,
        "decoder_hidden_size": 512,
        "decoder_num_hidden_layers": 8,
        "decoder_intermediate_size": 2048,
        "mask_ratio": 0.75,
        "norm_pix_loss": False,
    },
}
BASE = {
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
    "dtype": None,
    "pruned_heads": {},
    "architectures": None,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "drop_path_rate": 0.0,
    "name_or_path": "",
    "hub_commit": None,
    "attn_implementation": None,
}
LABELS = f"expected an int from 0 to {LIMITS.labels}"
NAN, INF = float("nan"), float("inf")


# Fields


def test_fields_their_order_and_their_defaults(config_class):
    fields = FIELDS[config_class]
    parameters = list(inspect.signature(config_class).parameters)
    assert parameters == [*fields, "kwargs"]
    config = config_class()
    version = {"model_type": config.model_type, "transformers_version": "4.57.6"}
    assert config.to_dict() == {**fields, **BASE, **version}
    assert config.to_diff_dict() == {**{name: fields[name] for name in fields if name not in NEUTRAL}, **version}
    assert (config.use_return_dict, config.num_labels, config.extra) == (True, 2, {})


def test_every_documented_field_is_positional(config_class):
    values = {name: not value if isinstance(value, bool) else value for name, value in FIELDS[config_class].items()}
    values |= {name: True for name in ("use_class_token", "pool_class_token") if name in values}  # not one alone
    values |= {"hidden_size": 144, "num_attention_heads": 6, "hidden_act": "relu", "image_size": (32, 48)}
    assert config_class(*values.values()) == config_class(**values)
    assert {name: getattr(config_class(*values.values()), name) for name in values} == values


WIDE = [1, 7, np.int64(8), LIMITS.hidden_size]
NO_COUNT = [0, -1, 1.0, "8", True, None, NAN, [8], np.float32(8), np.bool_(True), np.array([8, 8]), 10**5000]
NO_SHARE = [-0.1, 1.1, NAN, INF, "0.1", True, None, [0.1], np.float64("nan"), 10**5000]
SHARE = ([0, 0.0, 0.9999], [1, 1.0, 1.5, -0.5, NAN, "0.75", True])
RULES = {  # field -> (accepted, refused)
    "hidden_size": ([144], [*NO_COUNT, LIMITS.hidden_size + 1]),
    "num_hidden_layers": ([0, 3, LIMITS.layers], [-1, 1.5, "2", False, None, LIMITS.layers + 1]),
    "num_attention_heads": ([1, LIMITS.heads], [*NO_COUNT, LIMITS.heads + 1]),
    "intermediate_size": (WIDE, [*NO_COUNT, LIMITS.hidden_size + 1]),
    "num_channels": (WIDE, [*NO_COUNT, LIMITS.hidden_size + 1]),
    "hidden_act": ([*ACTIVATIONS, len], ["os.system", "GELU", "", 1, None, ["gelu"], True]),
    "hidden_dropout_prob": ([0, 1, 0.5, np.float32(0.5)], NO_SHARE),
    "attention_probs_dropout_prob": ([0, 1, 0.25], NO_SHARE),
    "initializer_range": ([0, 0.02, 3], [-1e-9, NAN, INF, "0.02", True, None, 10**400]),
    "layer_norm_eps": ([1e-12, 1], [0, 0.0, 1e-46, -1e-6, NAN, INF, "1e-6", True, None, 10**400]),
    "image_size": ([1, (3, 4), [3, 4], LIMITS.image_side], [0, -3, 2.5, "3", True, None, (3,), (3, 4, 5), (3, 0), {}]),
    "patch_size": ([1, (3, 4), np.int32(3)], [0, -8, "16", (16, "16"), [True, 1], [[4, 4], 4], LIMITS.image_side + 1]),
    "qkv_bias": ([True, False, np.bool_(False)], ["false", 0, 1, None, 1.0, []]),
    "output_attentions": ([True, np.True_], ["yes", 1, 0]),
    "output_hidden_states": ([True], ["yes", 1]),
    "return_dict": ([False], ["no", 0]),
    "problem_type": (["regression", "single_label_classification", None], ["Regression", "", 1, ["regression"]]),
    "dtype": (["float16", None, "bf16", torch.float64], ["int8", "float8", float, int, 16, torch.int32, [1], 10**5000]),
    "attn_implementation": (["sdpa", "eager", None], ["flash_attention_2", "attacker/kernel", 1]),
    "architectures": ([["ViTModel"], [], None], ["ViTModel", [1], {"a": 1}]),
    "pruned_heads": ([{0: [1]}, {"1": (0, np.int64(2))}, {}], [[1], {"a": [1]}, {0: 1}, {0: ["1"]}, {0: [True]}, 3]),
    "id2label": ([{0: "a"}, {"0": 1}, {np.int64(0): "c"}, {}, ["a"]], [{-1: "a"}, {"1": "a"}, {0.0: "a"}, [None], "a"]),
    "label2id": ([{"a": 0}, {"a": "1"}, {"a": np.int64(2)}, {}], [{"a": 1.0}, {0: "a"}, {"a": "x"}, {"a": []}, "a"]),
    "transformers_version": (["4.6.0.dev0", None], [4.57, ["4"]]),
    "name_or_path": (["a/b"], [3, ["a"]]),
    "drop_path_rate": SHARE,
    "hub_commit": (["5" * 40, None], [5, ["a"]]),
}
VIT_RULES = {
    "encoder_stride": ([1, 32, LIMITS.image_side], [0, -1, 2.0, "16", LIMITS.image_side + 1]),
    "pooler_output_size": ([1, 7], [-1, "8", False, "", [], 0.0, np.array([8, 8])]),
    "pooler_act": ([*ACTIVATIONS, len], ["softmax", None, 3]),
    "use_class_token": ([True, False, np.bool_(False)], ["false", 0, None]),
    "num_register_tokens": ([0, 4, np.int64(8), LIMITS.register_tokens], [-1, 4.0, "4", True, None, 1025]),
    "use_mean_pooling": ([True, False], ["mean", 1, None]),
    "norm_before_pooling": ([True, False], ["yes", 1, None]),
    "pool_class_token": ([True, False], ["yes", 1, None]),
    "layerscale_value": ([None, 0, 1e-5, np.float32(1)], ["1", True, NAN, [1.0]]),
    "use_swiglu_ffn": ([True, False], ["swiglu", 1, None]),
}
MAE_RULES = {
    "decoder_num_attention_heads": ([1, 2], [0, "2", LIMITS.heads + 1]),
    "decoder_hidden_size": ([48, 64], [0, "48", 48.0, LIMITS.hidden_size + 1]),
    "decoder_num_hidden_layers": ([0, 1], [-1, "1"]),
    "decoder_intermediate_size": ([1, 5], [0, -4]),
    "mask_ratio": (SHARE[0], [*SHARE[1], None]),
    "norm_pix_loss": ([True], ["true", 1]),
}
RULES_OF = {ViTConfig: RULES | VIT_RULES, ViTMAEConfig: RULES | MAE_RULES}


def test_every_rule_has_its_cases(config_class):
    assert {*RULES_OF[config_class]} == {*FIELDS[config_class], *BASE, "transformers_version"}


@pytest.mark.parametrize("name", {**RULES, **VIT_RULES, **MAE_RULES})
def test_what_a_field_accepts(name):
    config_class = ViTMAEConfig if name in MAE_RULES else ViTConfig
    accepted, refused = RULES_OF[config_class][name]
    for value in accepted:
        config = config_class()
        setattr(config, name, value)
        assert not isinstance(getattr(config, name), np.generic | list) or name == "architectures"
    for value in refused:
        config = config_class()
        before = config.to_dict()
        message = refusal(lambda value=value, config=config: setattr(config, name, value))
        assert message.startswith(f"{config_class.__name__}.{name}: expected ")
        assert len(message) < 500
        assert config.to_dict() == before  # a refused value leaves no trace


@pytest.mark.parametrize("name", {**RULES, **VIT_RULES, **MAE_RULES})
def test_the_constructor_refuses_what_assignment_refuses(name):
    config_class = ViTMAEConfig if name in MAE_RULES else ViTConfig
    for value in RULES_OF[config_class][name][1]:
        message = refusal(lambda value=value: config_class(**{name: value}))
        first, problems = message.split("\n")
        assert first == f"{config_class.__name__}: 1 invalid setting:"
        assert problems.startswith(f"{name}: expected ")


def test_an_unknown_activation_is_answered_with_the_known_ones():
    message = refusal(lambda: ViTConfig(hidden_act="geglu"))
    assert "'geglu'" in message
    assert [name for name in ACTIVATIONS if f" {name}" not in message] == []
    assert len({*ACTIVATIONS}) == 24


# How fields fit together


OPTIONS = {"num_register_tokens": 4, "use_mean_pooling": True, "layerscale_value": 1e-5, "use_swiglu_ffn": True}


def test_options_of_the_family_are_off_unless_asked_for(tmp_path):
    config = ViTConfig()
    assert (config.family_options, config.num_prefix_tokens, config.mlp_act) == ({}, 1, "gelu")
    assert not {*NEUTRAL} & {*config.to_diff_dict()} and {*NEUTRAL} <= {*config.to_dict()}
    asked = ViTConfig(**OPTIONS)
    assert (asked.family_options, asked.num_prefix_tokens, asked.mlp_act) == (OPTIONS, 5, "swiglu")
    asked.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored.items() >= OPTIONS.items() and stored["model_type"] == "vitriad_vit"
    assert AutoConfig.from_pretrained(tmp_path) == ViTConfig.from_pretrained(tmp_path) == asked


@pytest.mark.parametrize("name", OPTIONS)
def test_a_masked_autoencoder_has_none_of_them(name):
    assert f"{name}: expected {NEUTRAL[name]}, or none at all, got {OPTIONS[name]}: only a ViT has this option" in (
        refusal(lambda: ViTMAEConfig(**{name: OPTIONS[name]}))
    )
    stored = ViTConfig(**{name: OPTIONS[name]}).to_dict()
    assert name in refusal(lambda: ViTMAEConfig.from_dict(stored))  # not dropped as the other's own field
    assert ViTMAEConfig.from_dict(ViTConfig().to_dict()).extra == {}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_class_token": False}, "use_class_token: expected True without use_mean_pooling"),
        ({"norm_before_pooling": True}, "norm_before_pooling: expected False without use_mean_pooling"),
        ({"pool_class_token": True}, "pool_class_token: expected False without use_class_token and norm_before_pool"),
        (
            {"pool_class_token": True, "use_mean_pooling": True},
            "pool_class_token: expected False without use_class_token and norm_before_pool",
        ),
        (
            {"use_swiglu_ffn": True, "intermediate_size": 13},
            "intermediate_size: expected an even number for use_swiglu",
        ),
        (
            {"hidden_act": "glu", "intermediate_size": 13},
            "an even number for hidden_act 'glu', which halves it, got 13",
        ),
        ({"reg_tokens": 4}, "reg_tokens: expected 0 as the fields say, got 4: write num_register_tokens="),
    ],
)
def test_options_that_do_not_fit_together_are_named(fields, words):
    assert words in refusal(lambda: ViTConfig(**fields))


FITS = [
    ({"hidden_size": 100}, ["hidden_size: expected a multiple of num_attention_heads 12, got 100"]),
    ({"patch_size": 225}, ["patch_size: expected a height of at most image_size 224, got 225", "a width of at most"]),
    ({"image_size": (32, 8)}, ["patch_size: expected a width of at most image_size 8, got 16"]),
    (
        {"hidden_act": "glu", "intermediate_size": 9},
        ["intermediate_size: expected an even number for hidden_act 'glu'"],
    ),
    ({"pruned_heads": {12: [0]}}, ["pruned_heads: expected layers below 12", "got 12: [0]"]),
    ({"pruned_heads": {-1: [0]}}, ["got -1: [0]"]),
    ({"pruned_heads": {0: [12]}}, ["heads below 12"]),
    ({"pruned_heads": {0: [-1]}}, ["got 0: [-1]"]),
    ({"pruned_heads": {3: list(range(12))}}, ["one head left in each"]),
    ({"image_size": 16384, "patch_size": 1}, [f"the limit is {LIMITS.parameters}"]),
    ({"hidden_size": 65536, "num_attention_heads": 16, "num_hidden_layers": 3}, ["the sizes together: about"]),
]
FITS_OF = [
    *((config_class, fields, parts) for config_class in FIELDS for fields, parts in FITS),
    (ViTConfig, {"pooler_act": "glu", "pooler_output_size": 9}, ["pooler_output_size: expected an even number"]),
    (ViTConfig, {"encoder_stride": 16384}, ["the sizes together"]),
    (ViTMAEConfig, {"hidden_size": 18, "num_attention_heads": 3}, ["hidden_size: expected a multiple of 4", "got 18"]),
    (ViTMAEConfig, {"decoder_hidden_size": 40}, ["decoder_hidden_size: expected a multiple of", "heads 16, got 40"]),
    (ViTMAEConfig, {"decoder_hidden_size": 16 * 4097}, ["decoder_hidden_size: expected an int from 1 to 65536"]),
    (ViTMAEConfig, {"decoder_hidden_size": 65536, "decoder_num_hidden_layers": 9}, ["the sizes together"]),
    (
        ViTMAEConfig,
        {"hidden_act": "glu", "decoder_intermediate_size": 9},
        ["decoder_intermediate_size: expected an even"],
    ),
]


@pytest.mark.parametrize(("config_class", "fields", "parts"), FITS_OF)
def test_fields_that_do_not_fit_together(config_class, fields, parts):
    message = refusal(lambda: config_class(**fields))
    assert [part for part in parts if part not in message] == []
    config = config_class()
    if {*fields} <= {*config._rules} and "65536" not in message:  # each valid alone: found by validate()
        for name, value in fields.items():
            setattr(config, name, value)
        assert refusal(config.validate) == message


def test_one_patch_may_be_the_whole_image(config_class):
    assert patch_grid(config_class(image_size=(8, 12), patch_size=(8, 12))) == (1, 1)
    assert config_class(num_hidden_layers=3, pruned_heads={2: [*range(11)]}).pruned_heads


def test_a_value_is_shown_in_eighty_characters():
    for value in "x" * 200, {"a": "y\n" * 200}, np.zeros((9, 9)):
        shown = refusal(lambda value=value: ViTConfig(hidden_size=value)).partition("got ")[2]
        assert shown == f"{shown[:77]}....", shown  # and the full stop of the sentence
    assert "got 'xxx'." in refusal(lambda: ViTConfig(hidden_size="xxx"))


def test_everything_wrong_is_said_at_once():
    wrong = {"hidden_size": "32", "qkv_bias": 1, "layer_norm_eps": NAN, "num_labels": -1, "id2label": [None]}
    fits = {"decoder_hidden_size": 40, "patch_size": 300}
    message = refusal(lambda: ViTMAEConfig(**wrong, **fits, norm_pix_los=True, problem_type="?"))
    assert message.startswith("ViTMAEConfig: 10 invalid settings:\n")
    for name in (*wrong, *fits, "problem_type", "norm_pix_los"):
        assert f"{name}: " in message
    assert message.count("decoder_hidden_size: ") == 1  # one of two: of its own heads, and divisible by 4 it is


def test_the_message_names_where_the_configuration_is_from():
    assert refusal(lambda: ViTConfig(patch_size=0, name_or_path="some/where")).startswith("ViTConfig of some/where: 1 ")


def test_an_update_is_whole_or_not_at_all():
    config = ViTConfig(image_size=64)
    before = config.to_dict()
    message = refusal(lambda: config.update({"image_size": 32, "hidden_size": "7", "qkv_bias": 2, "foo": 1}))
    assert "2 invalid settings" in message
    refusal(lambda: config.update({"num_attention_heads": 7}))
    assert config.to_dict() == before
    assert refusal(lambda: config.update({"num_labels": "7"})).endswith(f":\nnum_labels: {LABELS}, got '7'.")
    config.hidden_act = activation = torch.nn.GELU()
    config.update({"image_size": (32, 64), "num_labels": 7, "foo": 1})
    assert (config.image_size, config.num_labels, config.foo, config.hidden_act) == ((32, 64), 7, 1, activation)


def test_what_was_changed_inside_a_field_is_checked_with_the_rest():
    config = ViTConfig(image_size=[32, 64])
    config.id2label[5], config.pruned_heads["x"] = None, [1]
    message = refusal(config.validate)
    assert "2 invalid settings" in message and "id2label: expected" in message and "pruned_heads: expected" in message
    del config.id2label[5], config.pruned_heads["x"]
    config.validate()


def test_a_long_list_of_problems_is_cut():
    message = refusal(lambda: ViTConfig(pruned_heads={layer: [0] for layer in range(12, 70)}))
    assert message.startswith("ViTConfig: 58 invalid settings:\n")
    assert message.endswith("got 31: [0]; and 38 more.")


# Unknown keys


@pytest.mark.parametrize("name", ["hide_sizes", "size", "foo", "", "classes", "crop_pct", "Hidden_Size"])
def test_other_keys_are_kept(name, config_class):
    config = config_class(**{name: {"a": [1, None]}})
    assert config.extra == {name: {"a": [1, None]}} == {name: getattr(config, name)}
    setattr(config, name, None)
    assert config.to_dict()[name] is None
    assert config_class.from_dict(config.to_dict()).extra == {name: None}


SHADOWS = ["to_dict", "use_return_dict", "from_pretrained", "extra", "validate", "update", "self", "cls", "kwargs"]
PRIVATE = ["_attn_implementation_internal", "_rules", "__class__", "__dict__", "__deepcopy__", "__reduce_ex__"]
PRIVATE += ["__setstate__", "__init__", "_commit_hash", "_auto_class", "__array__", "__len__", "auto_map"]


@pytest.mark.parametrize("name", [*SHADOWS, *PRIVATE])
def test_keys_never_stand_in_front_of_anything(name, config_class):
    plain, config = config_class(), config_class(**{name: "attacker/kernel"})
    assert config.extra == {name: "attacker/kernel"}
    if name not in ("self", "cls", "kwargs", "auto_map"):
        assert getattr(config, name, None) != "attacker/kernel"
    assert type(config) is config_class
    again = pickle.loads(pickle.dumps(copy.deepcopy(config)))
    assert again == config != plain
    assert json.loads(again.to_json_string())[name] == "attacker/kernel"
    assert {**config.to_dict(), name: 0} == {**plain.to_dict(), name: 0}


def test_an_attribute_that_is_not_there():
    with pytest.raises(AttributeError, match="ViTConfig has no field 'mask_ratio'"):
        _ = ViTConfig().mask_ratio
    assert not hasattr(ViTMAEConfig(), "encoder_stride")


# Values that follow others, and the form in which values are kept


def test_the_pooler_is_as_wide_as_the_model_until_told_otherwise():
    for fields in {}, {"pooler_output_size": None}, {"pooler_output_size": 0}:
        config = ViTConfig(**fields)
        assert config.pooler_output_size == 768
        config.hidden_size = np.int64(96)
        assert (config.hidden_size, config.pooler_output_size) == (96, 96)
    config.pooler_output_size = 7
    config.hidden_size = 48
    assert config.pooler_output_size == 7
    config.pooler_output_size = None
    assert config.pooler_output_size == 48
    assert "hidden_size" not in ViTConfig(hidden_act="relu").extra


def test_sizes_keep_the_form_they_were_given():
    config = ViTConfig(image_size=[32, 48], patch_size=np.int64(8))
    assert (config.image_size, config.patch_size, type(config.patch_size)) == ((32, 48), 8, int)
    assert (pair(config.image_size), pair(config.patch_size), pair((3, 4))) == ((32, 48), (8, 8), (3, 4))
    assert patch_grid(config) == (4, 6)
    assert patch_grid(config, 27) == (3, 3)
    assert patch_grid(config, (7, 17)) == (0, 2)
    assert patch_grid(ViTConfig(image_size=(13, 21), patch_size=(4, 5))) == (3, 4)


def test_pruned_heads_keep_their_order_and_get_int_keys():
    config = ViTConfig(pruned_heads={"10": (3, 1), 2: {5, 4}})
    assert config.pruned_heads == {10: [3, 1], 2: [4, 5]}
    assert list(config.pruned_heads) == [10, 2]


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, "bf16", "torch.bfloat16", "bfloat16", np.dtype(ml_dtypes.bfloat16), ml_dtypes.bfloat16],
)
def test_dtypes_of_every_kind_are_kept_by_name(dtype, config_class):
    for name in ("dtype", "torch_dtype"):
        config = config_class(**{name: dtype})
        assert config.dtype == config.torch_dtype == "bfloat16"
    assert config_class(dtype="float64", torch_dtype=dtype).dtype == "float64"
    assert config_class(dtype=None, torch_dtype=dtype).dtype == "bfloat16"
    config.torch_dtype = np.float16
    assert (config.dtype, config.extra) == ("float16", {})


def test_nothing_is_shared_with_the_caller(config_class):
    mine = {"architectures": ["A"], "id2label": {0: "a"}, "label2id": {"a": 0}, "pruned_heads": {0: [1]}}
    config = config_class(**mine)
    given = config.to_dict()
    for name, value in mine.items():
        assert getattr(config, name) is not value
        (getattr(config, name) or given[name]).clear()
        assert mine[name]
    assert config_class().to_dict() == config_class().to_dict()
    given["extra"] = 1
    assert config.extra == {}


# Copies, equality, subclasses


def test_copies_and_equality(config_class):
    config = config_class(num_labels=3, foo=[1, {"a": 2}], image_size=(32, 48))
    for again in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config
        assert again.to_dict() == config.to_dict()
    changed = copy.deepcopy(config)
    changed.foo[1]["a"] = 3
    assert changed != config
    assert config.foo == [1, {"a": 2}]
    config.transformers_version, config.name_or_path = "4.0", "elsewhere"
    assert config == again
    assert config != config.to_dict()
    assert CONFIGS[config.model_type]() != ViTConfig(model_type="other", foo=1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


def test_callable_activations_work_and_cannot_be_saved(tmp_path):
    activation = torch.nn.GELU()
    config = ViTConfig(hidden_act=activation, pooler_act=torch.tanh)
    assert config.hidden_act is activation
    assert config == config == ViTConfig(hidden_act=activation, pooler_act=torch.tanh)
    assert "GELU" in repr(config)
    message = refusal(lambda: config.save_pretrained(tmp_path / "folder"))
    assert "a known one to save" in message
    assert not (tmp_path / "folder").exists()


def test_a_subclass_with_fewer_parameters_is_checked_alike():
    class Small(ViTConfig):
        def __init__(self, depth=2, **kwargs):
            super().__init__(num_hidden_layers=depth, **kwargs)

    assert Small(depth=3).num_hidden_layers == 3
    message = refusal(lambda: Small(depth=-1, hidden_sise=3, hidden_size=None))
    assert message.startswith("Small: 3 invalid settings")


# Whatever is given: a configuration or a ConfigError, and a configuration that is given comes back

NAMES = sorted({*FIELDS[ViTConfig], *FIELDS[ViTMAEConfig], *BASE, "num_labels", "torch_dtype", "_name_or_path"})
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 70) | st.integers() | st.floats() | st.text(max_size=9) | st.fractions()
)
KNOWN = st.sampled_from([*ACTIVATIONS, "float32", "regression", "sdpa", 96, 768, (32, 64), {"0": "a"}, {"a": "0"}])
VALUES = SCALARS | KNOWN | st.lists(SCALARS, max_size=3) | st.dictionaries(SCALARS, SCALARS, max_size=3)
VALUES |= st.dictionaries(st.integers(0, 4), st.sets(st.integers(0, 4) | st.text(max_size=1)), max_size=3)
KEYS = st.sampled_from(NAMES) | st.text(max_size=12) | st.sampled_from([*SHADOWS, *PRIVATE, "model_type"])


ANY_DICT = given(st.sampled_from([ViTConfig, ViTMAEConfig]), st.dictionaries(KEYS, VALUES, max_size=5), st.data())
DRAWN = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}


@settings(max_examples=80, **DRAWN)
@ANY_DICT
def test_any_dict_gives_a_configuration_or_a_config_error(config_class, values, data):
    check_any_dict(config_class, values, data)


@pytest.mark.long
@settings(max_examples=400, **DRAWN)
@ANY_DICT
def test_any_of_many_dicts_gives_a_configuration_or_a_config_error(config_class, values, data):
    check_any_dict(config_class, values, data)


def check_any_dict(config_class, values, data):
    overrides = data.draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
    for build in (
        lambda: config_class(**values),
        lambda: config_class.from_dict(values, **overrides),
    ):
        try:
            config = build()
        except ConfigError as error:
            assert len(str(error).split("\n")) <= 3
            continue
        assert isinstance(config, PretrainedConfig)
        assert copy.deepcopy(config).to_dict().keys() == config.to_dict().keys()
        assert patch_grid(config) >= (1, 1)
        assert config_class.__name__ in repr(config)
