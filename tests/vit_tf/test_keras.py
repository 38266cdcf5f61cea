"""The models as Keras models: predict, and what keras.saving does."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from tf_models import make_inputs, make_model, make_tensors

import vit_tf
from vit_core import ConfigError, InputError

# Keras reads its variables in a way that NumPy 2 deprecates, whenever it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CLASSIFIER = "TFViTForImageClassification"
WITHOUT_POOLER = {"TFViTModel": {"add_pooling_layer": False}}


@pytest.mark.every_day("TFViTForImageClassification", "TFViTMAEForPreTraining")
def test_predictions_are_those_of_calls(name):
    model, inputs = make_model(name), make_inputs(name, batch=5)
    expected = model(**inputs)
    got = model.predict(inputs, batch_size=2, verbose=0)
    assert list(got) == [key for key in expected if key != "loss"]
    for key, value in got.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-5 * np.abs(expected[key]).max())


def test_whole_models_are_saved_and_loaded(name, tmp_path):
    model, inputs = make_model(name, options=WITHOUT_POOLER.get(name)), make_inputs(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.get_config() == model.get_config()
    loaded.compiles_calls = False
    again = loaded(**inputs)
    for key, value in model(**inputs).items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)


@pytest.mark.every_day("TFViTModel", "TFViTMAEForPreTraining")
def test_weights_are_saved_and_loaded(name, tmp_path):
    model = make_model(name)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = getattr(vit_tf, name)(model.config)
    fresh.load_weights(tmp_path / "model.weights.h5")
    for key, array in make_tensors(name).items():
        np.testing.assert_array_equal(fresh.canonical_tensors()[key], array, err_msg=key)


def test_configurations_make_models():
    model = make_model(CLASSIFIER)
    for config in (model.get_config(), model.config):
        again = vit_tf.TFViTForImageClassification.from_config(config)
        assert again.config.to_dict() == model.config.to_dict()
    with pytest.raises(InputError, match=r"from_config: expected a ViTConfig or what get_config\(\) gave, got {'image"):
        vit_tf.TFViTForImageClassification.from_config({"image_size": 8})


def test_what_keras_could_not_read_is_not_written(tmp_path):
    model = make_model("TFViTModel", hidden_act=lambda x: 2 * x)
    with pytest.raises(ConfigError, match="callable"):
        model.save(tmp_path / "model.keras")
    assert not any(tmp_path.iterdir())


def test_files_of_another_model_are_errors(tmp_path):
    make_model("TFViTModel").save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="could not be loaded"):
        make_model(CLASSIFIER).load_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="could not be loaded"):
        make_model("TFViTModel", hidden_size=12).load_weights(tmp_path / "model.weights.h5")
    (tmp_path / "model.keras").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"not a zip|valid|found"):
        keras.saving.load_model(tmp_path / "model.keras")


@pytest.mark.every_day("jax")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_of_keras_is_refused(backend):
    code = "import sys, types\nsys.modules['keras'] = keras = types.ModuleType('keras')\n"
    code += f"keras.config = types.SimpleNamespace(backend=lambda: {backend!r})\nimport vit_tf"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "vit_core.errors.BackendError: vit_tf: Keras runs on" in run.stderr
    assert "KERAS_BACKEND=tensorflow" in run.stderr
