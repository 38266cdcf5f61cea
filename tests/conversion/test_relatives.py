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
from conversion.relatives import READ, REFUSED
from vit_core import reference
from vit_core.errors import CheckpointError, ConfigError

GOLDEN = Path(__file__).parent.parent / "golden" / "relatives"
SAME = {  # model -> class, largest difference as a share of the largest output; LayerScales are folded in float32
    "dinov2": ("ViTModel", 1e-7),
    "dinov2_5": ("ViTModel", 1e-7),
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
    "ijepa": "'ijepa': no class token",
    "dinov2_registers": "'dinov2_with_registers': register tokens",
    "dinov2_swiglu": r"mlp.weights_in.bias: a gated MLP \(SwiGLU\)",
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
    assert {path.name for path in GOLDEN.iterdir()} == {*SAME, *DEIT, *BY_NAME, "dinov2_classifier"}


@pytest.mark.parametrize("name", SAME)
def test_outputs_are_those_of_transformers(name):
    config, tensors, report = conversion.load(GOLDEN / name)
    said = json.loads((GOLDEN / name / "config.json").read_text())
    assert (report.model, config.model_type, config.layer_norm_eps) == (SAME[name][0], "vit", 1e-6)
    assert f"configuration: of model_type {said['model_type']}, read as vit" in report.notes
    assert not {"architectures", "out_features", "mlp_ratio", "layerscale_value"} & config.to_diff_dict().keys()
    check_outputs(name, config, tensors)


@pytest.mark.parametrize("name", SAME)
def test_what_is_written_is_a_plain_vit_that_computes_the_same(name, tmp_path):
    conversion.convert(GOLDEN / name, tmp_path / "new", to="hf")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == "vit"
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


def test_a_head_of_dinov2_is_not_a_head_of_a_vit():
    with pytest.raises(
        CheckpointError, match=r"classifier.weight \(3, 24\) instead of \(3, 12\) \(a head of class token"
    ):
        conversion.load(GOLDEN / "dinov2_classifier")
    config, _, report = conversion.load(GOLDEN / "dinov2_classifier", cls="ViTModel", add_pooling_layer=False)
    assert config.id2label == {0: "tench", 1: "goldfish", 2: "shark"}
    assert "left out, the class has no such part: classifier.bias, classifier.weight" in report.notes


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


@pytest.mark.parametrize(
    "fields", [{"mlp_ratio": "wide"}, {"mlp_ratio": 0}, {"use_swiglu_ffn": True}, {"hidden_size": "a"}]
)
def test_a_wrong_configuration_of_a_relative_is_named(fields, tmp_path):
    with pytest.raises(ConfigError, match="|".join([*fields, "intermediate_size"])):
        conversion.load(copied("dinov2_5", tmp_path, **fields))


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
NEUTRAL |= {"pos_embed": "learn", "embed_norm_layer": None, "mlp_layer": None, "attn_layer": None, "fix_init": True}
NEUTRAL |= {"pool_include_prefix": False, "dynamic_img_pad": False, "scale_attn_norm": False, "init_values": None}
OTHERS = {"reg_tokens": 4, "qk_norm": True, "fc_norm": True, "pre_norm": True, "final_norm": False, "pos_embed": "none"}
OTHERS |= {"norm_layer": "rmsnorm", "dynamic_img_pad": True, "attn_layer": "diff", "unheard_of": 1}


def test_arguments_that_change_nothing_in_timm_pass(tmp_path):
    folder = timm_folder(tmp_path, **NEUTRAL)
    _, found, _ = conversion.load(folder)
    for name, array in conversion.load(TIMM)[1].items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("argument", OTHERS)
def test_arguments_of_other_models_are_refused_by_name(argument, tmp_path):
    with pytest.raises(CheckpointError, match=f"config.json: .*: {argument}: "):
        conversion.load(timm_folder(tmp_path, **{argument: OTHERS[argument]}))
