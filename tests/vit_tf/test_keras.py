"""The models as Keras models: fit, evaluate, predict, saving, export."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_models import PATCHES, make_inputs, make_model, make_tensors

import vit_tf
from vit_core import InputError

# Keras reads its variables in a way that NumPy 2 deprecates, whenever it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CLASSIFIER = "TFViTForImageClassification"
WITHOUT_POOLER = {"TFViTModel": {"add_pooling_layer": False}}


def bright(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is how bright they are."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, count)
    return (random.standard_normal((count, 3, 12, 20)) / 4 + labels[:, None, None, None]).astype(np.float32), labels


def compiled(name: str, **options) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = make_model(name, options=WITHOUT_POOLER.get(name))
    model.compile(keras.optimizers.AdamW(3e-3), **options)
    return model


IMAGES, CLASSES = bright()
ONE_HOT = np.eye(5, dtype=np.float32)[CLASSES]
MASKS = np.random.default_rng(4).random((24, PATCHES)) < 0.5
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TRAININGS = {
    "own loss, labels as y": (CLASSIFIER, {}, (IMAGES, CLASSES)),
    "own loss, labels in x": (CLASSIFIER, {}, ({"pixel_values": IMAGES, "labels": CLASSES},)),
    "own loss, several classes": (CLASSIFIER, {}, (IMAGES, ONE_HOT)),
    "own loss, by xla": (CLASSIFIER, {"jit_compile": True}, (IMAGES, CLASSES)),
    "the user's loss": (CLASSIFIER, {"loss": CROSS_ENTROPY, "metrics": ["accuracy"]}, (IMAGES, CLASSES)),
    "a loss by name": (CLASSIFIER, {"loss": {"logits": CROSS_ENTROPY}}, (IMAGES, {"logits": CLASSES})),
    "features": ("TFViTModel", {"loss": "mse"}, (IMAGES, np.zeros((24, 1, 1), np.float32))),
    "masks": ("TFViTForMaskedImageModeling", {}, ({"pixel_values": IMAGES, "bool_masked_pos": MASKS},)),
    "bare images": ("TFViTMAEForPreTraining", {}, (IMAGES,)),
}


@pytest.mark.parametrize("training", TRAININGS)
def test_losses_fall(training):
    name, options, data = TRAININGS[training]
    model = compiled(name, **options)
    losses = model.fit(*data, epochs=4, batch_size=8, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert np.isfinite(model.evaluate(*data, batch_size=8, verbose=0)).all()


def test_a_loss_that_cannot_be_computed_is_an_error():
    with pytest.raises(InputError, match="no loss"):
        compiled(CLASSIFIER).fit(IMAGES, verbose=0)
    with pytest.raises(InputError, match="sample_weight"):
        compiled(CLASSIFIER).fit(IMAGES, CLASSES, sample_weight=np.ones(24), verbose=0)


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
    for key, value in model(**inputs).items():
        np.testing.assert_array_equal(loaded(**inputs)[key], value, err_msg=key)


def test_weights_are_saved_and_loaded(name, tmp_path):
    model = make_model(name)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = getattr(vit_tf, name)(model.config)
    fresh.load_weights(tmp_path / "model.weights.h5")
    for key, array in make_tensors(name).items():
        np.testing.assert_array_equal(fresh.canonical_tensors()[key], array, err_msg=key)


def test_training_goes_on_where_it_was_saved(tmp_path):
    model = compiled(CLASSIFIER)
    model.fit(IMAGES, CLASSES, epochs=1, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for trained in (model, loaded):
        trained.fit(IMAGES, CLASSES, epochs=1, batch_size=8, shuffle=False, verbose=0)
    for key, array in model.canonical_tensors().items():
        np.testing.assert_array_equal(loaded.canonical_tensors()[key], array, err_msg=key)


def test_configurations_make_models():
    model = make_model(CLASSIFIER)
    for config in (model.get_config(), model.config):
        again = vit_tf.TFViTForImageClassification.from_config(config)
        assert again.config.to_dict() == model.config.to_dict()


def test_exports_give_the_same_numbers_with_nothing_but_tensorflow(tmp_path):
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    model.export(
        tmp_path / "model",
        input_signature=[tf.TensorSpec((None, 3, 12, 20), tf.float32, "pixel_values")],
        verbose=False,
    )
    np.save(tmp_path / "x.npy", inputs["pixel_values"])
    code = """if True:
        import sys, numpy, tensorflow as tf
        model = tf.saved_model.load(sys.argv[1] + "/model")
        numpy.save(sys.argv[1] + "/y.npy", model.serve(numpy.load(sys.argv[1] + "/x.npy"))["logits"])
    """
    subprocess.run([sys.executable, "-I", "-c", code, tmp_path], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(**inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_of_keras_is_refused(backend):
    code = "import sys, types\nsys.modules['keras'] = keras = types.ModuleType('keras')\n"
    code += f"keras.config = types.SimpleNamespace(backend=lambda: {backend!r})\nimport vit_tf"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "vit_core.errors.BackendError: vit_tf: Keras runs on" in run.stderr
    assert "KERAS_BACKEND=tensorflow" in run.stderr
