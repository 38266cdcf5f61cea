"""What a recipe computes outside the model: the same bits for everybody, and what the papers say."""

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vit_core import InputError, ViTConfig, ViTMAEConfig
from vit_core.parameters import parameter_table
from vit_core.training import Augmentation, Draws, Optimisation, Schedule, mixed, parameter_groups, soft_targets

CONFIG = ViTConfig(hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20, num_labels=5)
# of seed 7, written down once
UNIFORM = [0.04131998993050867, 0.5620503217915916, 0.7306556013095644]
ORDER = [7, 3, 0, 6, 5, 1, 2, 4]
BYTES = [[0, 170, 12], [214, 92, 214]]
BETA = [0.025517284870147705, 0.0023116469383239746, 0.9924295544624329]


# --- draws -----------------------------------------------------------------------------------------------------------


def test_draws_are_these_numbers_everywhere():
    draws = Draws(7, "crop", 3, 11)
    np.testing.assert_array_equal([draws.uniform() for _ in range(3)], UNIFORM)
    np.testing.assert_array_equal(Draws(7, "order", 3).order(8), ORDER)
    np.testing.assert_array_equal(Draws(7, "erase", 3, 11).bytes(2, 3), BYTES)
    np.testing.assert_array_equal([Draws(7, "mixing", step).beta(0.8) for step in range(3)], BETA)


@pytest.mark.parametrize(
    "other", [(8, "crop", 3, 11), (7, "flip", 3, 11), (7, "crop", 4, 11), (7, "crop", 3, 12), (7, "crop", 11, 3)]
)
def test_other_seeds_purposes_and_places_draw_other_numbers(other):
    one, two = ([draws.uniform() for _ in range(4)] for draws in (Draws(7, "crop", 3, 11), Draws(*other)))
    assert not set(one) & set(two)


def test_draws_are_spread_as_they_should_be():
    draws = Draws(0, "spread")
    uniform = np.array([draws.uniform(2, 5) for _ in range(4000)])
    assert uniform.min() >= 2
    assert uniform.max() < 5
    np.testing.assert_allclose([uniform.mean(), uniform.std()], [3.5, 3 / math.sqrt(12)], rtol=0.03)
    assert sorted(Draws(0, "order").order(50).tolist()) == [*range(50)]
    counts = Counter(draws.below(6) for _ in range(6000))
    assert sorted(counts) == [*range(6)]
    np.testing.assert_allclose([*counts.values()], 1000, rtol=0.15)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_beta_has_its_mean_and_variance(alpha):
    draws = Draws(1, "beta")
    numbers = np.array([draws.beta(alpha) for _ in range(3000)])
    np.testing.assert_allclose(numbers.mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(numbers.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.1)


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(InputError, match="seed"):
        Draws(-1, "crop")
    with pytest.raises(InputError, match="place"):
        Draws(0, "crop", 2**64)


# --- schedules -------------------------------------------------------------------------------------------------------


def test_the_rate_rises_evenly_then_falls_to_its_end():
    schedule = Schedule(rate=8.0, steps=11, warmup=3, final=1.0)
    rates = [schedule(step) for step in range(11)]
    np.testing.assert_allclose(rates[:4], [2, 4, 6, 8])
    np.testing.assert_allclose(rates[7], 4.5)  # half-way
    np.testing.assert_allclose(rates[10], 1 + 7 * (1 + math.cos(math.pi * 7 / 8)) / 2)
    linear = Schedule(rate=8.0, steps=11, warmup=3, final=0.0, kind="linear")
    np.testing.assert_allclose([linear(step) for step in range(3, 11)], 8 - np.arange(8.0))
    assert {Schedule(rate=8.0, steps=5, kind="constant")(step) for step in range(5)} == {8.0}


@pytest.mark.parametrize(
    "wrong", [{"kind": "step"}, {"warmup": 10}, {"warmup": -1}, {"final": 3.0}, {"rate": math.inf}, {"rate": math.nan}]
)
def test_a_schedule_that_is_none_is_refused(wrong):
    with pytest.raises(InputError):
        Schedule(**{"rate": 1.0, "steps": 10, **wrong})


@pytest.mark.parametrize("step", [-1, 10])
def test_a_step_outside_the_run_is_refused(step):
    with pytest.raises(InputError, match="from 0 to 9"):
        Schedule(rate=1.0, steps=10)(step)


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "cls"),
    [
        (CONFIG, "ViTForImageClassification"),
        (CONFIG, "ViTForMaskedImageModeling"),
        (ViTMAEConfig(num_hidden_layers=2), "ViTMAEForPreTraining"),
    ],
)
@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_every_trainable_parameter_is_in_one_group(config, cls, layer_decay):
    groups = parameter_groups(config, cls, weight_decay=0.05, layer_decay=layer_decay)
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(name for name, row in parameter_table(config, cls).items() if row.trainable)
    assert len(groups) == (2 if layer_decay == 1 else 2 * (config.num_hidden_layers + 2))


def test_weights_of_layers_are_decayed_and_nothing_else():
    groups = parameter_groups(CONFIG, "ViTForMaskedImageModeling", weight_decay=0.05)
    decay = {name: group.weight_decay for group in groups for name in group.names}
    for name, value in decay.items():
        is_weight = name.endswith("weight") and "norm" not in name
        assert value == (0.05 if is_weight else 0.0), name
    for token in ("cls_token", "mask_token", "position_embeddings"):
        assert decay[f"vit.embeddings.{token}"] == 0.0


def test_early_layers_learn_more_slowly():
    groups = parameter_groups(CONFIG, "ViTForImageClassification", weight_decay=0.05, layer_decay=0.5)
    scale = {name: group.scale for group in groups for name in group.names}
    assert scale["vit.embeddings.cls_token"] == scale["vit.embeddings.patch_embeddings.projection.weight"] == 0.5**4
    for layer in range(3):
        assert scale[f"vit.encoder.layer.{layer}.output.dense.bias"] == 0.5 ** (3 - layer)
    assert scale["vit.layernorm.weight"] == scale["classifier.weight"] == 1.0
    assert [group.scale for group in groups] == sorted(group.scale for group in groups)


def test_freezing_leaves_out_what_does_not_learn():
    def names(freeze):
        groups = parameter_groups(CONFIG, "ViTForImageClassification", weight_decay=0.0, layer_decay=0.9, freeze=freeze)
        return {name for group in groups for name in group.names}

    assert names("encoder") == {"classifier.weight", "classifier.bias"}
    assert names(None) - names(0) == {name for name in names(None) if "embeddings" in name}
    assert names(0) - names(2) == {name for name in names(None) if ".layer.0." in name or ".layer.1." in name}


@pytest.mark.parametrize(
    "wrong", [{"layer_decay": 0.0}, {"layer_decay": 1.1}, {"weight_decay": -1.0}, {"freeze": 4}, {"freeze": "all"}]
)
def test_groups_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        parameter_groups(CONFIG, "ViTForImageClassification", **{"weight_decay": 0.05, **wrong})


# --- mixing ----------------------------------------------------------------------------------------------------------


def test_smoothed_targets_are_shares_of_classes():
    targets = soft_targets(np.array([2, 0]), 4, smoothing=0.1)
    np.testing.assert_allclose(targets, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    np.testing.assert_array_equal(soft_targets(np.array([1]), 3), [[0, 1, 0]])
    assert targets.dtype == np.float32


@pytest.mark.parametrize("wrong", [[4], [-1], [[1]], [1.0]])
def test_labels_that_are_no_classes_are_refused(wrong):
    with pytest.raises(InputError, match="labels"):
        soft_targets(np.array(wrong), 4)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_and_targets_are_mixed_by_one_share(kind):
    images = np.broadcast_to(np.arange(5, dtype=np.float32)[:, None, None, None], (5, 2, 8, 12)).copy()
    targets = np.eye(5, dtype=np.float32)
    asked = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    shares = set()
    for step in range(30):
        mixture, shared = mixed(images, targets, 3, step, **asked)
        np.testing.assert_allclose(mixture.mean(axis=(1, 2, 3)), shared @ np.arange(5), rtol=1e-5)
        np.testing.assert_allclose(shared.sum(axis=1), 1, rtol=1e-6)
        if kind == "cutmix":
            assert set(np.unique(mixture[0])) <= {0, 4}
        shares.add(round(float(shared[0, 0]), 4))
    assert len(shares) > 15
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(5))  # as they were


def test_both_kinds_take_turns_and_equal_steps_are_equal():
    images, targets = np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4), np.eye(2, dtype=np.float32)
    found = [mixed(images, targets, 0, step) for step in range(40)]
    cuts = sum(bool((mixture == images).any()) for mixture, _ in found)
    assert 8 < cuts < 32
    for step in (0, 17):
        for one, other in zip(mixed(images, targets, 0, step), found[step], strict=True):
            np.testing.assert_array_equal(one, other)
    assert mixed(images, targets, 0, 0, mixup=0, cutmix=0) == (images, targets)


def test_a_batch_that_does_not_fit_its_targets_is_refused():
    with pytest.raises(InputError, match="mixed"):
        mixed(np.zeros((3, 3, 4, 4), np.float32), np.eye(2, dtype=np.float32), 0, 0)


# --- augmentation ----------------------------------------------------------------------------------------------------


def picture(height=40, width=60):
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return (ramp + 40 * np.sin(np.arange(width))[None, :, None]).clip(0, 255).astype(np.uint8)


EVERYTHING = Augmentation(size=(24, 32), operations=2, colour=0.4, erase=0.5)


def test_a_variation_depends_on_seed_epoch_and_image_alone():
    first = EVERYTHING(picture(), 1, 2, 3)
    assert (first.shape, first.dtype) == ((24, 32, 3), np.uint8)
    np.testing.assert_array_equal(EVERYTHING(picture(), 1, 2, 3), first)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (EVERYTHING(picture(), *other) != first).any()


def test_gray_images_stay_gray():
    gray = picture()[..., 0].copy()
    for index in range(30):  # which meets most operations
        assert EVERYTHING(gray, 0, 0, index).shape == (24, 32)


def test_nothing_asked_for_is_a_plain_resize():
    pixels, plain = picture(30, 30), Augmentation(size=12, area=(1, 1), shape=(1, 1), mirror=0)
    resized = Image.fromarray(pixels).resize((12, 12), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(plain(pixels, 0, 0, 0), np.array(resized))
    mirrored = Augmentation(size=12, area=(1, 1), shape=(1, 1), mirror=1)
    np.testing.assert_array_equal(mirrored(pixels, 0, 0, 0), np.array(resized)[:, ::-1])


def test_crops_show_the_asked_share_of_the_image():
    gradient = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 200, 3)).copy()
    crop = Augmentation(size=50, area=(0.25, 0.25), shape=(1, 1), mirror=0)
    for index in range(10):
        rows = crop(gradient, 0, 0, index)[:, 0, 0].astype(int)
        assert 93 <= rows[-1] - rows[0] <= 100  # half of the side


@pytest.mark.parametrize("sides", [(1, 1), (1, 300), (300, 1), (2, 5)])
def test_images_in_which_no_crop_fits_are_shown_at_their_centre(sides):
    assert EVERYTHING(picture(*sides), 0, 0, 0).shape == (24, 32, 3)


def test_every_operation_changes_the_image_and_keeps_its_size():
    from vit_core.training.augmentation import _OPERATIONS

    image = Image.fromarray((picture() // 2 + 30).astype(np.uint8))
    for name, operation in _OPERATIONS.items():
        for strength in (-0.9, 0.9):
            changed = operation(image, strength)
            assert (changed.size, changed.mode) == (image.size, image.mode), name
            assert (np.array(changed) != np.array(image)).any(), name


def test_erased_boxes_have_the_asked_size():
    erase = Augmentation(size=60, area=(1, 1), shape=(1, 1), mirror=0, erase=1.0)
    shares = [float((erase(np.zeros((60, 60, 3), np.uint8), 0, 0, i) > 0).any(axis=2).mean()) for i in range(40)]
    assert min(shares) > 0.01
    assert max(shares) < 0.36
    assert max(shares) - min(shares) > 0.15
    kept = Augmentation(size=60, area=(1, 1), shape=(1, 1), mirror=0, erase=0.0)
    assert not kept(np.zeros((60, 60, 3), np.uint8), 0, 0, 0).any()


@pytest.mark.parametrize(
    "wrong",
    [{"mirror": 1.5}, {"area": (0.5, 0.2)}, {"area": (0.0, 1.0)}, {"size": 0}, {"magnitude": 11.0}, {"operations": -1}],
)
def test_augmentations_that_are_none_are_refused(wrong):
    with pytest.raises(InputError):
        Augmentation(**wrong)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_no_images(pixels):
    with pytest.raises(InputError, match="uint8"):
        EVERYTHING(pixels, 0, 0, 0)


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"average": 1.0}, "average"),
        ({"clip": 0.0}, "clip"),
        ({"accumulate": 0}, "accumulate"),
        ({"accumulate": True}, "accumulate"),
        ({"precision": "int8"}, "float32, bfloat16, float16"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"seed": -1}, "seed"),
    ],
)
def test_optimisations_that_are_none_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        Optimisation(**wrong)
