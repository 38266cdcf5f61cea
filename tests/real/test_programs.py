"""Programs traced from published weights at one size are right at every other: every state, against the oracle."""

import warnings
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import torch
from real import comparing

pytestmark = pytest.mark.real

TRACED_AT = [(224, 224), (518, 518)]  # another size than the positions are for, and that size
SIZES = [(224, 224), (112, 448), (210, 238), (518, 518)]  # the first two have as many patches


@pytest.fixture(scope="module")
def encoder(folder):
    """The model in PyTorch, as a module of one argument whose outputs are a plain tuple of all states."""

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = comparing.load(folder, "torch")

        def forward(self, pixel_values):
            found = self.model(pixel_values, output_hidden_states=True, interpolate_pos_encoding=True)
            return (*found.hidden_states, found.last_hidden_state)

    return States().eval()


def dynamic():
    return {"pixel_values": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}


def example(size):
    return (torch.zeros(2, 3, *size),)


@pytest.fixture(scope="module")
def exported(encoder):
    """exported(size) -> what torch.export makes of it there, height, width and batch unknown."""
    return cache(lambda size: torch.export.export(encoder, example(size), dynamic_shapes=dynamic()).module())


@pytest.fixture(scope="module")
def onnx_session(encoder, tmp_path_factory):
    """onnx_session(size) -> the ONNX program that is traced there, in onnxruntime."""
    import onnxruntime

    @cache
    def made(size):
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch.onnx says of its own parts differs by version
            torch.onnx.export(encoder, example(size), path, dynamo=True, dynamic_shapes=dynamic(), verbose=False)
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    return made


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("traced", TRACED_AT, ids="traced at {0[0]}".format)
def test_torch_export(traced, size, exported, sized):
    images, expected = sized(size)
    with torch.no_grad():
        comparing.check([state.numpy() for state in exported(traced)(torch.from_numpy(images))], expected)


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("traced", TRACED_AT, ids="traced at {0[0]}".format)
def test_onnx(traced, size, onnx_session, sized):
    images, expected = sized(size)
    session = onnx_session(traced)
    comparing.check(session.run(None, {session.get_inputs()[0].name: images}), expected)


@pytest.fixture(scope="module")
def tf_function(folder):
    """The model in TensorFlow as one graph whose batch, height and width are unknown."""
    model = comparing.load(folder, "tf")

    @tf.function(input_signature=[tf.TensorSpec((None, 3, None, None))])
    def states(pixel_values):
        found = model(pixel_values, output_hidden_states=True, interpolate_pos_encoding=True)
        return (*found.hidden_states, found.last_hidden_state)

    return states


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_tf_function(size, tf_function, sized):
    images, expected = sized(size)
    comparing.check([np.asarray(state) for state in tf_function(images)], expected)
