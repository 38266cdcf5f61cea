"""What a class gets of a file: parts that may be missing or extra, prefixes both ways, and what is never guessed."""

import logging

import numpy as np
import pytest
import refusing

import conversion
from vit_core.errors import CheckpointError
from vit_core.files.saving import save_folder
from vit_core.parameters import BASE_CLASSES, MODEL_CLASSES, parameter_table
from vit_core.positions import resize_table, sincos_table

CLASSIFIER = ["classifier.weight", "classifier.bias"]
POOLER = ["pooler.dense.weight", "pooler.dense.bias"]
MIM = ["decoder.0.weight", "decoder.0.bias"]
MASK = ["vit.embeddings.mask_token"]
MAE = "every decoder.* of ViTMAEForPreTraining"

# file, class, what the class misses, what the file has too much. Source: transformers 4.57.6, output_loading_info.
HANDOVERS = [
    ("ViTForImageClassification", "ViTModel", POOLER, CLASSIFIER),
    ("ViTModel", "ViTForImageClassification", CLASSIFIER, POOLER),
    ("ViTForMaskedImageModeling", "ViTForImageClassification", CLASSIFIER, MIM + MASK),
    ("ViTForImageClassification", "ViTForMaskedImageModeling", MASK + MIM, CLASSIFIER),
    ("ViTMAEForPreTraining", "ViTForImageClassification", CLASSIFIER, MAE),
    ("ViTMAEForPreTraining", "ViTMAEModel", [], MAE),
    ("ViTModel", "ViTMAEModel", [], POOLER),
    ("ViTMAEModel", "ViTMAEForPreTraining", MAE, []),
    ("ViTMAEModel", "ViTModel", POOLER, []),
    ("ViTForMaskedImageModeling", "ViTMAEForPreTraining", MAE, MIM + MASK),
    ("ViTMAEForPreTraining", "ViTForMaskedImageModeling", MASK + MIM, MAE),
    ("ViTForMaskedImageModeling", "ViTModel", POOLER, MIM + MASK),
]
SMALL_DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 10,
}


def decoder_names(config_of):
    table = parameter_table(config_of("ViTMAEForPreTraining"), "ViTMAEForPreTraining")
    return [name for name in table if name.startswith("decoder.")]


@pytest.mark.parametrize(("file", "target", "missing", "extra"), HANDOVERS)
def test_hand_overs(saved, config_of, caplog, file, target, missing, extra):
    folder, tensors = saved(file)
    missing, extra = (decoder_names(config_of) if names == MAE else names for names in (missing, extra))
    fields = SMALL_DECODER if target == "ViTMAEForPreTraining" else {}
    with caplog.at_level(logging.INFO, "vitriad"):
        loaded = conversion.load_pretrained(folder, target, fields)
    expected = {"missing_keys": missing, "unexpected_keys": extra, "mismatched_keys": [], "error_msgs": []}
    assert {key: sorted(names) for key, names in loaded.info.items()} == {k: sorted(v) for k, v in expected.items()}
    assert type(loaded.config) is MODEL_CLASSES[target]
    table = [*parameter_table(loaded.config, target, **loaded.options)]
    assert [name for name in table if name not in loaded.missing] == [*loaded.tensors]
    assert loaded.missing == [name for name in table if name in missing]
    for name, array in loaded.tensors.items():
        bare = name.removeprefix("vit.")
        (same,) = {name, bare, f"vit.{bare}"} & {*tensors}
        np.testing.assert_array_equal(array, tensors[same])
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING"] * bool(missing) + ["INFO"] * bool(extra)
    assert all(str(folder) in record.getMessage() for record in caplog.records)


def test_a_hand_over_between_vit_and_vit_mae_is_reported(saved):
    folder, _ = saved("ViTMAEForPreTraining")
    report = str(conversion.load_pretrained(folder, "ViTModel", {"add_pooling_layer": False}).report)
    assert report.startswith(f"{folder} (dialect hf) as ViTModel\n")
    assert "configuration: of model_type vit_mae, read as vit" in report
    assert "left out, the class has no such part: decoder.decoder_embed.bias, " in report
    assert "not in the file" not in report


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("mask_token", [True, False])
def test_options_of_the_encoder(saved, pooler, mask_token):
    options = {"add_pooling_layer": pooler, "use_mask_token": mask_token}
    folder, _ = saved("ViTModel", options={"use_mask_token": True})
    loaded = conversion.load_pretrained(folder, "ViTModel", options)
    assert loaded.options == options and loaded.missing == []
    left_out = ["embeddings.mask_token"] * (not mask_token) + sorted(POOLER) * (not pooler)
    assert loaded.info["unexpected_keys"] == left_out


@pytest.mark.parametrize("name", ["classifier.bias", "classifier.weight"])
def test_only_what_is_missing_is_initialised(saved, name):
    folder, tensors = saved("ViTForImageClassification", lambda t: {n: a for n, a in t.items() if n != name})
    loaded = conversion.load_pretrained(folder, "ViTForImageClassification", {})
    assert loaded.missing == [name]
    assert [*loaded.tensors] == [other for other in tensors if other != name]


# What does not fit


def refusal(folder, cls, error=CheckpointError, **keywords):
    message = refusing.refusal(lambda: conversion.load_pretrained(folder, cls, keywords), error)
    assert str(folder) in message
    return message


def without(*names):
    return lambda tensors: {name: array for name, array in tensors.items() if name not in names}


def test_a_missing_encoder_weight_is_an_error(saved, cls):
    name = f"{'' if cls in BASE_CLASSES else 'vit.'}encoder.layer.1.output.dense.bias"
    folder, tensors = saved(cls, without(name))
    assert f"does not fit {cls}:\n1 missing: {name}.\n" in refusal(folder, cls)
    loaded = conversion.load_pretrained(folder, cls, {"strict": False})
    assert loaded.missing == loaded.info["missing_keys"] == [name]
    assert len(loaded.tensors) == len(tensors) - 1


def test_all_problems_are_told_at_once(saved):
    def change(tensors):
        names = [*tensors]
        kept = {name: tensors[name] for name in names[12:]}
        wide = {name: np.zeros((3, *array.shape)) for name, array in [*kept.items()][:11]}
        return {**kept, **wide, "x\n": np.zeros(1), "vit.classifier.weight": np.zeros(1)}

    folder, tensors = saved("ViTForImageClassification", change)
    message = refusal(folder, "ViTForImageClassification")
    names = [*tensors]
    assert f"12 missing: {', '.join(names[:10])} and 2 more; 2 unexpected: vit.classifier.weight, 'x\\n'…; " in message
    assert f"11 of another shape: {names[12]} (3, 12, 12) instead of (12, 12)" in message and "and 1 more.\n" in message
    loaded = conversion.load_pretrained(folder, "ViTForImageClassification", {"strict": False})
    assert loaded.missing == names[:23] and loaded.info["missing_keys"] == names[:12]
    assert loaded.info["mismatched_keys"] == names[12:23]
    assert loaded.info["unexpected_keys"] == ["vit.classifier.weight", "x\n"]


def test_shapes_are_never_made_to_fit(saved):
    def transpose(tensors):
        return {name: array.T if "intermediate.dense.weight" in name else array for name, array in tensors.items()}

    folder, _ = saved("ViTModel", transpose)
    message = refusal(folder, "ViTModel")
    assert "2 of another shape: encoder.layer.0.intermediate.dense.weight (12, 14) instead of (14, 12), " in message


def test_ignored_mismatches_are_initialised_alone(saved, caplog):
    folder, tensors = saved("ViTForImageClassification")
    message = refusal(folder, "ViTForImageClassification", num_labels=7)
    labels = "(the configuration has 7 labels, the file 5 classes)"
    assert f"2 of another shape: classifier.weight (5, 12) instead of (7, 12) {labels}, classifier.bias (5,)" in message
    loaded = conversion.load_pretrained(
        folder, "ViTForImageClassification", {"num_labels": 7, "ignore_mismatched_sizes": True}
    )
    assert loaded.missing == loaded.info["mismatched_keys"] == CLASSIFIER
    assert loaded.info["missing_keys"] == [] and loaded.config.num_labels == 7
    assert [*loaded.tensors] == [*tensors][:-2]
    assert "initialised anew, so train it: classifier.weight, classifier.bias" in caplog.text


def test_more_layers_than_the_configuration_has_are_unexpected(saved, cls):
    folder, _ = saved(cls)
    assert "16 unexpected: " in refusal(folder, cls, num_hidden_layers=1)
    assert "16 missing: " in refusal(folder, cls, num_hidden_layers=3)


def test_biases_are_as_the_configuration_says(saved):
    folder, _ = saved("ViTModel", qkv_bias=False)
    assert "6 missing: encoder.layer.0.attention.attention.query.bias" in refusal(folder, "ViTModel", qkv_bias=True)
    folder, _ = saved("ViTModel", name="other")
    assert "6 unexpected: encoder.layer.0.attention.attention.key.bias" in refusal(folder, "ViTModel", qkv_bias=False)


def test_a_decoder_of_unknown_names_is_never_initialised_in_silence(saved):
    def rename(tensors):
        return {name.replace("decoder_layers", "decoder_blocks"): array for name, array in tensors.items()}

    folder, _ = saved("ViTMAEForPreTraining", rename)
    assert "16 unexpected: decoder.decoder_blocks.0." in refusal(folder, "ViTMAEForPreTraining")


def test_a_head_beside_an_encoder_without_prefix_is_nobody_s(saved):
    def strip(tensors):
        return {name.removeprefix("vit."): array for name, array in tensors.items()}

    folder, _ = saved("ViTForImageClassification", strip)
    message = refusal(folder, "ViTForImageClassification")
    assert "2 unexpected: classifier.bias (beside an encoder without 'vit.'), classifier.weight" in message
    loaded = conversion.load_pretrained(folder, "ViTModel", {})
    assert loaded.info["unexpected_keys"] == sorted(CLASSIFIER) and loaded.missing == POOLER


def test_pruned_heads_are_part_of_the_table(saved):
    folder, tensors = saved("ViTModel", pruned_heads={0: [1], 1: [0, 2]})
    loaded = conversion.load_pretrained(folder, "ViTModel", {})
    assert loaded.config.pruned_heads == {0: [1], 1: [0, 2]} and loaded.missing == []
    assert loaded.tensors["encoder.layer.1.attention.output.dense.weight"].shape == (12, 4)
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], array)


# Values and dtypes


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64", None, "auto"])
def test_dtypes(saved, stored, wanted):
    folder, tensors = saved("ViTMAEModel", lambda t: {name: array.astype(stored) for name, array in t.items()})
    loaded = conversion.load_pretrained(folder, "ViTMAEModel", {"dtype": wanted})
    expected = {None: "float32", "auto": stored}.get(wanted, wanted)
    assert loaded.config.dtype == expected
    for name, array in tensors.items():
        assert loaded.tensors[name].dtype.name == expected
        np.testing.assert_array_equal(loaded.tensors[name], array.astype(stored).astype(expected))
        assert loaded.tensors[name].flags.writeable
        assert (loaded.tensors[name].base is not None) == (stored == expected)  # a view of the file if it fits already


def test_the_configuration_s_dtype_counts_for_auto_only(saved):
    folder, _ = saved("ViTMAEModel", dtype="bfloat16")
    assert conversion.load_pretrained(folder, "ViTMAEModel", {}).config.dtype == "float32"
    loaded = conversion.load_pretrained(folder, "ViTMAEModel", {"dtype": "auto"})
    assert loaded.config.dtype == loaded.tensors["layernorm.bias"].dtype.name == "bfloat16"


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_tensors_of_no_floating_dtype_are_refused_by_name(saved, dtype):
    folder, _ = saved("ViTModel", lambda t: {**t, "layernorm.bias": t["layernorm.bias"].astype(dtype)})
    message = refusal(folder, "ViTModel", strict=False)
    assert f"1 of no floating dtype: layernorm.bias {dtype}.\n" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(saved, value):
    def spoil(tensors):
        tensors["encoder.layer.0.output.dense.bias"][[1, 3]] = value
        return tensors

    folder, _ = saved("ViTModel", spoil)
    message = refusal(folder, "ViTModel")
    assert f"{folder}: encoder.layer.0.output.dense.bias: 2 of 12 values are NaN or infinite." in message
    loaded = conversion.load_pretrained(folder, "ViTModel", {"allow_nonfinite": True, "dtype": "float16"})
    found = loaded.tensors["encoder.layer.0.output.dense.bias"]
    np.testing.assert_array_equal(np.isfinite(found), [True, False, True, False] + [True] * 8)


OVERFLOWS = [("float64", "float32", 1e300), ("float32", "float16", 1e5), ("bfloat16", "float16", 2.0**20)]
OVERFLOWS += [("float64", "bfloat16", 1e300), ("float64", "float16", -1e5)]


@pytest.mark.parametrize(("stored", "wanted", "value"), OVERFLOWS)
def test_values_that_do_not_fit_are_an_error(saved, stored, wanted, value):
    def enlarge(tensors):
        return {name: np.full(array.shape, value, stored) for name, array in tensors.items()}

    folder, _ = saved("ViTModel", enlarge)
    message = refusal(folder, "ViTModel", dtype=wanted)
    assert f"embeddings.cls_token: values up to {abs(value):.3g} do not fit into {wanted}.\n" in message
    assert f"dtype={stored!r}" in message
    conversion.load_pretrained(folder, "ViTModel", {"dtype": stored})


# Positions


@pytest.mark.parametrize("kernel", ["hf", "timm", "tf", "bigvision", "dino"])
def test_positions_of_another_grid_are_resized(saved, kernel):
    folder, tensors = saved("ViTForMaskedImageModeling")
    keywords = {"image_size": (16, 8), "position_kernel": kernel}
    loaded = conversion.load_pretrained(folder, "ViTForMaskedImageModeling", keywords)
    name = "vit.embeddings.position_embeddings"
    np.testing.assert_array_equal(loaded.tensors[name], resize_table(tensors[name], (2, 3), (4, 2), kernel))
    assert loaded.report.notes == (f"resized to 4 x 2 patches: {name}",)
    assert not any(loaded.info.values())


def test_both_tables_of_mae_are_resized_and_the_fixed_one_made_anew(saved):
    fixed = "decoder.decoder_pos_embed"

    def fix(tensors):
        return {**tensors, fixed: sincos_table(8, 2, 3).astype(np.float32)}

    folder, tensors = saved("ViTMAEForPreTraining", fix)
    loaded = conversion.load_pretrained(folder, "ViTMAEForPreTraining", {"image_size": 20, "dtype": "float64"})
    np.testing.assert_allclose(loaded.tensors[fixed], sincos_table(8, 5, 5), rtol=0, atol=1e-7)
    name = "vit.embeddings.position_embeddings"
    np.testing.assert_array_equal(loaded.tensors[name], resize_table(tensors[name], (2, 3), (5, 5)))
    assert loaded.report.notes == (f"resized to 5 x 5 patches: {name}, {fixed}",)


def test_the_same_number_of_patches_in_another_grid_is_another_table(saved):
    folder, tensors = saved("ViTMAEModel")
    loaded = conversion.load_pretrained(folder, "ViTMAEModel", {"image_size": (12, 8)})
    name = "embeddings.position_embeddings"
    np.testing.assert_array_equal(loaded.tensors[name], resize_table(tensors[name], (2, 3), (3, 2)))


def test_positions_that_no_configuration_explains_are_refused(saved):
    name = "embeddings.position_embeddings"
    folder, _ = saved("ViTMAEModel", lambda t: {**t, name: t[name][:, :-1]})
    message = refusal(folder, "ViTMAEModel", image_size=16)
    assert f"1 of another shape: {name} (1, 6, 12) instead of (1, 17, 12) (config.json says 2 x 3 patches)" in message
    loaded = conversion.load_pretrained(folder, "ViTMAEModel", {"image_size": 16, "ignore_mismatched_sizes": True})
    assert loaded.missing == [name]


def test_a_configuration_of_the_caller_s_says_what_is_wanted_not_what_is_stored(saved, config_of):
    folder, tensors = saved("ViTMAEModel")
    config = config_of("ViTMAEModel", image_size=16)
    loaded = conversion.load_pretrained(folder, "ViTMAEModel", {"config": config})
    name = "embeddings.position_embeddings"
    np.testing.assert_array_equal(loaded.tensors[name], resize_table(tensors[name], (2, 3), (4, 4)))
    (folder / "config.json").unlink()
    assert f"{name} (1, 7, 12) instead of (1, 17, 12).\n" in refusal(folder, "ViTMAEModel", config=config)
    found = conversion.load_pretrained(folder, "ViTMAEModel", {"config": config_of("ViTMAEModel")})
    np.testing.assert_array_equal(found.tensors[name], tensors[name])


# Loading without a class


def test_load_keeps_dtypes_and_finds_the_class(saved, cls):
    folder, tensors = saved(cls, lambda t: {name: array.astype("float16") for name, array in t.items()})
    config, found, report = conversion.load(folder)
    assert report.model == cls and type(config) is MODEL_CLASSES[cls]
    assert {name: array.dtype.name for name, array in found.items()} == dict.fromkeys(tensors, "float16")


def test_load_needs_every_parameter(saved):
    folder, _ = saved("ViTForImageClassification", without("classifier.bias"))
    with pytest.raises(CheckpointError, match=r"as ViTForImageClassification, it lacks classifier\.bias"):
        conversion.load(folder)


def test_an_empty_checkpoint_is_refused(tmp_path, config_of):
    save_folder(tmp_path / "model", files={"config.json": config_of("ViTModel").to_json_string()}, tensors={})
    assert ": no tensors in it." in refusal(tmp_path / "model", "ViTModel")
