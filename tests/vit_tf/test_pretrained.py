"""Saving and loading: what only this backend has."""

import itertools
import json
from contextlib import suppress

import keras
import ml_dtypes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from tf_models import make_config, make_model, make_tensors

import conversion
import vit_tf
from vit_core import CheckpointError, ConfigError, InputError
from vit_core.parameters import parameter_table


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


TINY = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 6, "image_size": 4}
TINY |= {"patch_size": 2, "encoder_stride": 2}
_NORM_FIRST = {"use_mean_pooling": True, "norm_before_pooling": True}
POOLINGS = [{}, {"use_mean_pooling": True}, _NORM_FIRST, {**_NORM_FIRST, "pool_class_token": True}]


def configurations(cls, registers, class_token):
    """Every legal one of a class with so many registers and with a class token or none."""
    fields = {**TINY, "num_register_tokens": registers, "use_class_token": class_token}
    for pooling, scale, gated in itertools.product(POOLINGS, (None, 0.5), (False, True)):
        with suppress(ConfigError):
            config = vit_tf.ViTConfig(**fields, **pooling, layerscale_value=scale, use_swiglu_ffn=gated)
            parameter_table(config, cls)
            yield config


@pytest.mark.every_day("ViTModel-False-3-True", "ViTForMaskedImageModeling-True-1-False")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras, saving
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("registers", [0, 1, 3])
@pytest.mark.parametrize(
    ("cls", "mask_token"),
    [
        *(("ViTModel", False), ("ViTModel", True)),
        *(("ViTForImageClassification", False), ("ViTForMaskedImageModeling", True)),
    ],
)
def test_what_keras_saves_is_read_with_every_option(cls, mask_token, registers, class_token, tmp_path):
    options, path = {"use_mask_token": mask_token} if cls == "ViTModel" else {}, tmp_path / "model.weights.h5"
    count = 0
    for config in configurations(cls, registers, class_token):
        tensors = draw_any(config, cls, options)
        getattr(vit_tf, f"TF{cls}").from_tensors(config, tensors, **options).save_weights(path)
        _, found, _ = conversion.load(path, config=config, cls=cls)
        assert found.keys() == tensors.keys(), config
        assert mask_token == any("embeddings.mask_token" in name for name in found)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[name], tensor, err_msg=name)
        count += 1
    assert count >= 4


def draw_any(config, cls, options):
    """Tensors of which no two are alike."""
    table, random = parameter_table(config, cls, **options), np.random.default_rng(3)
    return {name: random.standard_normal(row.shape).astype(np.float32) for name, row in table.items()}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras, saving
def test_registers_that_a_configuration_does_not_have_are_not_taken_for_a_mask_token(tmp_path):
    config = vit_tf.ViTConfig(**TINY, num_register_tokens=3)
    vit_tf.TFViTModel(config).save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(CheckpointError, match=r"1 unexpected: embeddings.register_tokens"):
        vit_tf.TFViTModel.from_pretrained(tmp_path / "model.weights.h5", config=vit_tf.ViTConfig(**TINY))
    with pytest.raises(CheckpointError, match=r"register_tokens \(1, 3, 4\) instead of \(1, 2, 4\)"):
        fields = {**TINY, "num_register_tokens": 2}
        vit_tf.TFViTModel.from_pretrained(tmp_path / "model.weights.h5", config=vit_tf.ViTConfig(**fields))


def test_loaded_models_train_what_the_table_says(name, tmp_path):
    make_model(name).save_pretrained(tmp_path)
    loaded = getattr(vit_tf, name).from_pretrained(tmp_path)
    frozen = {key for key, weight in loaded.named_weights().items() if not weight.trainable}
    assert frozen == {key for key, row in loaded.parameter_table().items() if not row.trainable}


def test_a_device_is_not_chosen_while_loading(tmp_path):
    make_model("TFViTModel").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="device_map"):
        vit_tf.TFViTModel.from_pretrained(tmp_path, device_map="auto")
