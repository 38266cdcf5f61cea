"""Saving and loading: what only this backend has."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen
from flax_models import make_config, make_inputs, make_model, make_tensors
from sameness import check_tensors

import vit_flax
from vit_core import CheckpointError, InputError


def test_nothing_is_initialised_and_nothing_is_called_while_loading(name, tmp_path, monkeypatch):
    make_model(name).save_pretrained(tmp_path)

    def forbidden(*args, **kwargs):
        raise AssertionError("a weight was initialised, or the model called")

    monkeypatch.setattr(linen.Module, "apply", forbidden)
    monkeypatch.setattr(linen.Module, "init", forbidden)
    for word in ("normal", "uniform", "truncated_normal", "bits", "split"):
        monkeypatch.setattr(jax.random, word, forbidden)
    getattr(vit_flax, name).from_pretrained(tmp_path)
    with pytest.raises(AssertionError):
        getattr(vit_flax, name)(make_config(name))


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


@pytest.mark.every_day("FlaxViTModel", "FlaxViTMAEForPreTraining")
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
    again = getattr(vit_flax, name).from_pretrained(tmp_path / "again")
    check_tensors(again.canonical_tensors(), model.canonical_tensors())
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


@pytest.mark.every_day("FlaxViTForImageClassification", "FlaxViTMAEModel")
def test_missing_parameters_are_made_and_the_others_kept(name):
    model = make_model(name)
    part = {key: value for key, value in model.params.items() if key in ("embeddings", "vit")}
    filled = model.init_weights(jax.random.key(1), params=part)
    assert jax.tree.structure(filled) == jax.tree.structure(dict(model.params))
    for key, value in part.items():
        for one, other in zip(jax.tree.leaves(filled[key]), jax.tree.leaves(value), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_device_is_not_chosen_while_loading(tmp_path):
    make_model("FlaxViTModel").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="device_map"):
        vit_flax.FlaxViTModel.from_pretrained(tmp_path, device_map="auto")
