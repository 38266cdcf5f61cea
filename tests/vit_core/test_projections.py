"""Patch projections for other channels and patch sizes, against the authors' rules written out pixel by pixel."""

import zlib

import numpy as np
import pytest

from vit_core.errors import InputError
from vit_core.projections import bilinear_matrix, with_channels, with_patches

PATCHES = [((4, 4), (8, 8)), ((3, 5), (7, 6)), ((4, 6), (4, 9)), ((8, 8), (4, 4)), ((5, 4), (3, 7)), ((1, 4), (2, 4))]


def random_of(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def resize_by_pixel(old, new):
    """The matrix that resizes a flattened picture: each new pixel is a mean of the four around its centre."""
    matrix = np.zeros((new[0] * new[1], old[0] * old[1]))
    for place in np.ndindex(*new):
        corners = []
        for at, n, o in zip(place, new, old, strict=True):
            centre = min(max((at + 0.5) * o / n - 0.5, 0), o - 1)
            low = int(centre)
            corners.append([(low, 1 - (centre - low)), (min(low + 1, o - 1), centre - low)])
        for row, row_share in corners[0]:
            for column, column_share in corners[1]:
                matrix[place[0] * new[1] + place[1], row * old[1] + column] += row_share * column_share
    return matrix


@pytest.mark.parametrize(("old", "new"), PATCHES)
def test_the_kernel_is_the_authors_pseudo_inverse(old, new):
    kernel = random_of(f"kernel {old} {new}").standard_normal((3, 2, *old))
    resize = resize_by_pixel(old, new)
    expected = kernel.reshape(6, -1) @ np.linalg.pinv(resize)
    np.testing.assert_allclose(with_patches(kernel, new).reshape(6, -1), expected, rtol=0, atol=1e-12)
    least, *_ = np.linalg.lstsq(resize.T, kernel.reshape(6, -1).T, rcond=None)
    np.testing.assert_allclose(with_patches(kernel, new).reshape(6, -1), least.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [pair for pair in PATCHES if pair[1] >= pair[0] and min(pair[1]) > 3])
def test_the_token_of_an_enlarged_patch_is_the_token_of_the_patch(old, new):
    random = random_of(f"token {old} {new}")
    kernel, patches = random.standard_normal((3, 2, *old)), random.standard_normal((5, 2, *old))
    enlarged = (patches.reshape(10, -1) @ resize_by_pixel(old, new).T).reshape(5, 2, *new)
    tokens = np.einsum("bcij,dcij->bd", enlarged, with_patches(kernel, new))
    np.testing.assert_allclose(tokens, np.einsum("bcij,dcij->bd", patches, kernel), rtol=0, atol=1e-12)


def test_an_image_in_small_patches_gets_the_nearest_tokens():
    kernel = random_of("nearest").standard_normal((2, 1, 8, 8))
    small, resize = with_patches(kernel, (4, 4)).reshape(2, -1), resize_by_pixel((8, 8), (4, 4))
    error = np.linalg.norm(small @ resize - kernel.reshape(2, -1), axis=1)
    for step in random_of("steps").standard_normal((20, *small.shape)) * 1e-3:
        farther = np.linalg.norm((small + step) @ resize - kernel.reshape(2, -1), axis=1)
        np.testing.assert_array_less(error, farther)


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_a_patch_size_that_stays_changes_no_bit(size):
    kernel = random_of(f"same {size}").standard_normal((2, 3, size, size)).astype(np.float32)
    np.testing.assert_array_equal(bilinear_matrix(size, size), np.eye(size))
    np.testing.assert_allclose(with_patches(kernel, (size, size)), kernel, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("stored", "wanted"), [(3, 1), (3, 2), (3, 4), (3, 6), (3, 7), (4, 1), (1, 1), (1, 3), (3, 3)])
def test_channels_follow_the_rule_of_timm(stored, wanted):
    kernel = random_of(f"channels {stored} {wanted}").standard_normal((2, stored, 3, 4))
    if wanted == 1:
        expected = sum(kernel[:, [channel]] for channel in range(stored))
    else:
        expected = np.concatenate([kernel] * 3, axis=1)[:, :wanted] * stored / wanted
    np.testing.assert_allclose(with_channels(kernel, wanted), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(("stored", "wanted"), [(3, 1), (4, 1), (1, 3), (3, 6)])
def test_channels_are_exact_for_images_that_say_the_same_in_both(stored, wanted):
    random = random_of(f"exact {stored} {wanted}")
    kernel, plain = random.standard_normal((2, stored, 3, 4)), random.standard_normal((5, min(stored, wanted), 3, 4))
    before, after = (np.tile(plain, (1, count // plain.shape[1], 1, 1)) for count in (stored, wanted))
    tokens = np.einsum("bcij,dcij->bd", after, with_channels(kernel, wanted))
    np.testing.assert_allclose(tokens, np.einsum("bcij,dcij->bd", before, kernel), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stored", "wanted"), [(4, 3), (2, 4), (6, 3)])
def test_channels_without_a_rule_are_refused(stored, wanted):
    message = f"expected 1 or 3 stored channels to make {wanted} of, got {stored}"
    with pytest.raises(InputError, match=message):
        with_channels(np.zeros((2, stored, 3, 3)), wanted)
