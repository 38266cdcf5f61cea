"""Names: every spelling, prefix and wrapper is understood, and nothing is taken for what it is not."""

import numpy as np
import pytest

import conversion
from conversion.dialects import DIALECTS, hf
from conversion.naming import EXCHANGEABLE, HEADS, canonical_names
from vit_core.config import ACTIVATIONS
from vit_core.errors import CheckpointError
from vit_core.parameters import MODEL_CLASSES, parameter_table
from vit_core.plain_values import name_list

HF = DIALECTS[0]
FIVE = (  # how 5.x calls a layer's modules
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("intermediate.intermediate_act_fn", "mlp.activation_fn"),
    ("output.dense", "mlp.fc2"),
)


def five_inside(name):
    outer, dot, inner = name.partition(".layer.") if ".layer." in name else name.partition(".decoder_layers.")
    for old, new in FIVE:
        if f".{old}." in inner:
            return outer + dot + inner.replace(f".{old}.", f".{new}.")
    return name


SPELLINGS = {
    "4.x": lambda name: name,
    "5.x": lambda name: five_inside(name).replace("encoder.layer.", "layers."),
    "5.x saved": lambda name: name.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer."),
    "5.x inside": five_inside,
}


def template(bare):
    words = ["{i}" if word.isdecimal() else word for word in bare.split(".")]
    return bare if bare.startswith("decoder.0.") else ".".join(words)


def test_the_table_has_a_row_for_every_parameter_and_no_other(config_of):
    rows = set()
    for cls in MODEL_CLASSES:
        for activation in ACTIVATIONS:
            fields = {"hidden_act": activation} | ({"pooler_act": activation} if cls == "ViTModel" else {})
            table = parameter_table(config_of(cls, **fields), cls, use_mask_token=True)
            for name, row in table.items():
                found, unexplained = canonical_names("x", [name], HF)
                assert found == {name: name} and not unexplained
                bare = name.removeprefix("vit.")
                assert bare.startswith(EXCHANGEABLE) == (row.part != "encoder")
                assert bare.startswith(HEADS) == (row.part in ("classifier", "decoder"))
                rows.add(template(bare))
    for fields in ({"num_register_tokens": 2, "layerscale_value": 1.0}, {"use_mean_pooling": True}):
        for name in parameter_table(config_of("ViTModel", **fields), "ViTModel"):
            assert canonical_names("x", [name], HF) == ({name: name}, [])
            rows.add(template(name))
    assert rows == {*hf.ROWS}


@pytest.mark.parametrize("activation", ["gelu", "prelu", "xielu"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_understood(saved, cls, spelling, activation):
    respelled = SPELLINGS[spelling]
    folder, tensors = saved(cls, lambda t: {respelled(name): a for name, a in t.items()}, hidden_act=activation)
    loaded = conversion.load_pretrained(folder, cls, {})
    assert [*loaded.tensors] == [*tensors] and not any(loaded.info.values())
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], array)
    changed = [name for name in tensors if respelled(name) != name]
    assert [note for note in loaded.report.notes if note.startswith(f"{len(changed)} names spelled")] or not changed


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "module._orig_mod.model.", "model.module."])
def test_wrappers_are_taken_off(saved, cls, wrapper):
    folder, tensors = saved(cls, lambda t: {wrapper + name: array for name, array in t.items()})
    loaded = conversion.load_pretrained(folder, cls, {})
    assert [*loaded.tensors] == [*tensors]
    assert loaded.report.notes == (f"prefix taken off: {wrapper} of {len(tensors)} names",)


def test_a_wrapper_inside_a_name_means_nothing(saved):
    folder, _ = saved("ViTModel", lambda t: {name.replace("encoder.", "encoder.module."): a for name, a in t.items()})
    with pytest.raises(
        CheckpointError, match=r"of 40 names, 'hf' explains 8,.*; unknown are encoder\.module\.layer\.0"
    ):
        conversion.load_pretrained(folder, "ViTModel", {})


PAIRS = [
    ("vit.embeddings.cls_token", "embeddings.cls_token"),
    ("vit.layernorm.weight", "layernorm.weight"),
    ("encoder.layer.0.attention.attention.query.bias", "layers.0.attention.q_proj.bias"),
    ("decoder.decoder_layers.0.output.dense.bias", "decoder.decoder_encoder.layer.0.output.dense.bias"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_names_for_one_parameter_are_refused(pair):
    with pytest.raises(CheckpointError) as caught:
        canonical_names("folder", pair, HF)
    assert str(caught.value) == (
        f"folder: two names for the same parameter: {pair[0]}, {pair[1]}.\nRemove one of them."
    )


STRANGE = [
    *(
        "",
        ".",
        "vit",
        "vit.",
        "vit.vit.layernorm.weight",
        "module.",
        "layernorm",
        "layernorm.gamma",
        "Layernorm.weight",
    ),
    *("vit.classifier.weight", "vit.decoder.0.weight", "vit.decoder.mask_token", "model.vit.classifier.bias"),
    *("encoder.layer.layernorm_before.weight", "encoder.layer.0.0.layernorm_before.weight", "encoder.layer.0"),
    *("encoder.layer.x.layernorm_before.weight", "encoder.layer.-1.layernorm_before.weight"),
    *("xlayernorm.weight", "layernorm.weight.x", "vitlayernorm.weight", "decoder.1.weight", "0.layernorm.weight"),
    *("encoder.layer.0.attention.q_proj.weight.0", "layers.0.attention.query.weight", "decoder.layers.0.mlp.fc1.bias"),
    "module." * 100_000,
]


@pytest.mark.parametrize("name", STRANGE, ids=range(len(STRANGE)))
def test_what_means_nothing_stays_unexplained(name):
    assert canonical_names("x", [name], HF) == ({}, [name])


@pytest.mark.parametrize("number", ["{i}", "00", "٣", "99999999999999999999", ""])
def test_a_layer_that_is_none_is_never_loaded(saved, number):
    strange = f"encoder.layer.{number}.layernorm_before.weight"
    folder, _ = saved("ViTModel", lambda t: {**t, strange: t["layernorm.weight"]})
    with pytest.raises(CheckpointError, match=r"1 unexpected: encoder\.layer"):
        conversion.load_pretrained(folder, "ViTModel", {})


def test_names_in_messages_are_short_and_plain():
    assert name_list(["a", "b"]) == "a, b"
    assert name_list([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    shown = name_list(["\x1b[2J\n", "\ud800", "n" * 10**6])
    assert shown.isprintable() and shown.startswith("'\\x1b[2J\\n'…, '\\ud800'…, 'nnn") and len(shown) < 130
