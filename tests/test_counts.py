"""What a call costs in numbers that no clock moves: operations, products, copies, bytes, traces, passes over pixels.

A change that makes a model do more, or less, changes a number in EXPECTED: write the new one there and say why in the
commit. The numbers are those of the versions in constraints.txt; other versions may need others, and are not compared.
"""

import sys
import tracemalloc
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from backends import adapters
from PIL import Image

from vit_core import ViTImageProcessor

PINS = dict(
    line.split("==") for line in (Path(__file__).parents[1] / "constraints.txt").read_text().split() if "==" in line
)
FRAMEWORKS = {"torch": ("torch",), "tf": ("tensorflow", "keras"), "flax": ("jax", "flax")}
# Models of two layers: 12 products of weights, patches and head; attention is 4 more where it is no kernel.
COLUMNS = ("products", "attention", "copies", "others", "bytes")
EXPECTED = {
    "torch ViTForImageClassification": (14, 2, 2, 12, 99_816),
    "torch ViTMAEForPreTraining": (62, 3, 6, 100, 253_866),
    "tf ViTForImageClassification": (18, 0, 11, 90, 303_172),
    "tf ViTMAEForPreTraining": (79, 0, 48, 507, 607_346),
    "flax ViTForImageClassification": (18, 0, 12, 106, 347_408),
    "flax ViTMAEForPreTraining": (80, 0, 61, 496, 642_362),
}
TRACES = {"torch": 0, "tf": 1, "flax": 2}  # of calls with batches of 2, 3 and 2
PASSES = {  # of 640 x 480 pixels: by Pillow, and the most memory of NumPy, as a share of the result
    "RGB": (["resize"], 1.53),
    "L": (["resize"], 1.32),
    "RGBA": (["convert", "resize"], 1.50),
    "P": (["convert", "resize"], 1.49),
}


# --- counting --------------------------------------------------------------------------------------------------------


def counted(operations):
    """The numbers, of (name, bytes made) of every operation that computes or copies."""
    names, sizes = zip(*operations, strict=True)
    kinds = Counter(KINDS.get(name, "others") for name in names)
    return {**dict.fromkeys(("products", "attention", "copies", "others"), 0), **kinds, "bytes": sum(sizes)}


KINDS = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "MatMul", "BatchMatMulV2", "Einsum", "dot_general"), "products"),
    **dict.fromkeys(("Conv2D", "convolution", "conv_general_dilated"), "products"),
    **dict.fromkeys(("_scaled_dot_product_flash_attention_for_cpu",), "attention"),
    **dict.fromkeys(
        ("copy_", "clone", "_to_copy", "cat", "ConcatV2", "concatenate", "Transpose", "transpose"), "copies"
    ),
}


def of_torch(run):
    """Of what torch dispatches in a call; a view is no operation."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    found = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
            made = func(*args, **(kwargs or {}))
            tensors = [x for x in tree_leaves(made) if isinstance(x, torch.Tensor)]
            fresh = [x for x in tensors if x.untyped_storage()._cdata not in given]
            if fresh or func._schema.is_mutable:
                found.append((func._schema.name.partition("::")[2], sum(x.untyped_storage().nbytes() for x in fresh)))
            return made

    with Counting():
        run()
    return found


def of_tensorflow(run, *specs):
    """Of the graph as it is traced; constants, variables and what says where values go are no operations."""
    import tensorflow as tf

    quiet = {"Const", "Placeholder", "ReadVariableOp", "Identity", "IdentityN", "NoOp", "Reshape", "Shape"}
    graph = tf.function(run, autograph=False).get_concrete_function(*specs).graph
    return [
        (operation.type, sum(x.dtype.size * (x.shape.num_elements() or 0) for x in operation.outputs))
        for operation in graph.get_operations()
        if operation.type not in quiet
    ]


def of_jax(run, *arguments):
    """Of the program as it is traced, and of the programs inside it."""
    import jax

    def walked(jaxpr):
        for equation in jaxpr.eqns:
            inner = [x for x in jax.tree.leaves(equation.params) if isinstance(x, jax.extend.core.ClosedJaxpr)]
            for program in inner:
                yield from walked(program.jaxpr)
            if not inner and equation.primitive.name not in ("reshape", "squeeze", "broadcast_in_dim"):
                sizes = [x.aval.size * x.aval.dtype.itemsize for x in equation.outvars]
                yield equation.primitive.name, sum(sizes)

    return [*walked(jax.make_jaxpr(run)(*arguments).jaxpr)]


# --- what is counted -------------------------------------------------------------------------------------------------


def torch_operations(backend, name):
    import torch

    model, inputs = backend.make_model(name), backend.make_inputs(name)
    if name == "ViTForImageClassification":
        with torch.no_grad():
            return of_torch(lambda: model.eval()(**inputs))
    return of_torch(lambda: model.train()(**inputs).loss.backward())


def tensorflow_operations(backend, name):
    import tensorflow as tf

    model, inputs = backend.make_model(name), backend.make_inputs(name)
    if name == "ViTForImageClassification":
        return of_tensorflow(lambda images: model(images).logits, tf.constant(inputs["pixel_values"]))

    def step(images, noise):
        with tf.GradientTape() as tape:
            loss = model(images, noise=noise, training=True).loss
        return tape.gradient(loss, model.trainable_variables)

    return of_tensorflow(step, *map(tf.constant, inputs.values()))


def jax_operations(backend, name):
    import jax
    import jax.extend

    model, inputs = backend.make_model(name), backend.make_inputs(name)
    if name == "ViTForImageClassification":
        return of_jax(lambda params: model(**inputs, params=params).logits, model.params)
    return of_jax(jax.grad(lambda params: model(**inputs, params=params, train=True).loss), model.params)


OPERATIONS = {"torch": torch_operations, "tf": tensorflow_operations, "flax": jax_operations}


def need_the_pinned_versions(backend):
    found = {name: version(name).partition("+")[0] for name in FRAMEWORKS[backend.name]}
    if found != {name: PINS[name] for name in found}:
        pytest.skip(f"the numbers are those of constraints.txt, and here is {found}")


@pytest.mark.parametrize("name", ["ViTForImageClassification", "ViTMAEForPreTraining"])
@pytest.mark.parametrize("backend", adapters(), ids=str)
def test_a_forward_pass_and_a_training_step_do_what_they_did(backend, name):
    need_the_pinned_versions(backend)
    found = counted(OPERATIONS[backend.name](backend, name))
    expected = dict(zip(COLUMNS, EXPECTED[f"{backend} {name}"], strict=True))
    np.testing.assert_equal(found, expected)


def arithmetic(backend, layers):
    """Operations of a step of training as XLA compiles it for a CPU, and the bytes that they read and write."""
    import jax

    name = "ViTForImageClassification"
    model, inputs = backend.make_model(name, num_hidden_layers=layers), backend.make_inputs(name)
    step = jax.jit(jax.grad(lambda params: model(**inputs, params=params).logits.sum()))
    found = step.lower(model.params).compile().cost_analysis()
    return [found["flops"], found["bytes accessed"]]


@pytest.mark.parametrize("backend", [x for x in adapters() if x.name == "flax"], ids=str)
def test_each_layer_costs_what_the_last_one_cost(backend):
    """XLA repeats, layer by layer, what it may: then work grows with the square of the depth."""
    two, four, six = (np.array(arithmetic(backend, layers)) for layers in (2, 4, 6))
    np.testing.assert_array_equal(six - four, four - two)


def traces(model):
    """How often a model was traced for its plain calls."""
    if hasattr(model, "_graphs"):
        return sum(function.experimental_get_tracing_count() for function in model._graphs.functions.values())
    return model._compiled_call()._cache_size() if hasattr(model, "_compiled_call") else 0


@pytest.mark.parametrize("backend", adapters(), ids=str)
def test_a_second_call_traces_nothing(backend):
    model = backend.make_model("ViTModel")
    model.compiles_calls = True  # which most tests switch off in TensorFlow
    for batch in (2, 3, 2):
        model(**backend.make_inputs("ViTModel", batch))
    np.testing.assert_equal(traces(model), TRACES[backend.name])


def of_pillow(run):
    """Pillow's operations on whole pictures in a call, in order, and the most bytes that NumPy held for it."""
    found = []

    def watch(frame, event, argument):
        if event == "c_call" and type(getattr(argument, "__self__", None)).__name__ == "ImagingCore":
            found.append(argument.__name__)

    tracemalloc.start()
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_an_image_is_passed_over_as_often_as_it_was(mode):
    image, process = Image.new(mode, (640, 480)), ViTImageProcessor()
    process(image, return_tensors="np", num_threads=1)  # what is made once for all
    runs = [of_pillow(lambda: process(image, return_tensors="np", num_threads=1)) for _ in range(3)]
    found, peak = min(runs, key=lambda run: run[1])  # other threads of the process may take memory meanwhile
    passes, memory = PASSES[mode]
    np.testing.assert_array_equal([name for name in found if name != "pixel_access"], passes)
    np.testing.assert_allclose(peak / (3 * 224 * 224 * 4), memory, atol=0.05)
