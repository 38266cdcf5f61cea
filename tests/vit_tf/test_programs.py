"""Graphs that are traced once and right at every size: tf.function, XLA, SavedModel, and LiteRT's converter."""

import numpy as np
import pytest
import tensorflow as tf
from programs import FIELDS, NATIVE, REAL, REAL_SIZES, SIZES, check_every_size, make_inputs
from tf_models import make_model

from vit_core.positions import resize_matrix
from vit_tf.layers import traced_matrix

AXES = [(4, 4), (14, 24), (24, 14), (3, 7), (1, 5), (5, 1), (37, 16), (37, 32), (196, 1369), (1369, 196)]
FEW = {what: SIZES[what] for what in ("native", "as many patches, wide", "no multiple")}  # XLA compiles for each


def specs_of(name):
    specs = {"pixel_values": tf.TensorSpec((None, 3, None, None), name="pixel_values")}
    return {**specs, "noise": tf.TensorSpec((None, None), name="noise")} if "MAE" in name else specs


def traced(model, name, **options):
    """The model as a function of images of any size."""

    @tf.function(input_signature=[specs_of(name)], **options)
    def run(inputs):
        return dict(model(**inputs, interpolate_pos_encoding=True))

    return run


def check(model, name, run, sizes):
    def called(inputs):
        outputs = run({key: tf.constant(value) for key, value in inputs.items()})
        return {key: np.asarray(value) for key, value in outputs.items()}

    check_every_size(name.removeprefix("TF"), model.config, model.canonical_tensors(), called, sizes)


@pytest.mark.parametrize(("old", "new"), AXES)
def test_the_matrix_in_tensor_operations_is_that_of_numpy(old, new):
    for dtype, tolerance in (("float64", 2e-13), ("float32", 1e-6)):
        found = traced_matrix(old, tf.constant(new), dtype)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, resize_matrix(old, new), rtol=0, atol=tolerance)
        if old == new:
            np.testing.assert_array_equal(found, np.eye(old))


@pytest.mark.every_day("TFViTModel", "TFViTMAEForPreTraining")
def test_one_graph_is_right_at_every_size(name):
    model = make_model(name, **FIELDS)
    check(model, name, traced(model, name), {**SIZES, "one row": (5, 52), "one column": (53, 4)})


@pytest.mark.every_day("Masked")
@pytest.mark.parametrize("name", ["TFViTForMaskedImageModeling", "TFViTMAEForPreTraining"])
def test_one_graph_that_xla_compiles_is_right_at_every_size(name):
    model = make_model(name, **FIELDS)
    check(model, name, traced(model, name, jit_compile=True), FEW)


def test_one_graph_with_the_table_of_dinov2():
    model = make_model("TFViTModel", **REAL)
    check(model, "TFViTModel", traced(model, "TFViTModel"), REAL_SIZES)


@pytest.mark.every_day("TFViTModel")
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")  # the package after it is another
@pytest.mark.parametrize("name", ["TFViTModel", "TFViTMAEModel"])
def test_one_litert_program_is_right_at_every_size(name):
    model = make_model(name, **FIELDS)
    function = traced(model, name).get_concrete_function()
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()  # weights become constants

    def run(inputs):
        interpreter = tf.lite.Interpreter(model_content=content)
        places = {key: d for d in interpreter.get_input_details() for key in inputs if key in d["name"]}
        for key, value in inputs.items():
            interpreter.resize_tensor_input(places[key]["index"], value.shape)
        interpreter.allocate_tensors()
        for key, value in inputs.items():
            interpreter.set_tensor(places[key]["index"], np.asarray(value))
        interpreter.invoke()
        found = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        return dict(zip(sorted(function.structured_outputs), found, strict=True))

    check(model, name, run, SIZES)


def test_a_graph_without_interpolation_refuses_other_sizes():
    model, shapes = make_model("TFViTModel", **FIELDS), specs_of("TFViTModel")
    run = tf.function(lambda inputs: dict(model(**inputs)), input_signature=[shapes])
    images, turned = (make_inputs("TFViTModel", size, 2) for size in (NATIVE, (15, 16)))
    got, expected = run(images), model(**images)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=key)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=r"not compatible with expected shape"):
        run(turned)


def test_a_ratio_that_rounding_decides_keeps_as_many_as_an_eager_call():
    model = make_model("TFViTMAEModel", **FIELDS, mask_ratio=0.3)
    check(model, "TFViTMAEModel", traced(model, "TFViTMAEModel"), {**SIZES, "ten patches": (15, 8)})
