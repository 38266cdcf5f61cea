"""Images are checked once in a call of a model, whatever models and losses there are inside it."""

import numpy as np
import pytest
from small_models import PATCHES

import vit_core.inputs
from vit_core.tensors import to_numpy


@pytest.fixture
def checks(backend, monkeypatch):
    """How often images were checked: their shape, and their values."""
    made = {"shape": 0, "values": 0}
    check_shape, are_finite = vit_core.inputs.check_pixel_values, vit_core.inputs._all_finite

    def counted_shape(*args, **kwargs):
        made["shape"] += 1
        return check_shape(*args, **kwargs)

    def counted_values(array):
        made["values"] += array.ndim == 4
        return are_finite(array)

    monkeypatch.setattr(backend.package.inputs, "check_pixel_values", counted_shape)
    monkeypatch.setattr(vit_core.inputs, "_all_finite", counted_values)
    return made


def inputs_with_a_loss(backend, name):
    inputs = backend.make_inputs(name)
    if name == "ViTForMaskedImageModeling":
        inputs["bool_masked_pos"] = backend.native(np.ones((2, PATCHES), bool))
    if name == "ViTForImageClassification":
        inputs["labels"] = backend.native(np.array([1, 2]))
    return inputs


@pytest.mark.every_day("torch", "ViTForImageClassification")
def test_a_call_checks_its_images_once(backend, name, checks):
    inputs = inputs_with_a_loss(backend, name)
    backend.make_model(name)(**inputs)
    assert checks == {"shape": 1, "values": 1}


@pytest.mark.every_day("torch", "ViTModel")
def test_a_compiled_call_checks_its_images_once(backend, name, checks):
    model, inputs = backend.make_model(name), inputs_with_a_loss(backend, name)
    model.compiles_calls = True  # of TensorFlow; the others do it always or never
    model(**inputs)
    assert checks == {"shape": 1, "values": 1}
    model(**inputs)
    assert checks["values"] == 2


def test_the_encoder_inside_a_model_is_a_door_of_its_own(backend, checks):
    model = backend.make_model("ViTForImageClassification").base_model
    model(**backend.make_inputs("ViTForImageClassification"))
    assert checks == {"shape": 1, "values": 1}


def test_patches_and_losses_alone_check_their_images(backend, checks):
    name = "ViTMAEForPreTraining"
    model, pixel_values = backend.make_model(name), backend.make_inputs(name)["pixel_values"]
    patches = model.patchify(pixel_values)
    assert checks["shape"] == 1
    model.forward_loss(pixel_values, patches, backend.native(np.ones((2, PATCHES), np.float32)))
    assert checks["shape"] == 2


def test_embeddings_alone_take_the_grid_of_their_images(backend):
    model, pixel_values = backend.make_model("ViTModel"), backend.make_inputs("ViTModel")["pixel_values"]
    parts = model if backend.name != "flax" else model.module.bind({"params": model.params})
    found = to_numpy(parts.embeddings(pixel_values))
    expected = to_numpy(model(pixel_values, output_hidden_states=True).hidden_states[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
