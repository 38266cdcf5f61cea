"""`vitriad attend` and `vitriad reconstruct`: what is drawn, and what is refused before anything is written."""

from types import SimpleNamespace

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

from vit_core import ViTImageProcessor, ViTMAEConfig
from vit_core.masking import noise
from vit_core.reference import patchify
from vitriad import models, reconstruct, viewing
from vitriad.cli import main

DIGITS = [str(path) for path in models.digit_files()[::7]]
COMMANDS = {"attend": "digits-vit", "reconstruct": "digits-vit-mae"}


def picture(command, out, *options):
    assert main([command, *DIGITS, "--out", str(out), *options]) == 0
    with Image.open(out) as drawn:
        return np.asarray(drawn).astype(int)


@pytest.mark.every_day("attend")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_backend_draws_the_same(command, tmp_path):
    first, *others = [picture(command, tmp_path / f"{name}.png", "--backend", name) for name in INSTALLED]
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100
    for other in others:
        np.testing.assert_allclose(other, first, atol=1)  # what rounds up in one may round down in another
    again = picture(command, tmp_path / "again.png", "--backend", INSTALLED[0])
    np.testing.assert_array_equal(again, first)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / f"{INSTALLED[0]}.png").read_bytes()


def test_maps_are_finer_for_larger_images(tmp_path):
    coarse = picture("attend", tmp_path / "coarse.png", "--layer", "0")
    fine = picture("attend", tmp_path / "fine.png", "--image-size", "32", "--layer", "-3")
    assert fine.shape == coarse.shape and (fine != coarse).any()
    picture("attend", tmp_path / "mae.png", "--model", "digits-vit-mae")


def test_a_mask_and_a_seed_say_which_patches_are_removed(tmp_path, capsys):
    by_seed = picture("reconstruct", tmp_path / "seed.png", "--seed", "5", "--mask-ratio", "0.5")
    order = np.argsort(noise(5, 1, 16)[0], kind="stable")
    cells = np.isin(np.arange(16), order[8:]).reshape(4, 4)
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray((cells * 255).astype(np.uint8)).save(small)
    Image.fromarray(np.kron(cells, np.full((4, 4), 255)).astype(np.uint8)).save(large)
    tiles = slice(0, 44 + 3 * 266 - 10)  # without the notes, which name the mask
    for file in (small, large):
        by_mask = picture("reconstruct", tmp_path / f"by-{file.name}", "--mask", str(file))
        np.testing.assert_array_equal(by_mask[tiles], by_seed[tiles])
    assert "mean squared error on removed patches" in capsys.readouterr().out


@pytest.mark.parametrize("normalised", [False, True])
def test_a_perfect_decoder_gives_the_image_back(normalised):
    """norm_pix_loss is undone with the statistics that the loss itself normalises by."""
    pixels = np.random.default_rng(0).standard_normal((2, 3, 8, 12))
    target = patchify(pixels, (4, 4))
    mean, variance = target.mean(axis=-1, keepdims=True), target.var(axis=-1, keepdims=True, ddof=1)
    logits = (target - mean) / np.sqrt(variance + 1e-6) if normalised else target
    output = SimpleNamespace(logits=logits, mask=np.ones((2, 6)), loss=np.zeros(()))

    def model(**_):
        return output

    model.config = ViTMAEConfig(image_size=(8, 12), patch_size=4, norm_pix_loss=normalised)
    painted, removed, _ = reconstruct.reconstruct(model, pixels)
    np.testing.assert_allclose(painted, pixels, atol=1e-9)
    assert removed.all()


@pytest.mark.parametrize("options", [{}, {"do_normalize": False}, {"do_rescale": False}])
def test_pixel_values_become_the_picture_again(options):
    processor = ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25], **options)
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    pixels = processor(picture, do_resize=False, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(viewing.photograph(pixels, processor), picture)


def refused(capsys, *command):
    assert main([*command]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_drawn_is_refused(command, tmp_path, capsys):
    out = str(tmp_path / "out.png")
    assert "expected the name of a .png file" in refused(capsys, command, *DIGITS, "--out", str(tmp_path / "out.jpg"))
    (tmp_path / "old.png").write_bytes(b"old")
    assert "something is there already" in refused(capsys, command, *DIGITS, "--out", str(tmp_path / "old.png"))
    (tmp_path / "empty").mkdir()
    assert "no image file in this folder" in refused(capsys, command, str(tmp_path / "empty"), "--out", out)
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert "no image that can be used" in refused(capsys, command, str(tmp_path / "bad.png"), "--out", out)
    assert {path.name for path in tmp_path.iterdir()} == {"old.png", "empty", "bad.png"}
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert main([command, DIGITS[0], str(tmp_path / "bad.png"), "--out", str(tmp_path / "old.png"), "--force"]) == 3
    assert "skipped" in capsys.readouterr().err


def test_models_without_what_is_drawn_are_refused(tmp_path, capsys):
    out = ("--out", str(tmp_path / "out.png"))
    assert "expected a masked autoencoder" in refused(capsys, "reconstruct", *DIGITS, "--model", "digits-vit", *out)
    encoder = viewing.load_encoder("digits-vit-mae", INSTALLED[0])
    encoder.save_pretrained(tmp_path / "encoder")
    text = refused(capsys, "reconstruct", *DIGITS, "--model", str(tmp_path / "encoder"), *out)
    assert "decoder" in text and "would paint noise" in text
    assert "--layer: expected 0 to" in refused(capsys, "attend", *DIGITS, "--layer", "9", *out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask-ratio", "1"], "mask_ratio: expected a number in"),
        (["--seed", "-1"], "seed: expected an int"),
        (["--mask", "MASK", "--mask-ratio", "0.5"], "give one of them"),
        (["--mask", "MASK"], "expected a mask of 4x4 pixels"),
        (["--mask", "PARTS"], "white in part"),
        (["--mask", "ALL"], "equally many removed patches"),
    ],
)
def test_masks_that_fit_no_image_are_refused(options, message, tmp_path, capsys):
    parts = np.zeros((16, 16), np.uint8)
    parts[0, 0] = 255
    pictures = {"MASK": np.zeros((3, 3), np.uint8), "PARTS": parts, "ALL": np.full((4, 4), 255, np.uint8)}
    for name, cells in pictures.items():
        Image.fromarray(cells).save(tmp_path / f"{name}.png")
    options = [str(tmp_path / f"{each}.png") if each in pictures else each for each in options]
    assert message in refused(capsys, "reconstruct", *DIGITS, *options, "--out", str(tmp_path / "out.png"))
