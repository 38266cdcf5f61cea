"""What the image processor refuses, and that it says which image, what was wrong and what to do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusing import refusal

from vit_core.errors import ImageError, InputError
from vit_core.images.batch_feature import BatchFeature
from vit_core.images.processor import ViTImageProcessor
from vit_core.limits import LIMITS

GOOD = np.zeros((3, 8, 6), np.uint8)
UNIT = np.full((3, 8, 6), 0.3)


def refused(call, *words):
    message = refusal(call, ImageError)
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("cat.png", ("str", "vit_core.open_image(path)")),
        ("https://localhost/cat.png", ("str", "URLs", "vit_core.open_image(path)")),
        (Path("cat.png"), ("vit_core.open_image(path)",)),
        (b"\x89PNG", ("bytes", "vit_core.open_image(path)")),
        (3, ("int", "PIL image")),
        (None, ("NoneType",)),
        ({"image": GOOD}, ("dict",)),
        (np.uint8(3), ("()",)),
        (np.zeros((1, 1, 3, 8, 6), np.uint8), ("(1, 1, 3, 8, 6)",)),
        (np.zeros((5, 8, 6), np.uint8), ("1, 3 or 4 channels", "(5, 8, 6)", "input_data_format")),
        (np.zeros((0, 0, 3), np.uint8), ("at least one pixel", "(0, 0, 3)")),
        (np.zeros((3, 0, 5), np.uint8), ("at least one pixel",)),
        (Image.new("RGB", (0, 5)), ("at least one pixel",)),
        (GOOD.astype(object), ("dtype object", "np.uint8")),
        (GOOD.astype(bool), ("dtype bool", "np.uint8")),
        (GOOD.astype(complex), ("dtype complex128",)),
        (GOOD.astype("S1"), ("dtype |S1",)),
        (np.where(UNIT < 1, np.nan, UNIT), ("NaN",)),
        (UNIT - 1, ("0..1", "0..255", "-0.7", "do_resize=False")),
        (UNIT + 255, ("0..255", "255.3 to 255.3")),
        (GOOD.astype(int) + 256, ("256 to 256",)),
        (GOOD.astype(int) - 1, ("-1 to -1",)),
        (Image.new("La", (6, 8)), ("mode La", "Convert it to RGB first")),
    ],
)
def test_images(image, words):
    refused(lambda: ViTImageProcessor(size=4)(image), "image 0 of 1", *words)
    refused(lambda: ViTImageProcessor(size=4)([GOOD, GOOD, image]), "image 2 of 3")


def test_floats_that_the_reference_cannot_cut_to_8_bits():
    refused(lambda: ViTImageProcessor(size=4, compatible=True)(UNIT + 2.2), "0..1", "whole numbers", "2.5 to 2.5")
    assert len(ViTImageProcessor(size=4)(UNIT + 2.2)["pixel_values"]) == 1


def test_damaged_pil_image(tmp_path):
    picture = np.arange(30 * 20 * 3).reshape(30, 20, 3).astype(np.uint8)
    for name in ("JPEG", "PNG"):
        path = tmp_path / name
        Image.fromarray(picture).save(path, format=name)
        path.write_bytes(path.read_bytes()[:-40])
        with Image.open(path) as image:
            refused(lambda image=image: ViTImageProcessor(size=4)([image]), "image 0 of 1", "cannot be decoded")


@pytest.mark.parametrize("images", [[], (), [[], []], np.zeros((0, 3, 8, 6), np.uint8)])
def test_no_images(images):
    refused(lambda: ViTImageProcessor()(images), "at least one image")


def test_arrays_of_two_layouts():
    refused(
        lambda: ViTImageProcessor()([GOOD, GOOD.transpose(1, 2, 0)]), "image 1 of 2", "channels_first", "one layout"
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"size": size} for size in (0, -1, True, 2.0, "224", 16_385, (4,), (4, 5, 6), (4, 5.0), {"height": 4}, {})),
        *({"size": size} for size in ({"height": 4, "width": 0}, {"height": 4, "width": 4, "depth": 4}, [None, 4])),
        *({"resample": code} for code in (-1, 99, True, "bicubic", 2.5)),
        *({"rescale_factor": factor} for factor in (True, "1", np.nan, np.inf, 10**400)),
        *({name: value} for name in ("image_mean", "image_std") for value in ("0.5", [0.5, "a", 0.5], [np.inf] * 3)),
        *({"image_mean": value} for value in ([[0.5] * 3], True, 1j, np.full((1, 3), 0.5))),
        *({name: value} for name in ("do_resize", "do_rescale", "do_normalize") for value in (1, "true", [True])),
        {"do_convert_rgb": 0},
    ],
    ids=str,
)
def test_options(options):
    (name,) = options
    refused(lambda: ViTImageProcessor(**options), name, "expected", "got")
    refused(lambda: ViTImageProcessor()(GOOD, **options), name, "expected", "got")
    refused(lambda: setattr(ViTImageProcessor(), name, options[name]), name, "expected", "got")


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
@pytest.mark.parametrize("value", [[], [0.5], [0.5, 0.5], [0.5] * 4, np.full(2, 0.5)], ids=str)
def test_wrong_number_of_means_and_deviations(name, value):
    refused(lambda: ViTImageProcessor(**{name: value})(GOOD), "image 0", name, "3 channels", f"got {len(value)}")


@pytest.mark.parametrize("std", [0, 0.0, [0.5, 0, 0.5], 1e-60, [0.5, 0.5, -0.0]], ids=str)
def test_deviation_of_zero(std):
    refused(lambda: ViTImageProcessor(image_std=std)(GOOD), "image_std", "0", "float32")


@pytest.mark.parametrize(
    "size", [{"shortest_edge": 9}, {"longest_edge": 9}, {"max_height": 9, "max_width": 9}], ids=str
)
def test_sizes_that_are_stored_but_cannot_be_resized_to(size):
    process = ViTImageProcessor(size=size)
    assert process.to_dict()["size"] == size
    assert len(process(GOOD, do_resize=False)["pixel_values"]) == 1
    refused(lambda: process(GOOD), "height", "width", str(size))
    refused(lambda: process.center_crop(GOOD, size), "height", "width", str(size))


@pytest.mark.parametrize("name", ["data_format", "input_data_format"])
def test_unknown_layouts(name):
    refused(lambda: ViTImageProcessor()(GOOD, **{name: "NCHW"}), name, "channels_first", "NCHW")


def test_layouts_that_do_not_fit():
    process = ViTImageProcessor(size=4)
    refused(lambda: process(GOOD, data_format="none"), "1 channel", "got 3")
    refused(lambda: process(GOOD[0], input_data_format="channels_last"), "(height, width, channels)", "(8, 6)")
    refused(lambda: process.resize(GOOD, 4, input_data_format="none"), "(height, width)", "(3, 8, 6)")


def test_five_channels_are_more_than_the_reference_can_resize():
    process = ViTImageProcessor(size=4, image_mean=0.5, image_std=0.5, compatible=True)
    options = {"images": np.zeros((5, 8, 6), np.uint8), "input_data_format": "channels_first"}
    refused(lambda: process(**options), "1 to 4 channels", "do_resize=False")
    for more in ({"do_resize": False}, {"compatible": False}):
        assert len(process(**options, **more)["pixel_values"]) == 1


def test_unknown_keywords_are_named():
    for call in (ViTImageProcessor(), ViTImageProcessor().preprocess):
        with pytest.raises(TypeError, match="do_resise"):
            call(GOOD, do_resise=True)
        with pytest.raises(InputError, match=r"ViTImageProcessor: a call takes no 'foo', 'do_resise'\.$"):
            call(GOOD, foo=1, do_resise=True)
        with pytest.raises(InputError, match="takes no 'do_resise'; did you mean 'do_resize'"):
            call(GOOD, do_resise=True)


@pytest.mark.parametrize(
    ("keywords", "instead"),
    [
        ({"do_pad": True}, "delete do_pad=: there is no such step here"),
        ({"pad_size": 8, "do_pad": False}, "delete pad_size=: there is no such step here"),
        ({"default_to_square": False}, 'delete default_to_square=: write size={"height": h, "width": w}'),
        ({"interpolation": 3}, "delete interpolation=: write resample="),
        ({"device": "cuda"}, "BatchFeature.to: expected torch tensors"),
        ({"device": "cuda", "return_tensors": "np"}, "Pass return_tensors='pt'"),
    ],
)
def test_familiar_keywords_that_would_change_something_say_what_to_write(keywords, instead):
    with pytest.raises(InputError) as caught:
        ViTImageProcessor(size=4)(GOOD, **keywords)
    assert instead in str(caught.value) and str(caught.value).count("\n") <= 1


def test_steps_that_do_not_exist():
    for name in ("do_pad", "do_reduce_labels", "reduce_labels"):
        refused(lambda name=name: ViTImageProcessor(**{name: True}), name)
        assert ViTImageProcessor(**{name: False}).extra == {name: False}


def test_tensors_of_unequal_images():
    images = [GOOD, GOOD[:, :4]]
    refused(lambda: ViTImageProcessor(do_resize=False)(images, return_tensors="np"), "equal shapes", "do_resize")


def test_unknown_return_tensors():
    with pytest.raises(InputError, match="return_tensors"):
        ViTImageProcessor(size=4)(GOOD, return_tensors="mlx")


def test_to_without_torch_tensors():
    with pytest.raises(InputError, match="return_tensors='pt'"):
        BatchFeature({"pixel_values": GOOD}).to("cpu")


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"a", "b"}, "cannot be written as JSON"),
        ("x" * LIMITS.config_bytes, "above the limit of 16000000"),
        ({"1": 0, 1: 0}, "cannot be written as JSON"),
        ([[[[]]]] * 2, ""),
    ],
)
def test_options_that_no_load_would_read_are_not_saved(extra, word, tmp_path):
    processor = ViTImageProcessor(note=extra)
    if word:
        refused(lambda: processor.save_pretrained(tmp_path / "new"), "ViTImageProcessor", word)
        assert not (tmp_path / "new").exists()
        assert repr(processor).startswith("ViTImageProcessor {")
    else:
        processor.save_pretrained(tmp_path / "new")
        assert ViTImageProcessor.from_pretrained(tmp_path / "new") == processor
