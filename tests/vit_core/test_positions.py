"""Position tables: each kernel against the program it stands for, and the sin-cos table against a plain loop."""

import math
import zlib

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vit_core.config import ViTConfig
from vit_core.errors import InputError
from vit_core.parameters import parameter_table
from vit_core.positions import KERNELS, cubic_weights, is_sincos, resize_matrix, resize_table, sincos_table

# Two sums of at most 16 products of numbers below 4, in another order: measured 6e-15.
TOLERANCE = {"rtol": 0, "atol": 3e-14}
GRIDS = [
    ((4, 4), (6, 5)),
    ((14, 14), (24, 20)),
    ((4, 3), (7, 5)),
    ((5, 7), (2, 9)),
    ((24, 14), (14, 14)),
    ((3, 2), (1, 8)),
]
SIZES = [(4, 4), (14, 24), (24, 14), (3, 7), (1, 5), (5, 1), (7, 3), (2, 9), (16, 5), (6, 12), (1, 1)]


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


def resized(grid, new, kernel):
    """`grid` (rows, columns, hidden) by the two matrices of a kernel."""
    rows, columns = (resize_matrix(o, n, kernel) for o, n in zip(grid.shape, new, strict=False))
    return np.einsum("ri,cj,ijh->rch", rows, columns, grid)


# The kernels


def by_torch(grid, **how):
    images = torch.from_numpy(grid.transpose(2, 0, 1).copy())[None]
    return F.interpolate(images, mode="bicubic", align_corners=False, **how)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_kernels_that_are_torchs(old, new, rng):
    grid = rng.standard_normal((*old, 3))
    shifted = tuple((n + 0.1) / o for o, n in zip(old, new, strict=True))
    for kernel, how in {
        "hf": {"size": new},
        "timm": {"size": new, "antialias": True},
        "dino": {"scale_factor": shifted, "recompute_scale_factor": False},
    }.items():
        np.testing.assert_allclose(resized(grid, new, kernel), by_torch(grid, **how), **TOLERANCE, err_msg=kernel)


def test_dino_shifts_an_axis_that_keeps_its_size(rng):
    grid = rng.standard_normal((4, 3, 2))
    expected = by_torch(grid, scale_factor=(4.1 / 4, 6.1 / 3), recompute_scale_factor=False)
    np.testing.assert_allclose(resized(grid, (4, 6), "dino"), expected, **TOLERANCE)
    assert np.abs(resize_matrix(4, 4, "dino") - np.eye(4)).max() > 0.01


def tensorflow_row(old, new, place):
    """Weights of one sample, tap by tap: half-pixel centres, 1024 offsets, a = -0.5, taps outside dropped."""

    def weight(distance):
        if distance <= 1:
            return 1.5 * distance**3 - 2.5 * distance**2 + 1
        return -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2

    centre = (place + 0.5) * old / new - 0.5
    first = math.floor(centre)
    offset = round((centre - first) * 1024) / 1024
    taps = [(first - 1, 1 + offset), (first, offset), (first + 1, 1 - offset), (first + 2, 2 - offset)]
    inside = {index: weight(distance) for index, distance in taps if 0 <= index < old}
    return [inside.get(index, 0.0) / sum(inside.values()) for index in range(old)]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_the_kernel_of_tensorflow(old, new):
    expected = [tensorflow_row(old, new, place) for place in range(new)]
    np.testing.assert_allclose(resize_matrix(old, new, "tf"), expected, **TOLERANCE)


# scipy.ndimage.zoom(order=1) of [[3, -1, 4], [1, 5, -9]], SciPy 1.17.1
ZOOMED = [
    [[3, 1 / 3, 2 / 3, 4], [2, 2, 0.5, -2.5], [1, 11 / 3, 1 / 3, -9]],
    [[3, 4]],
    [[3, -1, 4], [2.5, 0.5, 0.75], [2, 2, -2.5], [1.5, 3.5, -5.75], [1, 5, -9]],
]


@pytest.mark.parametrize("expected", ZOOMED)
def test_the_kernel_of_big_vision(expected):
    grid = np.array([[3.0, -1.0, 4.0], [1.0, 5.0, -9.0]])[..., None]
    np.testing.assert_allclose(resized(grid, np.shape(expected), "bigvision")[..., 0], expected, **TOLERANCE)


# Rows 1 and 30 of a 4 x 4 table made for 6 x 5 patches by transformers 4.57.6, torch 2.13 and TensorFlow 2.21
MEASURED = {
    "hf": [
        [0.085710, 0.076052, 0.065475, 0.054106, 0.042084, 0.029552, 0.016664, 0.003574],
        [0.015448, 0.002347, -0.010782, -0.023781, -0.036492, -0.048762, -0.060443, -0.071393],
    ],
    "tf": [
        [0.081599, 0.072278, 0.062083, 0.051138, 0.039575, 0.027534, 0.015159, 0.002602],
        [0.015628, 0.003075, -0.009516, -0.021991, -0.034201, -0.045997, -0.057238, -0.067786],
    ],
}


@pytest.mark.parametrize("kernel", MEASURED)
def test_numbers_measured_with_transformers(kernel):
    config = ViTConfig(8, 2, 2, 12, image_size=16, patch_size=4)
    key = sorted(parameter_table(config, "ViTModel")).index("embeddings.position_embeddings")
    table = 0.1 * np.sin(0.37 * (key + 1) + 0.11 * np.arange(17 * 8)).reshape(1, 17, 8).astype(np.float32)
    found = resize_table(table, (4, 4), (6, 5), kernel)
    np.testing.assert_allclose(found[0, [1, 30]], MEASURED[kernel], rtol=0, atol=2e-6)  # printed to 1e-6


# Properties of every kernel


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_matrices(kernel, old, new):
    matrix = resize_matrix(old, new, kernel)
    assert (matrix.shape, matrix.dtype) == ((new, old), np.float64)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, **TOLERANCE)
    if kernel != "dino" and new > 1:  # dino alone is not symmetric; one aligned corner is the first point
        np.testing.assert_allclose(matrix, matrix[::-1, ::-1], **TOLERANCE)
    if kernel != "dino" and old == new:
        np.testing.assert_array_equal(matrix, np.eye(old))
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


def test_the_weights_that_backends_take_are_those_of_the_matrix():
    inner = resize_matrix(37, 64)[20]  # four points, none at a border
    (first,), offset = np.nonzero(inner)[0][:1], (20 + 0.5) * 37 / 64 - 0.5
    np.testing.assert_equal(int(first), math.floor(offset) - 1)
    np.testing.assert_allclose(cubic_weights(offset % 1), inner[first : first + 4], **TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((3, 4, "bicubic"), "position kernel: expected one of hf, timm, tf, bigvision, dino, got 'bicubic'"),
        ((3, 4, None), "got None"),
        ((0, 4), "position grid: expected sides of at least 1, got 0 -> 4"),
        ((3, 0, "timm"), "got 3 -> 0"),
        ((3, -1, "tf"), "got 3 -> -1"),
    ],
)
def test_matrices_refused(arguments, part):
    with pytest.raises(InputError) as caught:
        resize_matrix(*arguments)
    assert part in str(caught.value)


# The sin-cos table


@pytest.mark.parametrize(("hidden", "rows", "columns"), [(4, 1, 1), (8, 2, 3), (24, 3, 2), (128, 5, 7)])
def test_the_sincos_table_is_that_of_a_plain_loop(hidden, rows, columns):
    expected = [[0.0] * hidden]
    for row in range(rows):
        for column in range(columns):
            line = []
            for place in (column, row):  # x first
                angles = [place / 10000 ** (k / (hidden // 4)) for k in range(hidden // 4)]
                line += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            expected.append(line)
    table = sincos_table(hidden, rows, columns)
    assert (table.shape, table.dtype) == ((1, 1 + rows * columns, hidden), np.float64)
    np.testing.assert_allclose(table[0], expected, rtol=0, atol=1e-14)


# Resizing tables


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_learned_table_is_resized_in_two_dimensions(kernel, dtype, rng):
    table = rng.standard_normal((1, 1 + 3 * 5, 7)).astype(dtype)
    found = resize_table(table, (3, 5), (4, 9), kernel)
    assert (found.shape, found.dtype) == ((1, 1 + 4 * 9, 7), np.dtype(dtype))
    np.testing.assert_array_equal(found[:, 0], table[:, 0])
    wide = table.astype(np.float64)[0, 1:].reshape(3, 5, 7)
    expected = resized(wide, (4, 9), kernel).reshape(36, 7)
    atol = 4 * max(float(np.spacing(np.dtype(dtype).type(1))), 1e-14)  # the result is below 8: one rounding
    np.testing.assert_allclose(found[0, 1:].astype(np.float64), expected, rtol=0, atol=atol)
    assert resize_table(table, (3, 5), (3, 5), kernel) is table


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_sincos_table_is_built_anew(dtype):
    table = sincos_table(24, 14, 14).astype(dtype)
    assert is_sincos(table, (14, 14))
    for kernel in KERNELS:
        found = resize_table(table, (14, 14), (5, 20), kernel)
        np.testing.assert_array_equal(found, sincos_table(24, 5, 20).astype(dtype))


@pytest.mark.parametrize(
    ("grid", "change"),
    [((6, 2), 0), ((4, 4), 0), ((3, 4), 2e-6), ((3, 4), -2e-6), ((3, 4), np.nan), ((2, 6), 0)],
)
def test_what_is_no_sincos_table(grid, change):
    table = sincos_table(8, 3, 4).astype(np.float32)
    assert is_sincos(table + np.float32(5e-7), (3, 4))
    table[0, 5, 3] += change
    assert not is_sincos(table, grid)
    assert not is_sincos(table[..., :7], (3, 4))
