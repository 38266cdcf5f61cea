"""`vitriad.explain`: maps of attention and colours of features, against definitions written out."""

import numpy as np
import pytest

from vit_core.errors import InputError
from vit_core.masking import mask_noise, num_kept
from vitriad import drawing, explain


def attentions(layers=3, batch=2, heads=4, tokens=7, seed=0):
    drawn = np.random.default_rng(seed).random((layers, batch, heads, tokens, tokens))
    return list(drawn / drawn.sum(axis=-1, keepdims=True))


def test_rollout_is_the_product_of_all_layers():
    given = attentions()
    expected = np.eye(7)
    for layer in given:
        expected = (0.5 * layer[1].mean(axis=0) + 0.5 * np.eye(7)) @ expected
    found = explain.rollout(given, (2, 3))
    np.testing.assert_allclose(found[1], expected[0, 1:].reshape(2, 3), rtol=1e-12)
    np.testing.assert_allclose(found[1].sum() + expected[0, 0], 1, rtol=1e-12)


def test_class_maps_are_the_first_row():
    given = attentions(tokens=10)
    found = explain.class_maps(given)
    assert found.shape == (3, 2, 4, 3, 3)
    np.testing.assert_array_equal(found[2, 1, 3].ravel(), given[2][1, 3, 0, 1:])


def test_features_that_differ_in_one_direction_get_one_colour_ramp():
    random = np.random.default_rng(1)
    direction, amounts = random.standard_normal(16), np.linspace(-1, 1, 24)
    tokens = np.zeros((2, 13, 16))
    tokens[:, 1:] = (amounts[:, None] * direction).reshape(2, 12, 16) + random.standard_normal(16)
    found = explain.patch_pca(tokens, (3, 4), components=1).ravel()
    rising = found if found[-1] > found[0] else found[::-1]
    np.testing.assert_allclose(rising, ((amounts + 1) / 2 * 1.02 - 0.01).clip(0, 1), atol=0.02)


@pytest.mark.parametrize("turned", [1, -1])
def test_the_sign_of_a_direction_is_settled(turned):
    tokens = np.random.default_rng(2).standard_normal((3, 10, 8))
    shuffled = np.concatenate([tokens[:, :1], tokens[:, 1:][:, ::turned]], axis=1)
    found, other = explain.patch_pca(tokens), explain.patch_pca(shuffled)
    np.testing.assert_allclose(other.reshape(3, 9, 3)[:, ::turned], found.reshape(3, 9, 3), atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain.rollout(None), "output_attentions=True"),
        (lambda: explain.rollout([]), "output_attentions=True"),
        (lambda: explain.rollout([np.zeros((1, 5, 5))]), "expected .batch, heads, tokens, tokens"),
        (lambda: explain.rollout(attentions(tokens=7)), "6 patches do not make 2 x 2"),
        (lambda: explain.class_maps(attentions(), (2, 2)), "6 patches do not make 2 x 2"),
        (
            lambda: explain.class_maps([*attentions(heads=4), *attentions(heads=3)], (2, 3)),
            "different numbers of heads",
        ),
        (lambda: explain.patch_pca(np.zeros((5, 8))), "expected .batch, tokens, hidden"),
        (lambda: explain.patch_pca(np.zeros((1, 5, 2))), "components: expected 1 to 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_colours_rise_in_lightness_and_stand_nan():
    weights = np.array([0.299, 0.587, 0.114])
    ramp = drawing.coloured(np.linspace(0, 1, 50), 0, 1) @ weights
    assert (np.diff(ramp) > 0).all()
    np.testing.assert_array_equal(drawing.coloured(np.array([np.nan, 0.0, 1.0]))[0], drawing.coloured(np.zeros(2))[0])


@pytest.mark.parametrize("patches", [1, 4, 49, 196, 1000])
def test_any_mask_can_be_given_as_noise(patches):
    random = np.random.default_rng(patches)
    for removed in {0, patches // 3, patches // 2, patches - 1}:
        mask = np.array([random.permutation(patches) < removed for _ in range(2)])
        noise, ratio = mask_noise(mask)
        kept = num_kept(patches, ratio)
        assert kept == patches - removed
        for row, order in zip(mask, np.argsort(noise, axis=1, kind="stable"), strict=True):
            np.testing.assert_array_equal(np.sort(order[:kept]), order[:kept])
            assert not row[order[:kept]].any()


@pytest.mark.parametrize(
    "mask", [np.zeros(4, bool), np.ones((1, 4), bool), np.zeros((1, 4)), np.eye(3, 4) < np.eye(3)[:, :1]]
)
def test_masks_of_another_kind_are_refused(mask):
    with pytest.raises(InputError, match="equally many removed patches"):
        mask_noise(mask)
