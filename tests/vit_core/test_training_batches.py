"""What a step of training is told and told to go on from: refused where it does not fit, cut into even parts."""

import numpy as np
import pytest

from vit_core import InputError, ViTConfig
from vit_core.parameters import MODEL_CLASSES
from vit_core.training import Optimisation, TrainingBatch
from vit_core.training.batches import arguments, parts
from vit_core.training.steps import check_state


def test_parameters_are_wide_enough_for_training_and_narrow_enough_for_the_precision():
    for dtype, precision in (("bfloat16", "float32"), ("float16", "float16"), ("float64", "bfloat16")):
        with pytest.raises(InputError, match=f"M: expected parameters in float32 .*'{precision}', got {dtype}"):
            Optimisation(precision=precision).check_dtype("M", dtype)
    for dtype, precision in (("float32", "float32"), ("float64", "float32"), ("float32", "float16")):
        Optimisation(precision=precision).check_dtype("M", dtype)


def batch_of(images=5, **fields):
    return TrainingBatch(np.zeros((images, 3, 8, 8), np.float32), **fields)


TARGETS, NOISE = np.full((5, 4), 0.25, np.float32), np.zeros((5, 4), np.float32)
MASK = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)


@pytest.mark.parametrize(
    ("cls", "fields", "said"),
    [
        ("ViTModel", {"targets": TARGETS}, "has no loss"),
        ("ViTForImageClassification", {}, "needs targets, got pixel_values"),
        (
            "ViTForImageClassification",
            {"targets": TARGETS[:, :3]},
            "expected .* \\(5, 4\\), floating, got float32 \\(5, 3",
        ),
        ("ViTForImageClassification", {"targets": TARGETS.astype(int)}, "floating, got int64"),
        ("ViTForImageClassification", {"targets": TARGETS, "noise": NOISE}, "no use for noise"),
        ("ViTForMaskedImageModeling", {"noise": NOISE}, "needs bool_masked_pos, got pixel_values, noise"),
        ("ViTMAEForPreTraining", {"noise": NOISE, "targets": TARGETS}, "no use for targets"),
    ],
)
def test_a_batch_that_is_not_for_its_class_is_refused(cls, fields, said):
    kind = type(cls, (), {})
    with pytest.raises(InputError, match=said):
        arguments(kind, MODEL_CLASSES[cls](num_labels=4), batch_of(**fields), training=True)


def test_paths_are_dropped_in_training_alone_and_targets_never_reach_the_model():
    kind, config = type("ViTForImageClassification", (), {}), ViTConfig(num_labels=4)
    batch = batch_of(targets=TARGETS, drop_path_mask=np.zeros((2, 2, 5), bool))
    assert [*arguments(kind, config, batch, training=True)] == ["pixel_values", "drop_path_mask"]
    assert [*arguments(kind, config, batch, training=False)] == ["pixel_values"]
    assert [*arguments(kind, config, batch_of(), training=False)] == ["pixel_values"]


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [3, 2]), (4, [2, 2, 1]), (9, [1, 1, 1, 1, 1])])
def test_parts_of_a_batch_are_even_and_their_shares_add_up(count, sizes):
    whole = batch_of(targets=TARGETS, drop_path_mask=np.arange(20).reshape(2, 2, 5) % 3 == 0)
    cut = parts(whole, count, ViTConfig())
    assert [len(part.pixel_values) for part, _ in cut] == sizes
    np.testing.assert_allclose([share for _, share in cut], np.array(sizes) / 5)
    np.testing.assert_array_equal(np.concatenate([part.drop_path_mask for part, _ in cut], 2), whole.drop_path_mask)
    masked = [share for _, share in parts(batch_of(bool_masked_pos=MASK), 2, ViTConfig(encoder_stride=4))]
    # by what the loss is a mean of: 6 and 4 patches of 16 pixels
    np.testing.assert_allclose(masked, [(96 + 1e-5) / (160 + 1e-5), (64 + 1e-5) / (160 + 1e-5)], rtol=1e-15)


@pytest.mark.parametrize(
    ("images", "count", "sizes"), [(7, 1, [6, 1]), (7, 2, [4, 2, 1]), (8, 2, [4, 4]), (1, 3, [1]), (6, 9, [2, 2, 2])]
)
def test_parts_divide_by_the_devices_but_for_what_is_left_over(images, count, sizes):
    cut = parts(TrainingBatch(np.zeros((images, 3, 4, 4))), count, ViTConfig(), 2)
    assert [len(part.pixel_values) for part, _ in cut] == sizes
    np.testing.assert_allclose([share for _, share in cut], np.divide(sizes, images))


def test_a_state_of_something_else_is_refused_by_the_names_that_differ():
    state = {"model.a": np.zeros(3, np.float32), "steps": np.zeros((), np.int64)}
    check_state("M", state, dict(state))
    for wrong, said in (
        ({"steps": state["steps"]}, "model.a missing"),
        ({**state, "average.a": state["model.a"]}, "average.a unknown"),
        ({**state, "model.a": np.zeros(4, np.float64)}, r"model.a is float64 \(4,\) instead of float32 \(3,\)"),
    ):
        with pytest.raises(InputError, match=said):
            check_state("M", state, wrong)
