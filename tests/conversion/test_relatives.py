"""Models of other types of transformers, as it saves them: those that are ViTs compute the same, others are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES
from foreign import source as foreign_source
from safetensors.numpy import load_file, save_file

import conversion
from conversion.auto import architecture
from conversion.relatives import REFUSED
from vit_core import reference
from vit_core.config.relatives import OF_DINOV2_HEADS, READ
from vit_core.errors import CheckpointError, ConfigError

GOLDEN = Path(__file__).parent.parent / "golden" / "relatives"
SAME = {  # model -> class, largest difference as a share of the largest output; LayerScales are folded in float32
    "dinov2": ("ViTModel", 1e-7),
    "dinov2_5": ("ViTModel", 1e-7),
    "dinov2_classifier": ("ViTForImageClassification", 1e-7),
    "dinov2_registers": ("ViTModel", 1e-7),
    "dinov2_registers_classifier_5": ("ViTForImageClassification", 1e-7),
    "dinov2_swiglu": ("ViTModel", 1e-7),
    "ijepa": ("ViTModel", 1e-14),
    "msn": ("ViTModel", 1e-14),
    "msn_classifier_5": ("ViTForImageClassification", 1e-14),
}
DEIT = {
    "deit": "ViTModel",
    "deit_classifier_5": "ViTForImageClassification",
    "deit_teacher": "ViTForImageClassification",
    "deit_masked": "ViTForMaskedImageModeling",
}
BY_NAME = {
    "beit": "'beit': relative positions",
}
TIMM = foreign_source(next(entry for entry in ENTRIES if entry["name"] == "timm_hub_folder"))


def copied(name, tmp_path, change=dict, **fields):
    """A folder as transformers writes it, with other tensors or other fields of config.json."""
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **fields}))
    return folder


def check_outputs(name, config, tensors):
    cls, tolerance = SAME[name]
    stored = np.load(GOLDEN / name / "outputs.npz")
    options = {"add_pooling_layer": False} if cls == "ViTModel" else {}
    found = reference.forward(cls, config, tensors, stored["pixel_values"], **options)
    (output,) = {"last_hidden_state", "logits"} & {*stored.files}
    scale = np.abs(stored[output]).max()
    np.testing.assert_allclose(found[output], stored[output], rtol=0, atol=tolerance * scale)


def test_every_golden_model_is_tested():
    assert {path.name for path in GOLDEN.iterdir()} == {*SAME, *DEIT, *BY_NAME}


@pytest.mark.parametrize("name", SAME)
def test_outputs_are_those_of_transformers(name):
    config, tensors, report = conversion.load(GOLDEN / name)
    said = json.loads((GOLDEN / name / "config.json").read_text())
    assert (report.model, config.model_type) == (SAME[name][0], "vit")
    assert config.layer_norm_eps == said["layer_norm_eps"] == (1e-12 if name == "ijepa" else 1e-6)
    assert f"configuration: of model_type {said['model_type']}, read as vit" in report.notes
    assert not {"architectures", "out_features", "mlp_ratio", "layerscale_value"} & config.to_diff_dict().keys()
    check_outputs(name, config, tensors)


WRITTEN = {
    "dinov2_classifier": "dinov2",
    "dinov2_registers": "dinov2_with_registers",
    "dinov2_registers_classifier_5": "dinov2_with_registers",
    "dinov2_swiglu": "dinov2",
    "ijepa": "ijepa",
}  # as it was


@pytest.mark.parametrize("name", SAME)
def test_what_is_written_is_a_plain_vit_where_it_can_be_one_and_computes_the_same(name, tmp_path):
    conversion.convert(GOLDEN / name, tmp_path / "new", to="hf")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == WRITTEN.get(name, "vit")
    config, tensors, _ = conversion.load(tmp_path / "new")
    check_outputs(name, config, tensors)


@pytest.mark.parametrize("words", ["module.", "net.encoder.", "vit.", "deit."])
@pytest.mark.parametrize("name", ["dinov2_5", "dinov2_classifier", "deit", "deit_teacher"])
def test_wrappers_leave_their_names_in_front_here_too(name, words, tmp_path):
    folder = copied(name, tmp_path, lambda tensors: {words + name: array for name, array in tensors.items()})
    options = {"cls": "ViTModel", "allow": ("distillation",), "add_pooling_layer": name == "deit"}
    _, found, report = conversion.load(folder, **options)
    _, expected, _ = conversion.load(GOLDEN / name, **options)
    is_own_word = name == "deit" and words == "deit."  # the word of transformers itself
    assert any(note.startswith(f"prefix taken off: {words} of ") for note in report.notes) != is_own_word
    for full, array in expected.items():
        np.testing.assert_array_equal(found[full], array)


@pytest.mark.parametrize("words", ["deit.", "dinov2.", "vit."])
def test_a_vit_under_the_name_of_a_relative_is_a_vit(words, tmp_path):
    config = make_config("ViTModel")
    tensors = make_tensors("ViTModel", config)
    write(tmp_path / "model", config, {words + name: array for name, array in tensors.items()})
    loaded = conversion.load_pretrained(tmp_path / "model", "ViTModel", {})
    assert loaded.missing == []
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], array)


@pytest.mark.parametrize("name", DEIT)
def test_deit_asks_before_it_leaves_the_distillation_token_out(name):
    with pytest.raises(CheckpointError, match=r"distillation token .*\nallow=\('distillation',\)"):
        conversion.load(GOLDEN / name)
    config, tensors, report = conversion.load(GOLDEN / name, allow=("distillation",))
    stored = {n.removeprefix("deit."): array for n, array in load_file(GOLDEN / name / "model.safetensors").items()}
    assert (report.model, config.model_type) == (DEIT[name], "vit")
    positions = stored["embeddings.position_embeddings"]
    expected = {"embeddings.position_embeddings": np.concatenate([positions[:, :1], positions[:, 2:]], axis=1)}
    expected |= {n.removeprefix("cls_"): array for n, array in stored.items() if n.startswith("cls_classifier")}
    for full, array in tensors.items():
        bare = full.removeprefix("vit.")
        np.testing.assert_array_equal(array, expected[bare] if bare in expected else stored[bare])
    left = {"embeddings.distillation_token", "distillation_classifier.weight", "distillation_classifier.bias"}
    taken = {bare.removeprefix("vit.") for bare in tensors} | {f"cls_{bare}" for bare in tensors}
    assert {*stored} - taken <= left


def test_a_head_of_dinov2_reads_class_token_and_mean_where_that_is_said(tmp_path):
    config, _, _ = conversion.load(GOLDEN / "dinov2_classifier")
    assert config.family_options == {**OF_DINOV2_HEADS} and config.pooled_size == 2 * config.hidden_size
    without_class = copied("dinov2_classifier", tmp_path, architectures=["Dinov2Model"])
    with pytest.raises(
        CheckpointError, match=r"classifier.weight \(3, 24\) instead of \(3, 12\) \(a head of class token"
    ):
        conversion.load(without_class)
    config, tensors, _ = conversion.load(without_class, **OF_DINOV2_HEADS)
    check_outputs("dinov2_classifier", config, tensors)


def test_the_encoder_below_a_head_of_dinov2_is_read_without_it():
    config, tensors, report = conversion.load(GOLDEN / "dinov2_classifier", cls="ViTModel", add_pooling_layer=False)
    assert config.id2label == {0: "tench", 1: "goldfish", 2: "shark"}
    assert "left out, the class has no such part: classifier.bias, classifier.weight" in report.notes
    pixels = np.load(GOLDEN / "dinov2_classifier" / "outputs.npz")["pixel_values"]
    pooled = reference.forward("ViTModel", config, tensors, pixels)["pooler_output"]
    head = load_file(GOLDEN / "dinov2_classifier" / "model.safetensors")
    logits = pooled @ head["classifier.weight"].T.astype(np.float64) + head["classifier.bias"]
    np.testing.assert_allclose(logits, np.load(GOLDEN / "dinov2_classifier" / "outputs.npz")["logits"], atol=1e-5)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("cls", [None, "ViTModel", "ViTForImageClassification"])
def test_what_transformers_writes_of_other_models_is_refused_by_name(name, cls):
    with pytest.raises(CheckpointError, match=BY_NAME[name]) as caught:
        conversion.load(GOLDEN / name, cls=cls)
    assert str(caught.value).count("\n") < 3


@pytest.mark.parametrize("model_type", REFUSED)
def test_every_other_type_is_refused_with_its_reason(model_type, tmp_path):
    folder = copied("msn", tmp_path, model_type=model_type)
    reason = f"{folder}: config.json: model_type {model_type!r}: {REFUSED[model_type]}; "
    for load in (conversion.load, lambda path: conversion.load_pretrained(path, "ViTModel", {})):
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        assert str(caught.value).startswith(reason) and str(caught.value).count("\n") == 1


@pytest.mark.parametrize("fields", [{"mlp_ratio": "wide"}, {"mlp_ratio": 0}, {"hidden_size": "a"}])
def test_a_wrong_configuration_of_a_relative_is_named(fields, tmp_path):
    with pytest.raises(ConfigError, match="|".join([*fields, "intermediate_size"])):
        conversion.load(copied("dinov2_5", tmp_path, **fields))


WRONG = {  # what config.json says -> what the error names
    "dinov2_5 use_swiglu_ffn true": r"intermediate.dense.weight \(24, 12\) instead of \(32, 12\)",
    "dinov2_swiglu use_swiglu_ffn false": r"intermediate.dense.weight \(32, 12\) instead of \(24, 12\)",
    "dinov2_registers num_register_tokens 3": r"register_tokens \(1, 4, 12\) instead of \(1, 3, 12\)",
    "dinov2_5 num_register_tokens 3": "1 missing: embeddings.register_tokens",
    "dinov2_registers num_register_tokens -1": "num_register_tokens: expected an int from 0",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_configuration_that_is_not_of_the_weights_is_refused_by_name(words, tmp_path):
    name, field, value = words.split()
    with pytest.raises((CheckpointError, ConfigError), match=WRONG[words]):
        conversion.load(copied(name, tmp_path, **{field: json.loads(value)}))


def test_layer_scale_is_folded_or_kept_as_is_asked():
    folded, tensors, report = conversion.load(GOLDEN / "dinov2_5")
    assert folded.layerscale_value is None and "folded: 4 LayerScales into the layers before them" in report.notes
    config, kept, report = conversion.load(GOLDEN / "dinov2_5", layerscale_value=1.0)
    assert {*kept} - {*tensors} == {
        f"encoder.layer.{i}.layer_scale{k}.lambda1" for i in range(2) for k in (1, 2)
    } and not any("folded" in note for note in report.notes)
    check_outputs("dinov2_5", config, kept)
    with pytest.raises(CheckpointError, match=r"4 missing: .*layer_scale1.lambda1"):
        conversion.load(GOLDEN / "msn", layerscale_value=1.0)


def without(*words):
    """A change of tensors: those whose names have the words are gone."""
    return lambda tensors: {n: each for n, each in tensors.items() if not any(word in n for word in words)}


def test_layer_scale_of_some_branches_is_refused(tmp_path):
    folder = copied("dinov2_5", tmp_path, without("layer.1.layer_scale2"))
    with pytest.raises(
        CheckpointError, match=r"LayerScale of 3 branches, expected 4 or none.\nSome are lost, or folded"
    ):
        conversion.load(folder)
    with pytest.raises(CheckpointError, match=r"1 missing: encoder.layer.1.layer_scale2.lambda1"):
        conversion.load(folder, layerscale_value=1.0)


def test_a_vit_with_scales_that_its_configuration_does_not_know_is_refused(tmp_path):
    config = make_config("ViTModel")
    tensors = make_tensors("ViTModel", config)
    scale = {"encoder.layer.0.layer_scale1.lambda1": np.ones(config.hidden_size, np.float32)}
    write(tmp_path / "model", config, {**tensors, **scale})
    with pytest.raises(CheckpointError, match=r"1 unexpected: encoder.layer.0.layer_scale1.lambda1"):
        conversion.load_pretrained(tmp_path / "model", "ViTModel", {})


@pytest.mark.parametrize("name", ["dinov2_5", "msn"])
def test_what_a_configuration_leaves_unsaid_is_that_type_s(name, tmp_path):
    folder = copied(name, tmp_path)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({n: v for n, v in said.items() if n != "layer_norm_eps"}))
    assert conversion.load(folder)[0].layer_norm_eps == 1e-6


def test_no_type_is_both_read_and_refused():
    assert not READ.keys() & ({*REFUSED} | {"vit", "vit_mae"})


@pytest.mark.parametrize(
    ("mean", "notes"), [([0.4, 0.5, 0.6], "preprocessor_config.json, without its crop"), (None, "DINOv2")]
)
def test_the_images_of_dinov2_are_prepared_as_its_processor_says(mean, notes, tmp_path):
    folder = copied("dinov2_5", tmp_path)
    if mean:
        said = {"image_processor_type": "BitImageProcessor", "image_mean": mean, "image_std": [0.2] * 3}
        said |= {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
        (folder / "preprocessor_config.json").write_text(json.dumps({**said, "resample": 2}))
    report = conversion.convert(folder, tmp_path / "new", to="hf")
    assert any(note.startswith("image processor: by ") and notes in note for note in report.notes)
    written = json.loads((tmp_path / "new" / "preprocessor_config.json").read_text())
    assert written["image_mean"] == (mean or [0.485, 0.456, 0.406]) and written["resample"] == (2 if mean else 3)
    assert written["size"] == {"height": 12, "width": 12}


@pytest.mark.parametrize("name", SAME)
def test_the_class_of_a_relative_is_the_one_whose_weights_it_holds(name):
    config, found, options = architecture(GOLDEN / name)
    has_pooler = name == "ijepa"  # the mean of the patches, which has no weights
    assert (config.model_type, found) == ("vit", SAME[name][0])
    assert options.get("add_pooling_layer", False) == has_pooler


# What timm's config.json says in newer words


def timm_folder(tmp_path, **arguments):
    shutil.copytree(TIMM, tmp_path / "timm")
    said = json.loads((tmp_path / "timm" / "config.json").read_text())
    said["model_args"] = {**said.get("model_args", {}), **arguments}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(said))
    return tmp_path / "timm"


NEUTRAL = {
    "reg_tokens": 0,
    "qk_norm": False,
    "fc_norm": False,
    "pre_norm": False,
    "final_norm": True,
    "norm_layer": None,
}
NEUTRAL |= {
    "class_token": True,
    "pos_embed": "learn",
    "embed_norm_layer": None,
    "mlp_layer": None,
    "attn_layer": None,
    "fix_init": True,
}
NEUTRAL |= {"pool_include_prefix": False, "dynamic_img_pad": False, "scale_attn_norm": False, "init_values": None}
OTHERS = {"qk_norm": True, "pre_norm": True, "final_norm": False, "pos_embed": "none"}
OTHERS |= {"norm_layer": "rmsnorm", "dynamic_img_pad": True, "attn_layer": "diff", "unheard_of": 1}


def test_arguments_that_change_nothing_in_timm_pass(tmp_path):
    folder = timm_folder(tmp_path, **NEUTRAL)
    _, found, _ = conversion.load(folder)
    for name, array in conversion.load(TIMM)[1].items():
        np.testing.assert_array_equal(found[name], array)


CONTRADICTIONS = {  # arguments of a model with a class token and a norm of all tokens -> what the error names
    "reg_tokens 4": "1 missing: vit.embeddings.register_tokens",
    "class_token false": "1 unexpected: vit.embeddings.cls_token",
    'global_pool "map"': "global_pool 'map': heads here read the class token or the mean",
}


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_what_timm_says_and_its_tensors_do_not_is_refused_by_name(words, tmp_path):
    argument, value = words.split()
    with pytest.raises((CheckpointError, ConfigError), match=CONTRADICTIONS[words]):
        conversion.load(timm_folder(tmp_path, **{argument: json.loads(value)}))


@pytest.mark.parametrize("argument", OTHERS)
def test_arguments_of_other_models_are_refused_by_name(argument, tmp_path):
    with pytest.raises(CheckpointError, match=f"config.json: .*: {argument}: "):
        conversion.load(timm_folder(tmp_path, **{argument: OTHERS[argument]}))


# Models with options as timm has them

_NORM_FIRST = {"use_mean_pooling": True, "norm_before_pooling": True}
_GATED = {"use_swiglu_ffn": True, "intermediate_size": 14}
_PATCHES_ALONE = {**_NORM_FIRST, "use_class_token": False}
WRITTEN_BY_TIMM = {  # fields -> what model_args says of them
    "mean": ({"use_mean_pooling": True}, {"global_pool": "avg", "fc_norm": True}),
    "norm first": (_NORM_FIRST, {"global_pool": "avg", "fc_norm": False}),
    "patches alone": (_PATCHES_ALONE, {"class_token": False, "global_pool": "avg"}),
    "registers": ({"num_register_tokens": 3}, {"reg_tokens": 3, "no_embed_class": False}),
    "registers and patches": ({**_PATCHES_ALONE, "num_register_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}),
    "gated": (_GATED, {"init_values": 0}),
    "all": (
        {**_GATED, **_NORM_FIRST, "num_register_tokens": 1, "layerscale_value": 0.5, "hidden_act": "relu"},
        {"reg_tokens": 1, "init_values": 0.5, "fc_norm": False},
    ),
    "LayerScale from zero": ({"layerscale_value": 0.0}, {"init_values": 1.0}),
}


@pytest.mark.parametrize("sides", [12, (12, 20)])
@pytest.mark.parametrize("what", WRITTEN_BY_TIMM)
def test_options_that_timm_has_are_written_for_it_and_come_back(what, sides, tmp_path):
    fields, expected = WRITTEN_BY_TIMM[what]
    config = make_config("ViTForImageClassification", layer_norm_eps=1e-6, **{**fields, "image_size": sides})
    tensors = make_tensors("ViTForImageClassification", config)
    conversion.save_pretrained(tmp_path / "ours", config, tensors, class_name="ViTForImageClassification")
    conversion.convert(tmp_path / "ours", tmp_path / "timm", to="timm")
    said = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert said["model_args"].items() >= expected.items()
    assert ("giant" in said["architecture"]) == config.use_swiglu_ffn  # whose MLP is gated
    back, found, _ = conversion.load(tmp_path / "timm", layerscale_value=config.layerscale_value)
    assert back.family_options == config.family_options and found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_head_on_class_token_and_mean_is_not_written_for_timm(tmp_path):
    config = make_config("ViTForImageClassification", layer_norm_eps=1e-6, **OF_DINOV2_HEADS)
    tensors = make_tensors("ViTForImageClassification", config)
    conversion.save_pretrained(tmp_path / "ours", config, tensors, class_name="ViTForImageClassification")
    with pytest.raises(CheckpointError, match=r"as 'timm': it has no pool_class_token.\nto='hf' .* keeps every option"):
        conversion.convert(tmp_path / "ours", tmp_path / "timm", to="timm")


def test_a_head_that_a_target_lacks_is_left_to_the_class_that_the_error_names(tmp_path):
    config = make_config("ViTForMaskedImageModeling")
    tensors = make_tensors("ViTForMaskedImageModeling", config)
    conversion.save_pretrained(tmp_path / "ours", config, tensors, class_name="ViTForMaskedImageModeling")
    with pytest.raises(CheckpointError, match=r"ViTForImageClassification only.\ncls='ViTModel' .* encoder alone"):
        conversion.convert(tmp_path / "ours", tmp_path / "flax", to="hf_flax")
    conversion.convert(tmp_path / "ours", tmp_path / "flax", to="hf_flax", cls="ViTModel", use_mask_token=False)


def test_a_part_that_timm_lacks_is_left_out_as_the_error_says(tmp_path):
    with pytest.raises(CheckpointError, match=r"it has no mask token, .*\nuse_mask_token=False .* leaves it out"):
        conversion.convert(GOLDEN / "dinov2_registers", tmp_path / "timm", to="timm")
    conversion.convert(GOLDEN / "dinov2_registers", tmp_path / "timm", to="timm", use_mask_token=False)
    tensors = make_tensors("ViTModel", config := make_config("ViTModel"))
    conversion.save_pretrained(tmp_path / "pooled", config, tensors, class_name="ViTModel")
    with pytest.raises(CheckpointError, match=r"it has no pooler, .*\nadd_pooling_layer=False .* leaves it out"):
        conversion.convert(tmp_path / "pooled", tmp_path / "pooled-timm", to="timm", allow=("numerics",))
    conversion.convert(
        tmp_path / "pooled", tmp_path / "pooled-timm", to="timm", allow=("numerics",), add_pooling_layer=False
    )


def test_a_gate_of_another_activation_is_refused(tmp_path):
    folder = timm_folder(tmp_path, act_layer="gelu")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "architecture": "vit_giant_patch14_dinov2"}))
    with pytest.raises(CheckpointError, match="act_layer 'gelu': gates here are of silu only"):
        conversion.load(folder)


# The same models in the names of DINOv2's own files


def in_own_names(tensors, layers=2):
    """A file of DINOv2's repository, from tensors of transformers."""
    plain = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
        "attention.output.dense": "attn.proj",
    }
    plain |= {
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "register_tokens",
        "encoder.layer": "blocks",
    }
    plain |= {"embeddings.position_embeddings": "pos_embed", "weights_in": "w12", "weights_out": "w3"}
    plain |= {"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}
    found = {}
    for name, array in tensors.items():
        if ".attention.attention." in name or name == "embeddings.mask_token":
            continue
        for theirs, own in plain.items():
            name = name.replace(theirs, own)
        found[name] = array
    for i in range(layers):
        for word in ("weight", "bias"):
            at = f"encoder.layer.{i}.attention.attention."
            found[f"blocks.{i}.attn.qkv.{word}"] = np.concatenate(
                [tensors[f"{at}{part}.{word}"] for part in ("query", "key", "value")]
            )
    return found


@pytest.mark.parametrize("name", ["dinov2_registers", "dinov2_swiglu"])
def test_names_of_dinov2_itself_are_read_alike(name, tmp_path):
    stored = in_own_names(load_file(GOLDEN / name / "model.safetensors"))
    save_file(stored, tmp_path / "own.safetensors")
    config, tensors, report = conversion.load(tmp_path / "own.safetensors", num_attention_heads=3)
    assert report.dialect == "timm"
    check_outputs(name, config, tensors)


def test_positions_of_registers_are_added_to_them(tmp_path):
    """timm's order without no_embed_class: one table for class token, registers and patches."""
    stored = in_own_names(load_file(GOLDEN / "dinov2_registers" / "model.safetensors"))
    table, registers = stored["pos_embed"], stored.pop("register_tokens")
    extra = np.random.default_rng(3).standard_normal(registers.shape).astype(np.float32)
    stored["pos_embed"] = np.concatenate([table[:, :1], extra, table[:, 1:]], axis=1)
    save_file({**stored, "reg_token": registers - extra}, tmp_path / "own.safetensors")
    _, tensors, report = conversion.load(tmp_path / "own.safetensors", num_attention_heads=3)
    assert "folded: the positions of 4 registers into them" in report.notes
    np.testing.assert_allclose(tensors["embeddings.register_tokens"], registers, atol=1e-6)
    np.testing.assert_array_equal(tensors["embeddings.position_embeddings"], table)
