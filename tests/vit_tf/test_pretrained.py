"""Saving and loading: what only this backend has."""

import json

import keras
import ml_dtypes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from tf_models import make_config, make_model, make_tensors

import conversion
import vit_tf
from vit_core import CheckpointError, InputError


def test_nothing_is_initialised_and_nothing_is_called_while_loading(name, tmp_path, monkeypatch):
    make_model(name).save_pretrained(tmp_path)

    def forbidden(*args, **kwargs):
        raise AssertionError("a weight was initialised, or the model called")

    monkeypatch.setattr(getattr(vit_tf, name), "call", forbidden)
    monkeypatch.setattr(vit_tf.weights, "fresh", forbidden)
    for word in ("normal", "uniform", "truncated_normal", "randint"):
        monkeypatch.setattr(keras.random, word, forbidden)
    for initializer in vars(keras.initializers).values():
        if isinstance(initializer, type):
            monkeypatch.setattr(initializer, "__call__", forbidden)
    with pytest.raises(AssertionError):
        keras.layers.Dense(3).build((None, 3))
    getattr(vit_tf, name).from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, "float32"),
        ({"dtype": "auto"}, "bfloat16"),
        ({"torch_dtype": tf.float16}, "float16"),
        ({"dtype": "float64"}, "float64"),
        ({"dtype": "mixed_bfloat16"}, "float32"),
    ],
)
def test_dtypes(keywords, expected, tmp_path):
    tensors = make_tensors("TFViTModel", ml_dtypes.bfloat16)
    vit_tf.TFViTModel.from_tensors(make_config("TFViTModel"), tensors).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = vit_tf.TFViTModel.from_pretrained(tmp_path, **keywords)
    assert {weight.dtype for weight in loaded.weights} == {expected}
    assert loaded.compute_dtype == ("bfloat16" if keywords.get("dtype") == "mixed_bfloat16" else expected)
    for key, value in loaded.canonical_tensors().items():
        np.testing.assert_array_equal(value, tensors[key].astype(value.dtype), err_msg=key)


def test_the_global_policy_holds_where_no_dtype_is_asked_for(tmp_path):
    make_model("TFViTModel").save_pretrained(tmp_path)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loaded = vit_tf.TFViTModel.from_pretrained(tmp_path)
        exact = vit_tf.TFViTModel.from_pretrained(tmp_path, dtype="float32")
    finally:
        keras.config.set_dtype_policy("float32")
    assert loaded.dtype_policy.name == loaded.embeddings.dtype_policy.name == "mixed_bfloat16"
    assert exact.dtype_policy.name == exact.embeddings.dtype_policy.name == "float32"


def test_weights_of_a_subclass_are_in_no_checkpoint(tmp_path):
    class Wider(vit_tf.TFViTForImageClassification):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.adapter = keras.layers.Dense(3, name="adapter")
            self.adapter.build((None, 3))

    make_model("TFViTForImageClassification").save_pretrained(tmp_path)
    model = Wider.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="adapter"):
        model.save_pretrained(tmp_path)


def test_names_do_not_depend_on_the_name_of_the_model_or_the_scope_around_it(name):
    tensors = make_tensors(name)
    with tf.name_scope("around"), keras.name_scope("it"):
        model = getattr(vit_tf, name).from_tensors(make_config(name), tensors, name="vit")
    for key, array in model.canonical_tensors().items():
        np.testing.assert_array_equal(array, tensors[key], err_msg=key)


@pytest.mark.every_day("ViTFor .keras", "MAE .weights.h5", "ViTModel-plain")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras, saving
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("case", oracle.CASES[::5], ids=lambda case: case.name)
def test_what_keras_saves_is_read_without_keras(case, suffix, tmp_path):
    tensors = {name: array.astype("float32") for name, array in oracle.random_tensors(case).items()}
    model = getattr(vit_tf, f"TF{case.cls}").from_tensors(case.config, tensors, **case.options)
    path = tmp_path / f"model{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    config, found, report = conversion.load(path, config=case.config, cls=case.cls, **case.options)
    assert report.dialect == "vitriad_tf" and config.hidden_size == case.config.hidden_size
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in tensors.items()}


def test_loaded_models_train_what_the_table_says(name, tmp_path):
    make_model(name).save_pretrained(tmp_path)
    loaded = getattr(vit_tf, name).from_pretrained(tmp_path)
    frozen = {key for key, weight in loaded.named_weights().items() if not weight.trainable}
    assert frozen == {key for key, row in loaded.parameter_table().items() if not row.trainable}


def test_a_device_is_not_chosen_while_loading(tmp_path):
    make_model("TFViTModel").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="device_map"):
        vit_tf.TFViTModel.from_pretrained(tmp_path, device_map="auto")
