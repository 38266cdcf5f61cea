"""Saving and loading: round trips, reports, dtypes, and what the documentation's own lines do."""

import json
import logging

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen
from flax_models import FIELDS, make_config, make_inputs, make_model, make_tensors
from safetensors.numpy import load_file

import vit_flax
from vit_core import CheckpointError, ConfigError, InputError, MissingFileError
from vit_core.positions import resize_table


def check_weights(model, other) -> None:
    ours, theirs = model.canonical_tensors(), other.canonical_tensors()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.mark.parametrize("shard", ["5GB", 4000])
def test_round_trip(name, shard, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "5GB")
    loaded, info = getattr(vit_flax, name).from_pretrained(tmp_path, output_loading_info=True)
    check_weights(loaded, model)
    assert {key: value for key, value in info.items() if value} == {}
    assert loaded.config.architectures == [name.removeprefix("Flax")]
    assert loaded.config.dtype == "float32"


def test_files_have_the_canonical_names_and_layouts(name, tmp_path):
    tensors = make_tensors(name)
    make_model(name).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(stored) == set(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(stored[key], value, err_msg=key)


def test_nothing_is_initialised_and_nothing_is_called_while_loading(name, tmp_path, monkeypatch):
    make_model(name).save_pretrained(tmp_path)

    def forbidden(*args, **kwargs):
        raise AssertionError("a weight was initialised, or the model called")

    monkeypatch.setattr(linen.Module, "apply", forbidden)
    monkeypatch.setattr(linen.Module, "init", forbidden)
    for word in ("normal", "uniform", "truncated_normal", "bits"):
        monkeypatch.setattr(jax.random, word, forbidden)
    getattr(vit_flax, name).from_pretrained(tmp_path)
    with pytest.raises(AssertionError):
        getattr(vit_flax, name)(make_config(name))


def test_training_leaves_the_file_and_the_tensors_of_a_model_alone(tmp_path):
    tensors = make_tensors("FlaxViTModel")
    tensors["layernorm.bias"].flags.writeable = False
    before = {key: value.copy() for key, value in tensors.items()}
    model = vit_flax.FlaxViTModel.from_tensors(make_config("FlaxViTModel"), tensors)
    model.save_pretrained(tmp_path)
    stored = (tmp_path / "model.safetensors").read_bytes()
    for trained in (model, vit_flax.FlaxViTModel.from_pretrained(tmp_path)):
        step = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 1, params), donate_argnums=0)
        trained.params = step(trained.params)
    assert (tmp_path / "model.safetensors").read_bytes() == stored
    for key, value in before.items():
        np.testing.assert_array_equal(tensors[key], value, err_msg=key)


@pytest.mark.parametrize(
    ("keywords", "computed", "expected"),
    [
        ({}, "float32", "float32"),
        ({"dtype": "auto"}, "bfloat16", "bfloat16"),
        ({"torch_dtype": jnp.float16}, "float16", "float32"),
        ({"dtype": jnp.bfloat16}, "bfloat16", "float32"),
        ({"dtype": "float64"}, "float64", "float64"),
    ],
)
def test_dtypes(keywords, computed, expected, tmp_path):
    tensors = make_tensors("FlaxViTModel", ml_dtypes.bfloat16)
    vit_flax.FlaxViTModel.from_tensors(make_config("FlaxViTModel"), tensors).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    with jax.enable_x64(computed == "float64"):
        loaded = vit_flax.FlaxViTModel.from_pretrained(tmp_path, **keywords)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(loaded.params)} == {expected}
    assert loaded.dtype == computed
    for key, value in loaded.canonical_tensors().items():
        np.testing.assert_array_equal(value, tensors[key].astype(value.dtype), err_msg=key)


def test_float64_is_refused_where_jax_would_round_it_silently(tmp_path):
    make_model("FlaxViTModel").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="enable_x64"):
        vit_flax.FlaxViTModel.from_pretrained(tmp_path, dtype="float64")


# file of this class -> loaded as that class: what is missing and what is left over, as prefixes
HAND_OVERS = [
    ("FlaxViTForImageClassification", "FlaxViTModel", {"pooler.dense"}, {"classifier"}),
    ("FlaxViTModel", "FlaxViTForImageClassification", {"classifier"}, {"pooler.dense"}),
    (
        "FlaxViTForMaskedImageModeling",
        "FlaxViTForImageClassification",
        {"classifier"},
        {"decoder.0", "vit.embeddings.mask_token"},
    ),
    (
        "FlaxViTForImageClassification",
        "FlaxViTForMaskedImageModeling",
        {"decoder.0", "vit.embeddings.mask_token"},
        {"classifier"},
    ),
    ("FlaxViTMAEForPreTraining", "FlaxViTForImageClassification", {"classifier"}, {"decoder"}),
    ("FlaxViTMAEForPreTraining", "FlaxViTMAEModel", set(), {"decoder"}),
    ("FlaxViTModel", "FlaxViTMAEModel", set(), {"pooler.dense"}),
    ("FlaxViTMAEModel", "FlaxViTMAEForPreTraining", {"decoder"}, set()),
]


@pytest.mark.parametrize(("source", "target", "missing", "unexpected"), HAND_OVERS)
def test_hand_overs_between_classes(source, target, missing, unexpected, tmp_path):
    model = make_model(source)
    model.save_pretrained(tmp_path)
    loaded, info = getattr(vit_flax, target).from_pretrained(
        tmp_path, output_loading_info=True, **{k: v for k, v in FIELDS[target].items() if k.startswith("decoder")}
    )
    for found, prefixes in ((info["missing_keys"], missing), (info["unexpected_keys"], unexpected)):
        assert {key for key in found if not key.startswith(tuple(prefixes))} == set()
        assert {prefix for prefix in prefixes if not any(key.startswith(prefix) for key in found)} == set()
    ours, theirs = loaded.base_model.canonical_tensors(), model.base_model.canonical_tensors()
    for key in [key for key in theirs if not key.startswith("pooler") and "mask_token" not in key]:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    assert all(np.isfinite(array).all() for array in loaded.canonical_tensors().values())
    assert np.isfinite(loaded(**make_inputs(target))[0]).all()


def test_missing_parts_are_reported_once_by_name(tmp_path, caplog):
    make_model("FlaxViTMAEForPreTraining").save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="vitriad"):
        vit_flax.FlaxViTForImageClassification.from_pretrained(tmp_path, num_labels=4)
    assert caplog.text.count("classifier.weight") == 1
    assert caplog.text.count("decoder.decoder_embed.weight") == 1


def test_another_number_of_labels(tmp_path):
    make_model("FlaxViTForImageClassification").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight") as caught:
        vit_flax.FlaxViTForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert "ignore_mismatched_sizes" in str(caught.value)
    model, info = vit_flax.FlaxViTForImageClassification.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.params["classifier"]["kernel"].shape == (24, 7)
    assert sorted(info["mismatched_keys"]) == ["classifier.bias", "classifier.weight"]


def test_another_image_size_resizes_the_positions(tmp_path):
    model = make_model("FlaxViTForImageClassification")
    model.save_pretrained(tmp_path)
    loaded = vit_flax.FlaxViTForImageClassification.from_pretrained(tmp_path, image_size=(24, 28))
    key = "vit.embeddings.position_embeddings"
    expected = resize_table(model.canonical_tensors()[key], (3, 5), (6, 7))
    np.testing.assert_array_equal(loaded.canonical_tensors()[key], expected)


def test_pruned_models_stay_pruned(name, tmp_path):
    model = make_model(name)
    model.prune_heads({0: [0, 2], 1: [1]})
    model.save_pretrained(tmp_path)
    loaded = getattr(vit_flax, name).from_pretrained(tmp_path)
    check_weights(loaded, model)
    assert loaded.config.pruned_heads == {0: [0, 2], 1: [1]}
    for one, other in zip(loaded(**make_inputs(name)).to_tuple(), model(**make_inputs(name)).to_tuple(), strict=True):
        np.testing.assert_array_equal(one, other)


# The documentation's own calls: class, class of the published file, keywords.
DOCUMENTED = [
    ("FlaxViTModel", "FlaxViTModel", {}),
    ("FlaxViTForImageClassification", "FlaxViTForImageClassification", {}),
    ("FlaxViTMAEModel", "FlaxViTMAEForPreTraining", {}),
    ("FlaxViTMAEForPreTraining", "FlaxViTMAEForPreTraining", {}),
    ("FlaxViTMAEModel", "FlaxViTMAEForPreTraining", {"attn_implementation": "sdpa", "from_pt": True}),
]


@pytest.mark.parametrize(("cls", "stored", "keywords"), DOCUMENTED)
def test_documented_calls(cls, stored, keywords, tmp_path):
    make_model(stored, image_size=32, patch_size=16).save_pretrained(tmp_path)
    vit_flax.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    image_processor = vit_flax.AutoImageProcessor.from_pretrained(tmp_path)
    model = getattr(vit_flax, cls).from_pretrained(tmp_path, **keywords)
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    inputs = image_processor(images=image, return_tensors="jax")
    assert all(np.isfinite(value).all() for value in model(**inputs).to_tuple())


@pytest.mark.parametrize(
    ("keywords", "needle"),
    [
        ({"device_map": "auto"}, "device_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"use_safetensors": False}, "use_safetensors"),
        ({"hiden_size": 3}, "hidden_size"),
    ],
)
def test_keywords_that_mean_nothing_here_are_refused(keywords, needle, tmp_path):
    make_model("FlaxViTModel").save_pretrained(tmp_path)
    with pytest.raises((InputError, CheckpointError, ConfigError), match=needle) as caught:
        vit_flax.FlaxViTModel.from_pretrained(tmp_path, **keywords)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("keywords", [{"from_pt": True}, {"use_safetensors": True}, {"trust_remote_code": False}])
def test_keywords_that_hold_are_accepted(keywords, tmp_path):
    make_model("FlaxViTModel").save_pretrained(tmp_path)
    vit_flax.FlaxViTModel.from_pretrained(tmp_path, **keywords)


def test_missing_folders_and_callable_activations(tmp_path):
    with pytest.raises(MissingFileError):
        vit_flax.FlaxViTModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(MissingFileError):
        vit_flax.FlaxViTModel.from_pretrained(tmp_path)
    model = make_model("FlaxViTModel", hidden_act=jax.nn.relu)
    with pytest.raises(ConfigError, match="callable"):
        model.save_pretrained(tmp_path / "callable")
    assert not (tmp_path / "callable").exists()


def test_from_tensors_wants_exactly_the_parameters():
    tensors = make_tensors("FlaxViTModel")
    tensors["extra"] = tensors.pop("layernorm.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.bias; 1 unknown: extra"):
        vit_flax.FlaxViTModel.from_tensors(make_config("FlaxViTModel"), tensors)


def test_tensors_of_jax_are_taken_as_arrays_are():
    arrays = make_tensors("FlaxViTForMaskedImageModeling")
    config = make_config("FlaxViTForMaskedImageModeling")
    tensors = {key: jnp.asarray(array) for key, array in arrays.items()}
    model = vit_flax.FlaxViTForMaskedImageModeling.from_tensors(config, tensors)
    for key, array in model.canonical_tensors().items():
        np.testing.assert_array_equal(array, arrays[key], err_msg=key)


def test_subclasses_save_and_load_as_their_class(tmp_path):
    class Mine(vit_flax.FlaxViTForImageClassification):
        pass

    model = Mine(make_config("FlaxViTForImageClassification"))
    model.save_pretrained(tmp_path)
    loaded = Mine.from_pretrained(tmp_path)
    assert type(loaded) is Mine
    assert loaded.config.architectures == ["ViTForImageClassification"]
    check_weights(loaded, model)


def test_models_without_parameters(name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    bare, params = getattr(vit_flax, name).from_pretrained(tmp_path, _do_init=False)
    inputs = make_inputs(name)
    with pytest.raises(InputError, match="_do_init=False"):
        bare(**inputs)
    for one, other in zip(bare(**inputs, params=params).to_tuple(), model(**inputs).to_tuple(), strict=True):
        np.testing.assert_array_equal(one, other)
    bare.save_pretrained(tmp_path / "again", params=params)
    check_weights(getattr(vit_flax, name).from_pretrained(tmp_path / "again"), model)
    with pytest.raises(CheckpointError, match="lack"):
        bare.save_pretrained(
            tmp_path / "part",
            params={key: value for key, value in params.items() if key != "vit"} if "vit" in params else {},
        )
    assert bare.params_shape_tree == jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def test_parameters_that_do_not_fit_are_refused():
    model = make_model("FlaxViTModel")
    pooler = {"dense": {"kernel": np.zeros((2, 2)), "other": np.zeros(2)}}
    with pytest.raises(InputError, match=r"3 do not fit: .*pooler\.dense"):
        model.params = {**model.params, "pooler": pooler}


def test_missing_parameters_are_made_and_the_others_kept(name):
    model = make_model(name)
    part = {key: value for key, value in model.params.items() if key in ("embeddings", "vit")}
    filled = model.init_weights(jax.random.key(1), params=part)
    assert jax.tree.structure(filled) == jax.tree.structure(dict(model.params))
    for key, value in part.items():
        for one, other in zip(jax.tree.leaves(filled[key]), jax.tree.leaves(value), strict=True):
            np.testing.assert_array_equal(one, other)
