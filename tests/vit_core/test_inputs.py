"""The model's door: what each check lets in, and in which words it refuses."""

import logging
import pickle
from itertools import product

import ml_dtypes
import numpy as np
import pytest
import refusing

from vit_core import checked, errors
from vit_core.config import ViTConfig
from vit_core.errors import InputError
from vit_core.inputs import (
    check_class_indices,
    check_head_mask,
    check_labels,
    check_per_patch,
    check_pixel_values,
    check_values,
    is_checked,
    warn_unseen,
)

FIRST, LAST = False, True
NAN, INF = float("nan"), float("inf")


def config(**fields):
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    return ViTConfig(**{**sizes, "image_size": (8, 12), "patch_size": (4, 3), **fields})


def refusal(check, *arguments, **options):
    message = refusing.refusal(lambda: check("Model", *arguments, **options), InputError)
    assert message.startswith("Model: ")
    return message.removeprefix("Model: ")


# Images


@pytest.mark.parametrize(
    ("fields", "shape", "interpolate", "layout"),
    [
        ({}, (2, 3, 8, 12), False, FIRST),
        ({}, (2, 8, 12, 3), False, LAST),
        ({}, (0, 3, 8, 12), False, FIRST),
        ({}, (None, 3, None, None), False, FIRST),
        ({}, (None, None, None, 3), False, LAST),
        ({}, (None, None, 12, 3), False, LAST),
        ({}, (2, 3, 4, 3), True, FIRST),  # axis 1 is looked at first
        ({}, (2, 3, 17, 100), True, FIRST),
        ({}, (2, 17, 100, 3), True, LAST),
        ({}, (2, 3, None, 100), True, FIRST),
        ({"num_channels": 8}, (2, 8, 8, 12), False, FIRST),  # height equal to channels
        (
            {"num_channels": 8},
            (2, 8, 12, 8),
            True,
            FIRST,
        ),  # an NHWC image of height 8 reads as NCHW: the documented rule
        ({"num_channels": 12}, (2, 8, 12, 12), False, LAST),
        ({"num_channels": 1, "image_size": 1, "patch_size": 1}, (5, 1, 1, 1), False, FIRST),
        ({"image_size": 3, "patch_size": 3}, (1, 3, 3, 3), False, FIRST),
    ],
)
def test_images_that_fit(fields, shape, interpolate, layout):
    assert check_pixel_values("Model", config(**fields), shape, is_float=True, interpolate=interpolate) is layout
    assert check_pixel_values("Model", config(**fields), [*shape], is_float=True, interpolate=interpolate) is layout


CHANNELS = "pixel_values: expected (batch, 3, height, width) or (batch, height, width, 3), got "
SIZE = "pixel_values: expected images of 8x12 pixels (height x width), got {}.\nResize them with the image processor"
PATCH = "pixel_values: expected at least one patch of 4x3 pixels, got {}."


@pytest.mark.parametrize(
    ("shape", "interpolate", "message"),
    [
        ((3, 8, 12), False, f"{CHANNELS}(3, 8, 12)."),
        ((1, 2, 3, 8, 12), False, f"{CHANNELS}(1, 2, 3, 8, 12)."),
        ((), False, f"{CHANNELS}()."),
        ((5,), True, f"{CHANNELS}(5,)."),
        ((2, 1, 8, 12), False, f"{CHANNELS}(2, 1, 8, 12)."),
        ((2, 8, 3, 12), True, f"{CHANNELS}(2, 8, 3, 12)."),
        ((3, 4, 8, 12), True, f"{CHANNELS}(3, 4, 8, 12)."),
        ((2, None, None, None), True, f"{CHANNELS}(2, ?, ?, ?)."),
        ((2, None, 8, 12), False, f"{CHANNELS}(2, ?, 8, 12)."),
        ((2, 3, 12, 8), False, SIZE.format("12x8")),
        ((2, 3, 8, 13), False, SIZE.format("8x13")),
        ((2, 12, 8, 3), False, SIZE.format("12x8")),
        ((2, 3, None, 13), False, SIZE.format("Nonex13")),
        ((2, 3, 3, 12), True, PATCH.format("3x12")),
        ((2, 8, 2, 3), True, PATCH.format("8x2")),
        ((2, 3, 0, 0), True, PATCH.format("0x0")),
    ],
)
def test_images_that_do_not(shape, interpolate, message):
    found = refusal(check_pixel_values, config(), shape, is_float=True, interpolate=interpolate)
    assert found.startswith(message)
    assert ("interpolate_pos_encoding=True" in found) == message.startswith("pixel_values: expected images")


def test_whole_numbers_are_no_pixels():
    found = refusal(check_pixel_values, config(), (2, 3, 8, 12), is_float=False, interpolate=False)
    assert found == (
        "pixel_values: expected floating point numbers, got integers.\n"
        "Run the image processor first: it rescales and normalises."
    )


def test_unseen_pixels_are_named_once_per_size(caplog):
    warn_unseen.cache_clear()
    with caplog.at_level(logging.WARNING, logger="vitriad"):
        for _ in range(3):
            for size, patch in [((13, 12), (4, 3)), ((8, 13), (4, 3)), ((8, 12), (4, 3)), ((15, 14), (4, 4))]:
                warn_unseen(size, patch)
    assert [record.getMessage() for record in caplog.records] == [
        "images of 13x12 pixels in patches of 4x3: the bottom 1 rows and the right 0 columns are never seen",
        "images of 8x13 pixels in patches of 4x3: the bottom 0 rows and the right 1 columns are never seen",
        "images of 15x14 pixels in patches of 4x4: the bottom 3 rows and the right 2 columns are never seen",
    ]


# Arguments with one value per patch, head masks


@pytest.mark.parametrize(
    ("shape", "batch", "patches", "fits"),
    [
        ((2, 8), 2, 8, True),
        ((None, 8), 2, 8, True),
        ((2, 8), None, None, True),
        ((2, None), 2, 8, True),
        ((1, 8), 2, 8, False),  # never broadcast
        ((2, 9), 2, 8, False),
        ((2, 1), 2, 8, False),
        ((2, 7), None, 8, False),
        ((8,), 2, 8, False),
        ((2, 8, 1), 2, 8, False),
        ((), 2, 8, False),
    ],
)
@pytest.mark.parametrize("name", ["noise", "bool_masked_pos"])
def test_one_value_per_patch(name, shape, batch, patches, fits):
    if fits:
        check_per_patch("Model", name, shape, batch, patches)
    else:
        wanted = f"(batch, patches) = ({'?' if batch is None else batch}, {patches})"
        got = str(shape).replace("None", "?")
        assert refusal(check_per_patch, name, shape, batch, patches) == f"{name}: expected {wanted}, got {got}."


@pytest.mark.parametrize(
    "shape",
    [(3,), (2, 3), (2, 1, 3, 1, 1), (2, 5, 3, 9, 9), (2, 5, 1, 9, 9), (None,), (None, 3), (2, None, None, None, None)],
)
def test_head_masks_that_fit(shape):
    check_head_mask("Model", config(), shape)


@pytest.mark.parametrize(
    "shape",
    [(), (2,), (3, 2), (1, 3), (5, 3), (2, 3, 1), (3, 1, 3, 1, 1), (1, 1, 3, 1, 1), (2, 1, 2, 9, 9), (2, 1, 3, 9)],
)
def test_head_masks_that_do_not(shape):
    found = refusal(check_head_mask, config(pruned_heads={0: [1]}), shape)
    wanted = "(heads,) = (3,), (layers, heads) = (2, 3) or (layers, batch, heads, tokens, tokens)"
    assert found == f"head_mask: expected {wanted}, got {shape}."


# Labels: every number of classes, problem type, shape and dtype

REGRESSION, SINGLE, MULTI = "regression", "single_label_classification", "multi_label_classification"
WHOLE, FLOAT = False, True


@pytest.mark.parametrize(
    ("classes", "given", "shape", "is_float", "found"),
    [
        (1, None, (4,), FLOAT, REGRESSION),
        (1, None, (4, 1), FLOAT, REGRESSION),
        (1, None, (4,), WHOLE, REGRESSION),
        (5, None, (4,), WHOLE, SINGLE),
        (5, None, (None,), WHOLE, SINGLE),
        (5, None, (4, 5), FLOAT, MULTI),
        (5, None, (4, 5), WHOLE, MULTI),
        (5, None, (None, None), FLOAT, MULTI),
        (5, REGRESSION, (4, 5), FLOAT, REGRESSION),
        (5, REGRESSION, (4, 5), WHOLE, REGRESSION),
        (1, REGRESSION, (4, 1), WHOLE, REGRESSION),
        (5, SINGLE, (4,), WHOLE, SINGLE),
        (5, SINGLE, (4, 1), WHOLE, SINGLE),
        (5, None, (4, 1), WHOLE, SINGLE),
        (1, SINGLE, (4,), WHOLE, SINGLE),
        (5, MULTI, (4, 5), WHOLE, MULTI),
        (1, MULTI, (4, 1), FLOAT, MULTI),
    ],
)
def test_labels_that_fit(classes, given, shape, is_float, found):
    fields = config(num_labels=classes, problem_type=given)
    for batch in 4, None:
        assert check_labels("Model", fields, shape, batch, is_float=is_float) == found
    assert fields.problem_type == given  # never written into the configuration


@pytest.mark.parametrize(
    ("classes", "given", "shape", "is_float", "message"),
    [
        (0, None, (4,), WHOLE, "labels: this model has no classifier (num_labels is 0), so there is no loss."),
        (1, None, (5,), FLOAT, f"labels: expected (4,) or (4, 1) for {REGRESSION} of 1 classes, got (5,)."),
        (1, None, (4, 2), FLOAT, f"labels: expected (4,) or (4, 1) for {REGRESSION} of 1 classes, got (4, 2)."),
        (5, None, (3,), WHOLE, f"labels: expected (4,) or (4, 1) for {SINGLE} of 5 classes, got (3,)."),
        (5, None, (4,), FLOAT, f"labels: expected (4, 5) for {MULTI} of 5 classes, got (4,)."),
        (5, None, (3, 1), WHOLE, f"labels: expected (4,) or (4, 1) for {SINGLE} of 5 classes, got (3, 1)."),
        (5, None, (4, 1), FLOAT, f"labels: expected (4, 5) for {MULTI} of 5 classes, got (4, 1)."),
        (5, None, (), WHOLE, f"labels: expected (4, 5) for {MULTI} of 5 classes, got ()."),
        (5, None, (5, 4), FLOAT, f"labels: expected (4, 5) for {MULTI} of 5 classes, got (5, 4)."),
        (5, SINGLE, (4,), FLOAT, f"labels: expected class indices (integers) for {SINGLE}, got floats."),
        (5, SINGLE, (4, 5), WHOLE, f"labels: expected (4,) or (4, 1) for {SINGLE} of 5 classes, got (4, 5)."),
        (5, REGRESSION, (4,), FLOAT, f"labels: expected (4, 5) for {REGRESSION} of 5 classes, got (4,)."),
        (5, MULTI, (4, 5, 1), FLOAT, f"labels: expected (4, 5) for {MULTI} of 5 classes, got (4, 5, 1)."),
        (1, MULTI, (4,), FLOAT, f"labels: expected (4, 1) for {MULTI} of 1 classes, got (4,)."),
    ],
)
def test_labels_that_do_not(classes, given, shape, is_float, message):
    fields = config(num_labels=classes, problem_type=given)
    assert refusal(check_labels, fields, shape, 4, is_float=is_float) == message


# Values

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_finite(dtype):
    numbers = np.ones((2, 3), dtype)
    check_values("Model", pixel_values=numbers, noise=None, head_mask=numbers[:0])
    for bad in ([NAN], [INF], [-INF], [INF, -INF], [NAN, INF, 0]):
        array = numbers.copy()
        array.flat[: len(bad)] = bad
        count = len(bad) - bad.count(0)
        found = refusal(check_values, pixel_values=None, noise=array)
        assert found == f"noise: expected finite numbers, got {count} of 6 NaN or infinite."


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_are_numbers(dtype):
    largest = np.full(100, ml_dtypes.finfo(dtype).max, dtype)  # whose sum is not a float64 in the last case
    check_values("Model", pixel_values=np.concatenate([largest, -largest]), noise=largest)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float32, ml_dtypes.bfloat16])
def test_masks_are_from_zero_to_one(dtype):
    fits = np.array([[0, 1], [1, 0]]).astype(dtype)
    check_values("Model", bool_masked_pos=fits)
    check_values("Model", bool_masked_pos=fits[:0])
    if dtype is not bool:
        found = refusal(check_values, bool_masked_pos=fits * dtype(2))
        assert found.startswith("bool_masked_pos: expected values from 0 to 1, got 0")
        check_values("Model", noise=fits * dtype(2))
    if np.dtype(dtype).kind not in "bu":
        assert "from 0 to 1, got -1" in refusal(check_values, bool_masked_pos=-fits)


def test_masks_may_blend():
    check_values("Model", bool_masked_pos=np.array([[0.25, 1.0]]))
    assert "NaN" in refusal(check_values, bool_masked_pos=np.array([[NAN, 1.0]]))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8])
def test_class_indices(dtype):
    signed = np.dtype(dtype).kind == "i"
    for fits in ([0, 4], [4], [[0], [1]], [-100, 3] if signed else [0]):
        check_class_indices("Model", np.array(fits, dtype), 5)
    wanted = "labels: expected class indices from 0 to 4 (or -100 to ignore one), got "
    for bad, low, high in (
        ([5], 5, 5),
        ([0, 7, 1], 0, 7),
        *([([-1, 2], -1, 2), ([-100, -99], -99, -99)] if signed else []),
    ):
        assert refusal(check_class_indices, np.array(bad, dtype), 5) == f"{wanted}{low} to {high}."
    nothing = "labels: every label is -100 (ignored), so there is no loss to compute."
    for bad in ([-100, -100], []) if signed else ([],):
        assert refusal(check_class_indices, np.array(bad, dtype), 5) == nothing


def test_checked_is_a_block():
    assert not is_checked()
    with checked():
        assert is_checked()
        with checked():
            assert is_checked()
        assert is_checked()
    assert not is_checked()
    with pytest.raises(ZeroDivisionError), checked():
        _ = 1 / 0
    assert not is_checked()


def test_every_unknown_side_passes():
    for shape in product((2, None), (3, None), (8, None), (12, None)):
        if shape[1] == 3:
            assert check_pixel_values("Model", config(), shape, is_float=True, interpolate=False) is FIRST


# The errors themselves


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("CheckpointError", ValueError),
        ("MissingFileError", FileNotFoundError),
        ("UnsafeFileError", ValueError),
        ("ImageError", ValueError),
        ("MissingImageError", FileNotFoundError),
        ("InputError", ValueError),
        ("BackendError", ImportError),
    ],
)
def test_errors_are_built_from_one_string_and_are_the_builtin_that_fits(name, builtin):
    cls = getattr(errors, name)
    assert issubclass(cls, errors.VitError) and issubclass(cls, builtin)
    again = pickle.loads(pickle.dumps(cls("what\nwhy")))
    assert (type(again), str(again), again.args, again.ag_pass_through) == (cls, "what\nwhy", ("what\nwhy",), True)
