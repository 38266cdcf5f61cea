"""Recipes: what the papers say, read as they were written, refused by name; and the batches that they give."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from vit_core import InputError, ViTConfig, ViTImageProcessor, ViTMAEConfig
from vit_core.config.presets import PRESETS
from vit_core.images import decoding
from vit_core.masking import drop_path_mask
from vit_core.training.data import DataSet
from vit_core.training.feeding import Feed
from vit_core.training.published import published, size_of
from vit_core.training.recipe import Recipe, read_recipe, recipe_of

RECIPE = Recipe("classification", "photos", "torch", epochs=3, rate=1e-3, model="digits-vit", batch_size=4)
MIXED = replace(RECIPE, mixup=0.8, cutmix=1.0, smoothing=0.1, operations=2, colour=0.4, erase=0.5, class_weights=True)
SMALL = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
CONFIG = ViTConfig(**SMALL, image_size=(8, 12), patch_size=4, num_labels=3)
LEVELS = np.random.default_rng(2).integers(0, 256, (10, 9, 11, 3), np.uint8)


def feed(recipe=RECIPE, config=CONFIG, levels=LEVELS, rows=None):
    names, labels = [f"image {row}" for row in range(len(levels))], np.arange(len(levels)) % 3
    data = DataSet("made up", names, levels.__getitem__, labels, ("a", "b", "c"))
    processor = ViTImageProcessor(size={"height": 8, "width": 12})
    return Feed(recipe, config, processor, data, np.arange(len(levels)) if rows is None else np.array(rows))


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ['a "b" \\c', "tab\tand \x7f DEL", "日本 😀", "line\nbreak"])
def test_a_recipe_is_read_as_it_was_written(odd, tmp_path):
    written = replace(MIXED, data=odd, freeze=2, clip=1.0, average=0.999, rate=1.25e-05, held_out="other/folder")
    (tmp_path / "recipe.toml").write_text(written.text(), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml") == written


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("version = 2", "expected a recipe of version 1, got 2"),
        ("", "expected a recipe of version 1, got None"),
        ("version = 1\nmixupp = 0.8", "there is no 'mixupp'; there are objective, data"),
        ("version = 1\nclip = 'no'", "clip: expected a number, got 'no'"),
        ("version = 1\nseed = true", "seed: expected a whole number, got True"),
        ("version = 1\nbetas = [0.9]", "betas: expected two numbers"),
        ("version = 1\nprecision = 'int4'", "expected 'float32' or 'bfloat16' or 'float16', got 'int4'"),
        ("version = 1\naverage = nan", "average: expected a number, got nan"),
        ("version = 1\nmagnitude = 11", "a magnitude up to 10"),
        ("version = 1\nconfig = 'vit-tiny-patch16-224'", "expected a model to start from, or the config"),
        ("version = 1\nbatch_size = 0", "batch_size: expected at least 1, got 0"),
        ("version = 1\ndrop_path = 1.0", "drop_path: expected a number in"),
        ("version = 1\nrate", "not a recipe in TOML"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(line, message, tmp_path):
    values = {"objective": "classification", "data": "a", "backend": "tf", "epochs": 1, "rate": 0.1, "model": "b"}
    text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    (tmp_path / "recipe.toml").write_text(f"{line}\n{text}")
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / "recipe.toml")
    assert message in str(caught.value)
    assert "recipe.toml" in str(caught.value)


def test_what_every_recipe_has_is_asked_for():
    with pytest.raises(InputError, match="no rate, which every recipe has"):
        recipe_of({"objective": "mae", "data": "a", "backend": "tf", "epochs": 1})


def test_what_differs_is_named():
    assert replace(RECIPE, seed=1, clip=2.0).differing(RECIPE) == ["seed (0, now 1)", "clip (None, now 2.0)"]
    assert RECIPE.differing(RECIPE) == []


# --- the defaults ----------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_papers_by_size():
    for name, fields in PRESETS["vit"].items():
        assert size_of(ViTConfig(**fields)) == name.split("-")[1]
    widths = {"small": 384, "base": 768, "huge": 1280}
    tuned = {
        size: published("classification", ViTConfig(hidden_size=width, num_attention_heads=4), is_fresh=False)
        for size, width in widths.items()
    }
    assert [tuned[size]["drop_path"] for size in tuned] == [0.0, 0.1, 0.3]
    assert [tuned[size]["epochs"] for size in tuned] == [100, 100, 50]
    np.testing.assert_allclose([tuned[size]["epochs"] * tuned[size]["warmup"] for size in tuned], 5)
    mim, fresh = (published(each, ViTConfig(), is_fresh=True) for each in ("mim", "classification"))
    np.testing.assert_allclose([each["epochs"] * each["warmup"] for each in (mim, fresh)], [10, 5])
    mae = published("mae", ViTMAEConfig(), is_fresh=True)
    assert (mae["rate"], mae["betas"], mae["mask_ratio"], mae["epochs"] * mae["warmup"]) == (
        1.5e-4,
        (0.9, 0.95),
        0.75,
        40,
    )
    for objective, is_fresh in (("mae", True), ("mim", True), ("classification", True), ("classification", False)):
        fields = published(objective, ViTConfig(hidden_size=768), is_fresh=is_fresh)
        found = recipe_of({"objective": objective, "data": "a", "backend": "tf", "model": "b", **fields})
        assert {name: asdict(found)[name] for name in fields} == fields


def test_the_rate_goes_by_the_batch_and_the_warm_up_by_the_run():
    rates = replace(RECIPE, batch_size=512, warmup=0.1).learning_rates(100)
    np.testing.assert_allclose([rates(0), rates(9), rates(10)], [2e-3 / 11, 2e-2 / 11, 2e-3])
    assert replace(RECIPE, warmup=0.9).learning_rates(1)(0) > 0
    assert replace(RECIPE, clip=3.0, freeze="encoder").optimisation().freeze == "encoder"


# --- the batches -----------------------------------------------------------------------------------------------------


def test_every_image_is_seen_once_in_an_epoch_in_an_order_of_its_own():
    found = [*feed().training()]
    assert [fed.number for fed in found] == [*range(9)] and feed().steps == 9
    assert [len(fed.names) for fed in found] == [4, 4, 2] * 3
    epochs = [[name for fed in found[start : start + 3] for name in fed.names] for start in (0, 3, 6)]
    assert all(sorted(names) == sorted(feed().data.names) for names in epochs)
    assert len({tuple(names) for names in epochs}) == 3


@pytest.mark.parametrize("objective", ["classification", "mae", "mim"])
@pytest.mark.parametrize("first", [0, 4, 8])
def test_a_run_that_goes_on_sees_what_it_would_have_seen(objective, first, monkeypatch):
    whole = [*feed(replace(MIXED, objective=objective)).training()]
    monkeypatch.setattr(decoding, "_cores", lambda: 7)
    rest = [*feed(replace(MIXED, objective=objective)).training(first)]
    assert [fed.names for fed in rest] == [fed.names for fed in whole[first:]]
    for one, other in zip(rest, whole[first:], strict=True):
        for name, array in one.batch._asdict().items():
            np.testing.assert_array_equal(array, getattr(other.batch, name), err_msg=name)


def test_images_that_cannot_be_used_leave_the_others_where_they_are():
    small = np.zeros((3, 3, 3), np.uint8)
    levels = [*LEVELS]
    whole = [*feed().training()]
    levels[5] = small

    class Images(list):
        shape = (10,)

    found = [*feed(levels=Images(levels)).training()]
    for one, other in zip(found, whole, strict=True):
        kept = [place for place, name in enumerate(other.names) if name != "image 5"]
        assert [*one.names] == [other.names[place] for place in kept]
        np.testing.assert_array_equal(one.batch.pixel_values, other.batch.pixel_values[kept])
        if len(kept) < len(other.names):
            assert one.skipped == {"image 5": "3x3 pixels, less than one patch of the model (4x4)."}
    assert sum(len(fed.skipped) for fed in found) == 3
    (only,) = feed(levels=Images([small, small])).judging(feed(levels=Images([small, small])).data, np.array([0, 1]))
    assert (only.batch, len(only.skipped)) == (None, 2)


def test_judging_takes_images_as_they_are_and_masks_them_alike():
    held = feed(replace(MIXED, objective="mae"))
    one, two = ([*held.judging(held.data, np.array([3, 1, 8, 9, 0]))] for _ in range(2))
    assert [fed.names for fed in one] == [("image 3", "image 1", "image 8", "image 9"), ("image 0",)]
    np.testing.assert_array_equal(one[0].labels, [0, 1, 2, 0])
    expected = held.processor(LEVELS[3], input_data_format="channels_last")["pixel_values"][0]
    np.testing.assert_array_equal(one[0].batch.pixel_values[0], expected)
    np.testing.assert_array_equal(one[0].batch.noise, two[0].batch.noise)
    assert one[0].batch.targets is None and one[0].batch.noise.shape == (4, 6)


def test_targets_weigh_classes_and_masks_hide_a_share():
    (fed, *_) = feed(replace(RECIPE, class_weights=True)).training()
    weights = 10 / (3 * np.array([4, 3, 3]))
    np.testing.assert_allclose(fed.batch.targets, np.eye(3)[fed.labels] * weights, rtol=1e-6)
    (fed, *_) = feed(replace(RECIPE, objective="mim", mask_ratio=0.6)).training()
    np.testing.assert_array_equal(fed.batch.bool_masked_pos.sum(axis=1), [4] * 4)
    assert len({row.tobytes() for row in fed.batch.bool_masked_pos}) > 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 1), (9, 11, 3)])
def test_gray_and_colour_images_fit_gray_and_colour_models(channels, shape):
    config = ViTConfig(**SMALL, image_size=(8, 12), patch_size=4, num_channels=channels, num_labels=3)
    levels = LEVELS[..., 0].reshape(10, 9, 11) if len(shape) == 2 else LEVELS[..., : shape[2]]
    found = feed(config=config, levels=levels)
    found = replace(
        found,
        processor=ViTImageProcessor(
            size={"height": 8, "width": 12}, image_mean=[0.5] * channels, image_std=[0.5] * channels
        ),
    )
    assert {fed.batch.pixel_values.shape[1:] for fed in found.training()} == {(channels, 8, 12)}
    assert {fed.batch.pixel_values.shape[1:] for fed in found.judging(found.data, found.rows)} == {(channels, 8, 12)}


def test_a_batch_says_which_branches_are_left_out():
    config = ViTConfig(**SMALL, image_size=(8, 12), patch_size=4, num_labels=3, drop_path_rate=0.5)
    batches = [fed.batch for fed in feed(config=config).training()]
    masks = [drop_path_mask(RECIPE.seed, 4, config.drop_path_rates, step) for step in range(len(batches))]
    assert len({mask.tobytes() for mask in masks}) > 1
    for batch, mask in zip(batches, masks, strict=True):
        np.testing.assert_array_equal(batch.drop_path_mask, mask[:, :, : len(batch.pixel_values)])
    assert all(fed.batch.drop_path_mask is None for fed in feed().training())
