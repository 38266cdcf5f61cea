"""Bad inputs are refused by name, in at most three lines, however a model is called."""

import numpy as np
import pytest
from small_models import PATCHES

from vit_core import InputError


def check_refused(
    backend,
    name: str,
    *needles: str,
    in_graphs: bool = True,
    options: dict | None = None,
    fields: dict | None = None,
    **changes,
) -> None:
    """Each way to call the model refuses the changed inputs; `in_graphs`, what shapes and dtypes alone tell."""
    model = backend.make_model(name, options=options, **(fields or {}))
    changed = {key: backend.native(v) if isinstance(v, np.ndarray) else v for key, v in changes.items()}
    inputs = {**backend.make_inputs(name), **changed}
    for way, call in backend.refusals(model, inputs, in_graphs).items():
        with pytest.raises(InputError) as caught:
            call()
        assert [needle for needle in needles if needle not in str(caught.value)] == [], way
        assert len(str(caught.value).splitlines()) <= 3, way


@pytest.mark.every_day("torch", "ViTModel")
@pytest.mark.parametrize(
    ("shape", "needles"),
    [
        ((2, 4, 12, 20), ("(batch, 3, height, width)", "(2, 4, 12, 20)")),
        ((3, 12, 20), ("(3, 12, 20)",)),
        ((2, 3, 12, 24), ("12x20", "12x24", "interpolate_pos_encoding")),
        ((2, 12, 24, 3), ("12x24",)),
    ],
)
def test_images_of_another_shape_are_refused(backend, name, shape, needles):
    check_refused(backend, name, "pixel_values", *needles, pixel_values=np.zeros(shape, np.float32))


@pytest.mark.every_day("torch", "ViTModel")
def test_images_of_another_kind_are_refused(backend, name):
    integers, broken = np.zeros((2, 3, 12, 20), np.uint8), np.zeros((2, 3, 12, 20), np.float32)
    broken[1, 2, 3, 4] = np.nan
    check_refused(backend, name, "pixel_values", "image processor", pixel_values=integers)
    check_refused(backend, name, "pixel_values", "None", pixel_values=None)
    check_refused(backend, name, "pixel_values", "1 of 1440", in_graphs=False, pixel_values=broken)


def test_an_image_smaller_than_a_patch_is_refused(backend, name):
    changes = {"pixel_values": np.zeros((2, 3, 3, 20), np.float32), "interpolate_pos_encoding": True}
    check_refused(backend, name, "one patch of 4x4", "3x20", **changes)


@pytest.mark.every_day("torch", "ViTModel")
@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 3), (2, 3, 1)])
def test_head_mask_of_another_shape_is_refused(backend, name, shape):
    check_refused(backend, name, "head_mask", "(2, 3)", head_mask=np.ones(shape, np.float32))


@pytest.mark.every_day("torch", "shape1")
@pytest.mark.parametrize("shape", [(1, PATCHES), (2, PATCHES + 1), (2, PATCHES, 1)])
@pytest.mark.parametrize(
    ("name", "argument"),
    [("ViTForMaskedImageModeling", "bool_masked_pos"), ("ViTMAEModel", "noise"), ("ViTMAEForPreTraining", "noise")],
)
def test_values_per_patch_of_another_shape_are_refused(backend, name, argument, shape):
    check_refused(backend, name, argument, f"(2, {PATCHES})", **{argument: np.zeros(shape, np.float32)})


def test_masked_positions_are_checked(backend):
    masked = np.zeros((2, PATCHES), np.float32)
    name, needles = "ViTModel", ("bool_masked_pos", "use_mask_token=True")
    check_refused(backend, name, *needles, in_graphs=False, bool_masked_pos=masked)
    options, beyond = {"use_mask_token": True}, masked.astype(int) + 2
    check_refused(backend, name, "0 to 1", "2", in_graphs=False, options=options, bool_masked_pos=beyond)
    name, fields = "ViTForMaskedImageModeling", {"encoder_stride": 2}
    check_refused(backend, name, "encoder_stride", "2", "4", fields=fields, bool_masked_pos=masked)


@pytest.mark.every_day("torch", "ViTMAEModel")
@pytest.mark.parametrize("name", ["ViTMAEModel", "ViTMAEForPreTraining"])
def test_mask_ratios_are_checked(backend, name):
    for ratio in (1.0, -0.5, 0.99, float("nan")):
        check_refused(backend, name, "mask_ratio", mask_ratio=ratio)
    noise = np.full((2, PATCHES), np.nan, np.float32)
    check_refused(backend, name, "noise", "NaN", in_graphs=False, noise=noise)


def test_a_loss_needs_something_masked(backend):
    name = "ViTMAEForPreTraining"
    check_refused(backend, name, "mask_ratio", "no loss", mask_ratio=0)
    model, pixel_values = backend.make_model(name), backend.make_inputs(name)["pixel_values"]
    predicted, mask = (backend.native(np.zeros(shape, np.float32)) for shape in ((2, PATCHES, 48), (2, PATCHES)))
    with pytest.raises(InputError, match="mask removes no patch"):
        model.forward_loss(pixel_values, predicted, mask)


@pytest.mark.parametrize(
    ("fields", "labels", "needles"),
    [
        ({}, [1, 5], ("0 to 4", "5")),
        ({}, [1, -1], ("0 to 4", "-1")),
        ({}, [-100, -100], ("-100",)),
        ({}, [1], ("(1,)",)),
        ({}, [0.5, 1.0], ("(2, 5)", "(2,)")),
        ({"problem_type": "single_label_classification"}, [0.5, 1.0], ("integers",)),
        ({"num_labels": 0}, [0, 1], ("num_labels is 0",)),
    ],
)
def test_labels_that_do_not_fit_are_refused(backend, fields, labels, needles):
    name, labels = "ViTForImageClassification", np.array(labels)
    check_refused(backend, name, "labels", *needles, in_graphs=False, fields=fields, labels=labels)


def test_the_wrong_configuration_is_refused(backend):
    cls = backend.cls("ViTModel")
    with pytest.raises(InputError, match=rf"{cls.__name__}: expected a ViTConfig, got ViTMAEConfig"):
        cls(backend.make_config("ViTMAEModel"))
    with pytest.raises(InputError, match="from_pretrained"):
        cls("google/vit-base-patch16-224")
