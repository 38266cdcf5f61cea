"""Programs that are traced once and right at every size: torch.export, ONNX, and OpenVINO's own tracing."""

import io
import sys
import warnings
from importlib import import_module

import numpy as np
import onnxruntime
import pytest
import torch
from programs import FIELDS, NATIVE, OTHER, REAL, REAL_SIZES, SIZES, check_every_size, make_inputs
from torch._dynamo.testing import CompileCounter
from torch_models import make_model

from vit_core.errors import InputError
from vit_core.positions import resize_matrix
from vit_torch.layers import stable_order, traced_matrix

ANY = torch.export.Dim.DYNAMIC
FLAG = {"interpolate_pos_encoding": True}
AXES = [(4, 4), (14, 24), (24, 14), (3, 7), (1, 5), (5, 1), (37, 16), (37, 32), (196, 1369), (1369, 196)]


class Resizing(torch.nn.Module):
    """A model whose images may have any size, with tensors for outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, noise=None):
        arguments = {} if noise is None else {"noise": noise}
        return self.model(pixel_values, **arguments, **FLAG, return_dict=False)


def tensors_of(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def example(name, size, patch=FIELDS["patch_size"]):
    return {key: torch.from_numpy(value) for key, value in make_inputs(name, size, 2, patch).items()}


def any_size(inputs):
    """Dynamic sides: everything but the channels."""
    return {key: {i: ANY for i in range(value.ndim) if value.ndim == 2 or i != 1} for key, value in inputs.items()}


def export(model, name, size, **options):
    inputs = example(name, size)
    shapes = {**any_size(inputs), "interpolate_pos_encoding": None}
    return torch.export.export(model, (), kwargs={**inputs, **FLAG}, dynamic_shapes=shapes, **options)


def to_onnx(model, name, size, inputs=None):
    """A function from inputs by name to outputs by name, run by onnxruntime."""
    inputs = inputs or example(name, size, model.config.patch_size)
    shapes = {**any_size(inputs), "interpolate_pos_encoding": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch.onnx says of its own parts differs by version
        program = torch.onnx.export(
            model, (), kwargs={**inputs, **FLAG}, dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    names = list(model(**inputs, **FLAG))
    return lambda arrays: dict(zip(names, session.run(None, arrays), strict=True))


# The parts


@pytest.mark.parametrize(("old", "new"), AXES)
def test_the_matrix_in_tensor_operations_is_that_of_numpy(old, new):
    for dtype, tolerance in ((torch.float64, 2e-13), (torch.float32, 1e-6)):
        found = traced_matrix(old, new, torch.zeros((), dtype=dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, resize_matrix(old, new), rtol=0, atol=tolerance)
        if old == new:
            np.testing.assert_array_equal(found, np.eye(old))


def test_the_order_of_a_traced_program_is_the_stable_one():
    noise = torch.randint(-2, 3, (3, 200), generator=torch.Generator().manual_seed(1)).float()
    noise[0, ::3] *= -1.0  # zeros of either sign are equal
    traced = torch.export.export(Ordered(), (noise,), dynamic_shapes={"noise": {1: ANY}}).module()
    for got, expected in zip(traced(noise), stable_order(noise), strict=True):
        np.testing.assert_array_equal(got, expected)


class Ordered(torch.nn.Module):
    def forward(self, noise):
        return stable_order(noise)


# torch.export


@pytest.mark.every_day("ViTModel-native", "ViTMAEForPreTraining-native")
@pytest.mark.parametrize("size", [NATIVE, OTHER], ids=["native", "other"])
def test_one_export_is_right_at_every_size(name, size):
    model = make_model(name, **FIELDS)
    program = export(model, name, size).module()

    def run(inputs):
        output = program(**{key: torch.from_numpy(value) for key, value in inputs.items()}, **FLAG)
        return {key: value.detach().numpy() for key, value in output.items()}

    check_every_size(name, model.config, tensors_of(model), run, SIZES)


@pytest.mark.long
def test_one_strict_export_is_right_at_every_size():
    model = make_model("ViTModel", **FIELDS)
    program = export(model, "ViTModel", NATIVE, strict=True).module()

    def run(inputs):
        output = program(pixel_values=torch.from_numpy(inputs["pixel_values"]), **FLAG)
        return {key: value.detach().numpy() for key, value in output.items()}

    check_every_size("ViTModel", model.config, tensors_of(model), run, SIZES)


def test_one_compiled_program_serves_every_size():
    model = make_model("ViTModel", **FIELDS).requires_grad_(False)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)

    def run(inputs):
        images = torch.from_numpy(np.repeat(inputs["pixel_values"], 2, axis=0))  # a lone image has its own program
        return {key: value[::2].numpy() for key, value in compiled(images, **FLAG).items()}

    check_every_size("ViTModel", model.config, tensors_of(model), run, SIZES)
    assert counter.frame_count == 1


# ONNX


@pytest.mark.every_day("ViTModel")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ViTModel", NATIVE),
        ("ViTForImageClassification", OTHER),
        ("ViTForMaskedImageModeling", NATIVE),
        ("ViTMAEModel", OTHER),
        ("ViTMAEForPreTraining", NATIVE),
    ],
)
def test_one_onnx_program_is_right_at_every_size(name, size):
    model = make_model(name, **FIELDS).requires_grad_(False)
    sizes = {**SIZES, "one row": (5, 40), "one column": (29, 4)}
    check_every_size(name, model.config, tensors_of(model), to_onnx(model, name, size), sizes)


@pytest.mark.long
@pytest.mark.parametrize("size", [(518, 518), (224, 224)], ids=["native", "other"])
def test_one_onnx_program_with_the_table_of_dinov2(size):
    model = make_model("ViTModel", **REAL).requires_grad_(False)
    check_every_size("ViTModel", model.config, tensors_of(model), to_onnx(model, "ViTModel", size), REAL_SIZES)


@pytest.mark.long
def test_masks_are_inputs_of_an_onnx_program():
    model = make_model("ViTForMaskedImageModeling", num_hidden_layers=1).requires_grad_(False)
    random = np.random.default_rng(5)

    def inputs_at(height, width):
        masks = random.random((2, (height // 4) * (width // 4))) < 0.4
        return {"pixel_values": random.standard_normal((2, 3, height, width), np.float32), "bool_masked_pos": masks}

    traced = {key: torch.from_numpy(value) for key, value in inputs_at(12, 20).items()}
    run = to_onnx(model, "ViTForMaskedImageModeling", None, traced)
    for height, width in ((12, 20), (20, 12), (17, 35), (8, 12)):
        inputs = inputs_at(height, width)
        expected = model(**{key: torch.from_numpy(value) for key, value in inputs.items()}, **FLAG)
        for key, value in run(inputs).items():
            np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-5 * expected[key].abs().max(), err_msg=key)


# OpenVINO's own tracing, which is torch.jit.trace


@pytest.fixture
def openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # it reports every conversion to its makers
    return import_module("openvino")


def converted(openvino, module, inputs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.trace.* is deprecated", category=DeprecationWarning)
        program = openvino.convert_model(module, example_input=inputs)
    return openvino.compile_model(program, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.every_day("ViTForMaskedImageModeling")
@pytest.mark.parametrize(
    ("name", "size"), [("ViTModel", NATIVE), ("ViTForMaskedImageModeling", OTHER), ("ViTMAEForPreTraining", NATIVE)]
)
def test_one_openvino_program_is_right_at_every_size(name, size, openvino):
    model = make_model(name, **FIELDS).requires_grad_(False)
    program = converted(openvino, Resizing(model), example(name, size))
    names = list(model(**example(name, size), **FLAG))

    def run(inputs):
        outputs = program(inputs)
        return {key: outputs[port] for key, port in zip(names, program.outputs, strict=True)}

    check_every_size(name, model.config, tensors_of(model), run, SIZES)


# Refusals


def test_a_traced_program_of_one_size_refuses_others():
    model = make_model("ViTModel", **FIELDS, return_dict=False).requires_grad_(False)
    images, turned = (
        torch.from_numpy(make_inputs("ViTModel", size, 2)["pixel_values"]) for size in ((12, 20), (15, 16))
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.trace.* is deprecated", category=DeprecationWarning)
        traced = torch.jit.trace(model, images)
    for got, expected in zip(traced(images), model(images), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * expected.abs().max())
    with pytest.raises(RuntimeError, match="size"):
        traced(turned)


def test_an_onnx_program_of_one_size_refuses_others():
    model = make_model("ViTModel", **FIELDS).requires_grad_(False)
    auto = torch.export.Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = example("ViTModel", NATIVE)
        shapes = {"pixel_values": {2: auto, 3: auto}}
        program = torch.onnx.export(model, (), kwargs=images, dynamic_shapes=shapes, dynamo=True, verbose=False)
    expected = model(**images)
    for got, value in zip(program(**images), expected.values(), strict=True):
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-5 * value.abs().max())
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Expand"):
        program(**example("ViTModel", (15, 16)))


def test_an_export_of_one_size_is_no_program_of_many():
    inputs = example("ViTModel", NATIVE)
    with pytest.raises((ValueError, torch._dynamo.exc.UserError), match=r"static|specialized"):
        torch.export.export(make_model("ViTModel", **FIELDS), (), kwargs=inputs, dynamic_shapes=any_size(inputs))


def test_a_ratio_that_rounding_decides_is_refused_while_tracing():
    model = make_model("ViTMAEModel", **FIELDS, mask_ratio=0.3)
    with pytest.raises(InputError, match=r"mask_ratio: 0\.3 .* not known while tracing"):
        export(model, "ViTMAEModel", NATIVE)


@pytest.mark.every_day("0.6")
@pytest.mark.parametrize("ratio", [0.9, 0.6, 0.0])
def test_as_many_patches_are_kept_as_by_an_eager_call(ratio):
    model = make_model("ViTMAEModel", **FIELDS, mask_ratio=ratio).requires_grad_(False)
    program = export(model, "ViTMAEModel", (30, 40)).module()
    for size in ((30, 40), (60, 52), (21, 44)):
        inputs = example("ViTMAEModel", size)
        got = program(**inputs, **FLAG)
        for key, value in model(**inputs, **FLAG).items():
            np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-5 * value.abs().max().item(), err_msg=key)
