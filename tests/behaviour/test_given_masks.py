"""`bool_masked_pos=` of the masked autoencoder: a mask of one's own, in every backend as in the reference."""

import zlib

import numpy as np
import pytest
from backends import INSTALLED
from checkpoints import make_config, make_tensors

from vit_core.errors import InputError
from vit_core.masking import mask_noise
from vit_core.reference import forward
from vit_core.tensors import from_numpy, to_numpy
from vitriad.auto import model_class

CLASSES = ("ViTMAEModel", "ViTMAEForPreTraining")
TENSORS = {"torch": "pt", "tf": "tf", "flax": "jax"}
PATCHES = 6  # of (8, 12) pixels in patches of 4
MASKS = {  # removed patches of two images
    "one": [[1], [4]],
    "half": [[0, 2, 5], [1, 2, 3]],
    "all but one": [[0, 1, 2, 3, 4], [0, 2, 3, 4, 5]],
}


def mask_of(removed):
    mask = np.zeros((2, PATCHES), bool)
    for row, patches in zip(mask, removed, strict=True):
        row[patches] = True
    return mask


def pixels(name):
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return random.standard_normal((2, 3, 8, 12), np.float32)


@pytest.fixture(scope="module", params=[(backend, cls) for backend in INSTALLED for cls in CLASSES], ids="-".join)
def case(request):
    """A model, the class's name, configuration, weights and backend."""
    backend, cls = request.param
    config = make_config(cls)
    tensors = make_tensors(cls, config)
    return model_class(cls, backend).from_tensors(config, tensors), cls, config, tensors, backend


@pytest.mark.every_day("torch", "ViTMAEForPreTraining")
@pytest.mark.parametrize("name", MASKS)
def test_a_given_mask_removes_these_patches_as_the_reference_does(case, name):
    model, cls, config, tensors, _ = case
    mask, images = mask_of(MASKS[name]), pixels(name)
    output = model(pixel_values=images, bool_masked_pos=mask, return_dict=True)
    expected = forward(cls, config, tensors, images, bool_masked_pos=mask)
    np.testing.assert_array_equal(to_numpy(output.mask), mask)
    np.testing.assert_array_equal(expected["mask"], mask)
    np.testing.assert_array_equal(to_numpy(output.ids_restore), expected["ids_restore"])
    for key in {"last_hidden_state", "logits", "loss"} & {*expected}:
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(to_numpy(getattr(output, key)), expected[key], rtol=0, atol=1e-5 * scale)


@pytest.mark.every_day("torch", "ViTMAEForPreTraining")
def test_masks_of_every_kind_are_those_of_noise_and_ratio(case):
    model, _, _, _, backend = case
    mask, images = mask_of(MASKS["half"]), pixels("kinds")
    noise, ratio = mask_noise(mask)
    first = model(pixel_values=images, noise=noise, mask_ratio=ratio, return_dict=False)
    for each in (mask, mask.astype(np.int64), mask.astype(np.float32), from_numpy(mask, TENSORS[backend])):
        for one, two in zip(model(pixel_values=images, bool_masked_pos=each, return_dict=False), first, strict=True):
            np.testing.assert_allclose(to_numpy(one), to_numpy(two), rtol=1e-6)  # graphs of their own round otherwise


def test_the_encoder_takes_a_mask_that_removes_nothing():
    for backend in INSTALLED:
        config = make_config("ViTMAEModel")
        model = model_class("ViTMAEModel", backend).from_tensors(config, make_tensors("ViTMAEModel", config))
        output = model(pixel_values=pixels("none"), bool_masked_pos=np.zeros((2, PATCHES), bool))
        assert output.last_hidden_state.shape[1] == 1 + PATCHES


@pytest.mark.every_day("torch", "ViTMAEForPreTraining")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bool_masked_pos": mask_of([[1], [2, 3]])}, r"bool_masked_pos: .*equally many .* with \[1, 2\] removed"),
        ({"bool_masked_pos": mask_of([range(6), range(6)])}, r"bool_masked_pos: .* one kept"),
        ({"bool_masked_pos": np.full((2, PATCHES), 0.5)}, r"bool_masked_pos: .* got float64"),
        ({"bool_masked_pos": np.zeros(PATCHES, bool)}, r"bool_masked_pos: .* got bool \(6,\)"),
        ({"bool_masked_pos": mask_of([[1], [2]])[:, :5]}, r"bool_masked_pos: expected .*6.*got.*5"),
        ({"bool_masked_pos": mask_of([[1], [2]]), "mask_ratio": 0.5}, r"leave out noise and mask_ratio"),
        ({"bool_masked_pos": mask_of([[1], [2]]), "noise": np.zeros((2, 6), np.float32)}, r"leave out noise"),
    ],
    ids=["uneven", "all", "fractions", "flat", "few", "ratio", "noise"],
)
def test_masks_that_do_not_fit_are_refused(case, options, message):
    model, cls, config, tensors, _ = case
    for call in (model, lambda pixel_values, **others: forward(cls, config, tensors, pixel_values, **others)):
        with pytest.raises(InputError, match=f"(?s){message}") as caught:
            call(pixel_values=pixels("bad"), **options)
        assert str(caught.value).count("\n") <= 2


@pytest.mark.every_day("torch", "ViTMAEForPreTraining")
def test_values_that_are_not_known_while_tracing_are_asked_for_otherwise(case):
    """Compiled code has as many tokens as the mask says, so that it has to be known before."""
    model, _, _, _, backend = case
    mask, images = from_numpy(mask_of(MASKS["half"]), TENSORS[backend]), pixels("traced")
    with pytest.raises(InputError, match=r"not known while tracing(?s:.*)vit_core\.masking\.mask_noise"):
        traced(backend, lambda given: model(pixel_values=images, bool_masked_pos=given, return_dict=True).mask, mask)


def traced(backend, call, mask):
    """Runs a call in the framework's compiler."""
    if backend == "tf":
        import tensorflow

        return tensorflow.function(call)(mask)
    if backend == "flax":
        import jax

        return jax.jit(call)(mask)
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        return call(mode.from_tensor(mask))
