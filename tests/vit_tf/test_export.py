"""Models that are written for serving, and run where there is nothing of ours."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tf_models import make_config, make_inputs, make_model

import vit_tf

CLASSIFIER = "TFViTForImageClassification"
PROCESSOR = vit_tf.ViTImageProcessor(size=(12, 20), image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])
IMAGES = np.random.default_rng(5).integers(0, 256, (3, 12, 20, 3), np.uint8)
IN_A_CHILD = """if True:
    import sys
    for name in ("keras", "vit_tf", "vit_core", "conversion", "vitriad"):
        sys.modules[name] = None  # not to be imported
    import numpy, tensorflow as tf
    folder = sys.argv[1]
    for name in ("pixel_values", "images"):
        model = tf.saved_model.load(f"{folder}/{name}")
        serve = model.signatures["serving_default"]
        inputs = {name: tf.constant(numpy.load(f"{folder}/{name}.npy"))}
        numpy.save(f"{folder}/{name}-logits.npy", serve(**inputs)["logits"])
"""


@pytest.mark.long
def test_the_same_numbers_come_with_nothing_but_tensorflow(tmp_path):
    model = make_model(CLASSIFIER, num_hidden_layers=1)
    pixel_values = PROCESSOR(list(IMAGES), return_tensors="np").pixel_values
    model.export(tmp_path / "pixel_values", verbose=False)
    model.export(tmp_path / "images", verbose=False, image_processor=PROCESSOR)
    np.save(tmp_path / "pixel_values.npy", pixel_values)
    np.save(tmp_path / "images.npy", IMAGES)
    subprocess.run([sys.executable, "-I", "-c", IN_A_CHILD, tmp_path], check=True, capture_output=True, text=True)
    expected = model(pixel_values).logits
    for name in ("pixel_values", "images"):
        got = np.load(tmp_path / f"{name}-logits.npy")
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.every_day("TFViTForMaskedImageModeling-mixed_bfloat16", "TFViTMAEModel-float64")
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16"])
def test_fresh_models_are_written_for_any_number_of_images(name, dtype, tmp_path):
    model = getattr(vit_tf, name)(make_config(name, num_hidden_layers=1), dtype=dtype)
    model.export(tmp_path, verbose=False)
    served, images = tf.saved_model.load(tmp_path), make_inputs(name)["pixel_values"]
    model.compiles_calls = False
    expected = model(images)
    for batch in (1, 2):
        got = served.serve(images[:batch].astype(model.variable_dtype))
        assert sorted(got) == sorted(expected)
        for key, value in got.items():
            assert value.shape == ((batch, *expected[key].shape[1:]) if expected[key].shape.rank else ())
            if "MAE" not in name:  # that draws noise
                limit = 0.02 if dtype == "mixed_bfloat16" else 1e-5
                whole = np.asarray(expected[key], np.float64)
                np.testing.assert_allclose(
                    np.asarray(value, np.float64), whole[:batch], rtol=0, atol=limit * np.abs(whole).max()
                )


@pytest.mark.long
def test_each_call_of_a_written_mae_draws_noise(tmp_path):
    make_model("TFViTMAEModel", num_hidden_layers=1).export(tmp_path, verbose=False)
    served, images = tf.saved_model.load(tmp_path), np.zeros((2, 3, 12, 20), np.float32)
    assert np.any(served.serve(images)["mask"] != served.serve(images)["mask"])


@pytest.mark.long
def test_other_inputs_have_a_signature(tmp_path):
    model, inputs = make_model("TFViTMAEForPreTraining", num_hidden_layers=1), make_inputs("TFViTMAEForPreTraining")
    specs = {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype, name) for name, value in inputs.items()}
    model.export(tmp_path / "model", input_signature=[specs], verbose=False)
    served = tf.saved_model.load(tmp_path / "model")  # which its functions do not keep alive
    got = served.serve(inputs)
    for key, value in model(**inputs).items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-5 * np.abs(value).max())


@pytest.mark.long
def test_tuples_are_written_tensor_by_tensor(tmp_path):
    model = make_model("TFViTModel", output_hidden_states=True, return_dict=False)
    model.export(tmp_path, verbose=False)
    served, images = tf.saved_model.load(tmp_path), make_inputs("TFViTModel")["pixel_values"]
    got = served.signatures["serving_default"](pixel_values=tf.constant(images))
    places = [f"hidden_states_{i}" for i in range(3)]
    assert sorted(got) == [*places, "last_hidden_state", "pooler_output"]
    for name, expected in zip(places, model(images, return_dict=True).hidden_states, strict=True):
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.every_day("steps0")
@pytest.mark.parametrize("steps", [{}, {"do_rescale": False}, {"do_normalize": False}])
def test_preprocessing_has_the_bits_of_the_processor(steps, tmp_path):
    processor = vit_tf.ViTImageProcessor(do_resize=False, image_mean=[0.1, 0.2, 0.3], **steps)
    model = make_model("TFViTForMaskedImageModeling", num_hidden_layers=1, output_hidden_states=True)
    pixel_values = processor(list(IMAGES), return_tensors="np").pixel_values.astype(np.float32)
    for name, options in (("pixel_values", {}), ("images", {"image_processor": processor})):
        model.export(tmp_path / name, verbose=False, **options)
    normalised, raw = (tf.saved_model.load(tmp_path / name) for name in ("pixel_values", "images"))
    for key, expected in normalised.serve(pixel_values).items():
        np.testing.assert_array_equal(raw.serve(IMAGES)[key], expected, err_msg=key)
