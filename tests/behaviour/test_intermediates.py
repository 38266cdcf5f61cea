"""forward_intermediates and get_intermediate_layers: exact slices of the hidden states, as maps of any size."""

import pickle

import numpy as np
import pytest
from sameness import check_same

from vit_core import InputError
from vit_core.tensors import from_numpy, to_numpy

LAYERS = 3
SIZES = [(12, 20), (8, 28), (21, 13)]  # of the configuration; others, the last with pixels that are not seen


@pytest.fixture(params=["ViTModel", "ViTMAEModel"])
def name(request):
    return request.param


@pytest.fixture
def model(backend, name):
    return backend.make_model(name, num_hidden_layers=LAYERS, layer_norm_eps=0.1)


def images(backend, height=12, width=20):
    pixels = np.random.default_rng(height * width).standard_normal((2, 3, height, width), np.float32)
    return from_numpy(pixels, backend.tensors_word)


def states_of(model, pixels):
    """What a call itself gives: its output, and the hidden states behind the embeddings."""
    whole = {"mask_ratio": 0.0} if "MAE" in type(model).__name__ else {}
    output = model(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True, **whole)
    return to_numpy(output.last_hidden_state), [to_numpy(state) for state in output.hidden_states[1:]]


def normed(model, state):
    weights = model.canonical_tensors()
    centred = state - state.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.1)
    return scaled * weights["layernorm.weight"] + weights["layernorm.bias"]


def as_map(tokens, height, width):
    rows, columns = height // 4, width // 4
    return tokens[:, 1:].transpose(0, 2, 1).reshape(2, -1, rows, columns)


@pytest.mark.every_day("torch", "ViTModel-21-13-True")
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_blocks_give_is_a_slice_of_the_hidden_states(backend, model, height, width, norm):
    pixels = images(backend, height, width)
    last, states = states_of(model, pixels)
    if norm:
        states = [normed(model, state) for state in states]
    found_last, found = model.forward_intermediates(pixels, norm=norm)
    check_same(found_last, last, 1e-6)
    assert len(found) == LAYERS
    for maps, state in zip(found, states, strict=True):
        check_same(maps, as_map(state, height, width), 1e-6 if norm else 0.0)
    flat = model.forward_intermediates(
        pixels, [-1, 0], norm=norm, output_format="NLC", return_prefix_tokens=True, intermediates_only=True
    )
    for (patches, prefix), state in zip(flat, (states[-1], states[0]), strict=True):
        check_same(patches, state[:, 1:], 1e-6 if norm else 0.0)
        check_same(prefix, state[:, :1], 1e-6 if norm else 0.0)


@pytest.mark.every_day("torch", "ViTModel")
def test_the_final_norm_of_the_last_block_is_the_output(backend, model):
    last, (maps,) = model.forward_intermediates(images(backend), 1, norm=True)
    check_same(maps, as_map(to_numpy(last), 12, 20), 1e-6)


@pytest.mark.every_day("torch", "ViTModel-indices1")
@pytest.mark.parametrize("indices", [[0], [1, 0], [0, 1, 2], 1])
def test_stopping_early_changes_nothing_but_the_last_tokens(backend, model, indices):
    pixels = images(backend, 8, 28)
    _, states = states_of(model, pixels)
    whole = model.forward_intermediates(pixels, indices, intermediates_only=True)
    for _ in range(2):  # the second call finds what the first one compiled
        last, found = model.forward_intermediates(pixels, indices, stop_early=True)
        check_same(tuple(found), tuple(whole), 1e-6)
    depth = 1 + max(indices) if isinstance(indices, list) else LAYERS
    check_same(last, normed(model, states[depth - 1]), 1e-5)
    check_same(states_of(model, pixels)[0], normed(model, states[-1]), 1e-5)  # the model itself is as it was


@pytest.mark.every_day("torch", "ViTModel")
def test_stopping_early_leaves_out_the_blocks_behind(backend, name):
    tensors = backend.make_tensors(name, num_hidden_layers=LAYERS)
    broken = {key: np.full_like(a, np.nan) if ".layer.2." in key else a for key, a in tensors.items()}
    model = backend.cls(name).from_tensors(backend.make_config(name, num_hidden_layers=LAYERS), broken)
    assert np.isnan(to_numpy(model.forward_intermediates(images(backend), [1])[0])).all()
    last, (maps,) = model.forward_intermediates(images(backend), [1], stop_early=True)
    assert np.isfinite(to_numpy(last)).all() and np.isfinite(to_numpy(maps)).all()
    (tokens,) = model.get_intermediate_layers(images(backend), [1])
    assert np.isfinite(to_numpy(tokens)).all()


@pytest.mark.every_day("torch", "ViTModel-True-n2")
@pytest.mark.parametrize(("n", "blocks"), [(1, [2]), (2, [1, 2]), ([0, 2], [0, 2]), ((1,), [1])])
@pytest.mark.parametrize("norm", [False, True])
def test_layers_come_in_the_form_of_dinov2(backend, model, n, blocks, norm):
    pixels = images(backend, 8, 28)
    _, states = states_of(model, pixels)
    expected = [normed(model, states[block]) if norm else states[block] for block in blocks]
    plain = model.get_intermediate_layers(pixels, n, norm=norm)
    check_same(plain, tuple(state[:, 1:] for state in expected), 1e-5)
    pairs = model.get_intermediate_layers(pixels, n, reshape=True, return_class_token=True, norm=norm)
    check_same(pairs, tuple((as_map(state, 8, 28), state[:, 0]) for state in expected), 1e-5)


@pytest.mark.every_day("torch", "ViTModel")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras, saving
def test_a_model_is_saved_and_pickled_as_before(backend, model, tmp_path):
    expected = model.canonical_tensors()
    model.forward_intermediates(images(backend), [0], stop_early=True)
    model.save_pretrained(tmp_path)
    for again in (type(model).from_pretrained(tmp_path), pickle.loads(pickle.dumps(model))):
        found = again.canonical_tensors()
        assert [*found] == [*expected]
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array)


WRONG = [0, LAYERS + 1, -1, True, 1.5, [], [LAYERS], [-LAYERS - 1], [0, 0], [-1, LAYERS - 1], ["0"], "0"]


@pytest.mark.every_day("torch", "ViTModel")
@pytest.mark.parametrize("asked", WRONG)
def test_blocks_that_there_are_not_are_refused(backend, model, asked):
    expected = "expected a number from 1 to 3, or different blocks from -3 to 2, got "
    for call, argument in ((model.forward_intermediates, "indices"), (model.get_intermediate_layers, "n")):
        with pytest.raises(InputError, match=f"{type(model).__name__}: {argument}: {expected}"):
            call(images(backend), asked)


def test_other_mistakes_are_named(backend, model):
    with pytest.raises(InputError, match="output_format: expected NCHW or NLC, got 'NHWC'"):
        model.forward_intermediates(images(backend), output_format="NHWC")
    with pytest.raises(InputError, match="output_fmt"):
        model.forward_intermediates(images(backend), output_fmt="NLC")
    with pytest.raises(InputError, match="pixel_values"):
        model.forward_intermediates(np.zeros((2, 5, 12, 20), np.float32))


@pytest.mark.parametrize("head", ["ViTForImageClassification", "ViTMAEForPreTraining"])
def test_a_model_with_a_head_says_whose_they_are(backend, head):
    model = backend.make_model(head)
    with pytest.raises(InputError, match=f"{head}: features from inside are the encoder's"):
        model.forward_intermediates(images(backend))
    (maps,) = model.base_model.forward_intermediates(images(backend), [0], intermediates_only=True)
    assert tuple(maps.shape) == (2, 24, 3, 5)
