"""Every output, hidden state, attention, loss and gradient of every class against the float64 oracle."""

from collections.abc import Callable
from functools import cache

import numpy as np
import oracle
import pytest
import tensorflow as tf
from tf_models import BACKEND

import vit_tf
from conversion.layouts import to_canonical
from vit_core.tensors import to_numpy
from vit_tf import parity

EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
of_case = cache(BACKEND.of_case)  # for tests that change nothing: making a model takes as long as calling it


def scalar(output: dict, case: oracle.Case) -> tf.Tensor:
    """The number that is differentiated."""
    if "loss" in output:
        return output["loss"]
    weights = oracle.projection(case)
    return sum(tf.reduce_sum(output[name] * array.astype(output[name].dtype.name)) for name, array in weights.items())


@pytest.mark.every_day(*(f"float64 {name}" for name in oracle.EVERY_DAY), "float32 square")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", (*oracle.CASES, *oracle.TRAINING_CASES), ids=str)
def test_outputs(case, dtype):
    oracle.check_outputs(case, parity.outputs(of_case(case, dtype), case.inputs), dtype)


@pytest.mark.every_day(*(f"float64 {name}" for name in oracle.EVERY_DAY), "float32 square")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", (*oracle.CASES, *oracle.TRAINING_CASES), ids=str)
def test_gradients(case, dtype):
    _, gradients = parity.gradients(of_case(case, dtype), case.inputs, oracle.projection(case))
    oracle.check_gradients(case, gradients, dtype)


@pytest.mark.every_day("square", "head_mask", "pruned", "larger")
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_kernels_agree(case):
    model, outputs = of_case(case, "float64"), {}
    assert case.config.attn_implementation is None  # and so "sdpa", which this leaves behind
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        outputs[implementation] = oracle.as_numpy(model(**case.inputs))
    for name, eager in outputs["eager"].items():
        scale = np.abs(eager).max()
        np.testing.assert_allclose(outputs["sdpa"][name], eager, rtol=0, atol=1e-12 * scale, err_msg=name)


def operations(graph: tf.Graph) -> set[str]:
    """The types of all operations of a graph and of the functions it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def trained_by(model: vit_tf.vit.TFViTPreTrainedModel) -> dict[str, tf.Variable]:
    """Outside of what is traced: AutoGraph would translate this, too, for each model."""
    return {name: weight.value for name, weight in model.named_weights().items() if weight.trainable}


def split(case: oracle.Case) -> tuple[dict, dict]:
    """The arrays and the flags of a case's inputs."""
    arrays = {name: tf.constant(value) for name, value in case.inputs.items() if isinstance(value, np.ndarray)}
    return arrays, {name: value for name, value in case.inputs.items() if name not in arrays}


def training_step(case: oracle.Case, model: vit_tf.vit.TFViTPreTrainedModel, flags: dict) -> Callable:
    """inputs -> outputs, and gradients by canonical name."""
    trained = trained_by(model)

    def run(inputs):
        with tf.GradientTape() as tape:
            output = model(**inputs, **flags)
            number = scalar(output, case)
        return dict(output), tape.gradient(number, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return run


def of_any_size(case: oracle.Case, arrays: dict, run: Callable) -> Callable:
    """The function as one graph whose sides are not known."""
    specs = {name: tf.TensorSpec([None] * array.shape.rank, array.dtype, name) for name, array in arrays.items()}
    specs["pixel_values"] = tf.TensorSpec([None, case.config.num_channels, None, None], tf.float64)
    function = tf.function(run, input_signature=[specs])
    assert not {op for op in operations(function.get_concrete_function().graph) if "PyFunc" in op}
    return function


@pytest.mark.every_day(
    "ViTModel-no_multiple",
    "ViTModel-same_count",
    "ViTForMaskedImageModeling-larger",
    "ViTMAEModel-larger",
    "ViTForImageClassification-single_label",
    "ViTMAEForPreTraining-tied_noise",
    "ViTMAEForPreTraining-larger",
)
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_graphs_with_sides_that_are_not_known(case):
    model, (arrays, flags) = of_case(case, "float64"), split(case)
    function = of_any_size(case, arrays, lambda inputs: dict(model(**inputs, **flags, **EVERYTHING)))
    oracle.check_outputs(case, oracle.as_numpy(function(arrays)), "float64")


@pytest.mark.every_day("ViTModel-smaller", "ViTForImageClassification-single_label", "ViTMAEForPreTraining-no_multiple")
@pytest.mark.parametrize("case", oracle.CASES[1::3], ids=lambda case: case.name)
def test_gradients_in_graphs_with_sides_that_are_not_known(case):
    model, (arrays, flags) = of_case(case, "float64"), split(case)
    _, gradients = of_any_size(case, arrays, training_step(case, model, flags))(arrays)
    table = model.parameter_table()
    native = {name: to_canonical(to_numpy(each), table[name].kind, "keras") for name, each in gradients.items()}
    oracle.check_gradients(case, native, "float64")


@pytest.mark.every_day(
    "ViTModel-one_side_larger", "ViTForMaskedImageModeling-no_multiple", "ViTMAEForPreTraining-square"
)
@pytest.mark.parametrize("case", oracle.CASES[::4], ids=lambda case: case.name)
def test_xla(case):
    model, (arrays, flags) = of_case(case, "float64"), split(case)
    run = training_step(case, model, flags)
    (compiled, ours), (plain, theirs) = tf.function(run, jit_compile=True)(arrays), run(arrays)
    scale = max(np.abs(gradient).max() for gradient in theirs.values())
    for name, value in plain.items():
        np.testing.assert_allclose(compiled[name], value, rtol=0, atol=1e-10 * np.abs(value).max(), err_msg=name)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-10 * scale, err_msg=name)
