"""Every kind of picture against arithmetic done here: PIL modes, gray and RGBA arrays, EXIF, alpha, crops, batches."""

import colorsys
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from vit_core.errors import ImageError, InputError
from vit_core.images.processor import AutoImageProcessor, ViTImageProcessor
from vit_core.limits import LIMITS

GOLDEN = Path(__file__).parents[1] / "golden" / "images"
LEVELS = {"do_resize": False, "do_rescale": False, "do_normalize": False, "data_format": "channels_last"}
HEIGHT, WIDTH = 6, 9
RED, GREEN, BLUE = np.mgrid[0:3, 0:HEIGHT, 0:WIDTH][0], *np.mgrid[0:HEIGHT, 0:WIDTH]
COLOURS = np.stack([(17 * GREEN + 5 * BLUE) % 256, 40 * GREEN, 255 - 28 * BLUE], axis=-1).astype(np.uint8)
GRAY = (COLOURS[..., 0].astype(int) * 3 % 256).astype(np.uint8)
ALPHA = np.where(BLUE % 3, 255, 60 * (GREEN % 4)).astype(np.uint8)


def palette_image(mode: str) -> Image.Image:
    image = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)).convert("P")
    image.putpalette(COLOURS.reshape(-1).tobytes())
    return image if mode == "P" else image.convert("PA")


def by_colorsys(pixels: np.ndarray) -> np.ndarray:
    flat = [colorsys.hsv_to_rgb(*(pixel / 255)) for pixel in pixels.reshape(-1, 3)]
    return 255 * np.array(flat).reshape(pixels.shape)


def from_ycbcr(pixels: np.ndarray) -> np.ndarray:
    y, cb, cr = np.moveaxis(pixels.astype(float), -1, 0) - np.array([0, 128, 128])[:, None, None]
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1), 0, 255)


def without_black(pixels: np.ndarray) -> np.ndarray:
    inks = pixels.astype(float)
    return (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255


def raw(mode: str, array: np.ndarray) -> Image.Image:
    return Image.frombytes(mode, (WIDTH, HEIGHT), np.ascontiguousarray(array).tobytes())


def grays(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[..., None], 3, axis=-1)


CMYK = np.concatenate([COLOURS, GRAY[..., None] // 2], axis=-1)
RGBA = np.concatenate([COLOURS, ALPHA[..., None]], axis=-1)
DEEP = GRAY.astype(np.uint16) * 250 + 77
CASES = {  # mode -> image, the levels 0..255 that it shows
    "RGB": (raw("RGB", COLOURS), COLOURS),
    "L": (raw("L", GRAY), grays(GRAY)),
    "1": (raw("L", GRAY).point(lambda level: 255 * (level > 99), "1"), grays(255 * (GRAY > 99))),
    "LA": (raw("LA", np.stack([GRAY, ALPHA], -1)), grays(GRAY)),
    "P": (palette_image("P"), COLOURS),
    "PA": (palette_image("PA"), COLOURS),
    "I;16": (raw("I;16", DEEP.astype("<u2")), grays(DEEP / 257)),
    "I;16B": (raw("I;16B", DEEP.astype(">u2")), grays(DEEP / 257)),
    "I": (raw("I", DEEP.astype(np.int32)), grays(DEEP / 257)),
    "I of 8 bits": (raw("I", GRAY.astype(np.int32)), grays(GRAY)),
    "F": (raw("F", GRAY.astype(np.float32) / 3), grays(GRAY / 3)),
    "CMYK": (raw("CMYK", CMYK), without_black(CMYK)),
    "YCbCr": (raw("YCbCr", COLOURS), from_ycbcr(COLOURS)),
    "HSV": (raw("HSV", COLOURS), by_colorsys(COLOURS)),
    "RGBA": (raw("RGBA", RGBA), COLOURS),
}


def one(batch):
    (pixel_values,) = batch["pixel_values"]
    return pixel_values


@pytest.mark.parametrize("mode", CASES)
def test_every_mode_shows_its_levels(mode):
    image, expected = CASES[mode]
    levels = one(ViTImageProcessor()(image, **LEVELS)).astype(float)
    np.testing.assert_allclose(levels, expected, atol=1)
    for convert in (None, True):  # and through all steps, without a change of size
        values = one(ViTImageProcessor(size=(HEIGHT, WIDTH), do_convert_rgb=convert)(image))
        assert (values.shape, values.dtype) == ((3, HEIGHT, WIDTH), np.float32)
        np.testing.assert_allclose((values + 1) / 2, expected.transpose(2, 0, 1) / 255, atol=1 / 255)


def test_all_modes_in_one_batch():
    images = [image for image, _ in CASES.values()]
    images += [GRAY, RGBA, Image.fromarray(COLOURS).resize((50, 40)), np.zeros((5, 5, 3), np.float64)]
    process = ViTImageProcessor(size=(7, 4))
    batch = process(images, return_tensors="np", num_threads=2)["pixel_values"]
    assert (batch.shape, batch.dtype, batch.flags.c_contiguous) == ((len(images), 3, 7, 4), np.float32, True)
    for values, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(values, one(process(image)))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16", "F"])
def test_a_gray_processor_keeps_one_channel(mode):
    image, expected = CASES[mode]
    for mean in (0.5, [0.5]):
        values = one(ViTImageProcessor(size=(HEIGHT, WIDTH), image_mean=mean, image_std=mean)(image))
        np.testing.assert_allclose((values + 1) / 2, expected[None, ..., 0] / 255, atol=1 / 255)


def test_channels_are_kept_where_there_is_a_mean_for_each():
    process = ViTImageProcessor(size=(4, 5), image_mean=[0.5] * 4, image_std=[0.5] * 4)
    image, _ = CASES["RGBA"]
    channels = [one(ViTImageProcessor(size=(4, 5), image_mean=0.5, image_std=0.5)(RGBA[..., i])) for i in range(4)]
    for given in (image, RGBA, RGBA.transpose(2, 0, 1)):
        np.testing.assert_array_equal(one(process(given)), np.concatenate(channels))  # alpha weights nothing


def test_do_convert_rgb_false_takes_channels_as_they_are():
    process = ViTImageProcessor(do_convert_rgb=False, do_normalize=False, size=5)
    shapes = {mode: one(process(CASES[mode][0])).shape[0] for mode in ("L", "LA", "RGB", "RGBA", "I;16", "F")}
    assert shapes == {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1, "F": 1}
    for mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "1"):
        with pytest.raises(ImageError, match=f"do_convert_rgb=False: .* got mode {mode}"):
            process(CASES[mode][0])


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (0, 65_536)])
def test_levels_that_mean_nothing_are_refused(low, high):
    image = Image.fromarray(np.array([[low, high]], np.int32))
    with pytest.raises(ImageError, match=f"image 0 of 1: expected levels .* mode I with {low} to {high}"):
        ViTImageProcessor(size=4)(image)


# Options


def test_alpha_is_composited_on_a_background():
    background = (200, 30, 90)
    weight = ALPHA[..., None] / 255
    expected = COLOURS * weight + np.array(background) * (1 - weight)
    process = ViTImageProcessor(alpha_background=background)
    for image in (CASES["RGBA"][0], RGBA):
        values = one(process(image, do_resize=False, do_normalize=isinstance(image, np.ndarray), do_rescale=True))
        levels = (values + 1) * 127.5 if isinstance(image, np.ndarray) else values * 255
        np.testing.assert_allclose(levels.transpose(1, 2, 0), expected, atol=1)
    palette = palette_image("P")
    palette.info["transparency"] = 3  # the fourth entry is nothing but background
    levels = one(process(palette, **LEVELS))
    np.testing.assert_array_equal(levels[0, 3], background)
    np.testing.assert_array_equal(levels[0, 4], COLOURS[0, 4])
    np.testing.assert_array_equal(one(process(CASES["L"][0], **LEVELS)), CASES["L"][1])


@pytest.mark.parametrize("background", [(200, 30, 90), (70, 70, 70)])
def test_the_clear_level_of_16_bits_becomes_the_background(background, tmp_path):
    (image, expected), clear = CASES["I;16"], int(DEEP[2, 3])
    image.save(tmp_path / "deep.png", transparency=clear)
    with Image.open(tmp_path / "deep.png") as opened:
        assert (opened.mode, opened.info["transparency"]) == ("I;16", clear)
        np.testing.assert_allclose(one(ViTImageProcessor()(opened, **LEVELS)), expected, atol=1)
        levels = one(ViTImageProcessor(alpha_background=background)(opened, **LEVELS))
    np.testing.assert_allclose(levels, np.where(DEEP[..., None] == clear, background, expected), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_only_when_asked_for(orientation, tmp_path):
    turned = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, -1),
        7: np.rot90(COLOURS, 2).transpose(1, 0, 2),
        8: np.rot90(COLOURS),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as image:
        np.testing.assert_array_equal(one(ViTImageProcessor()(image, **LEVELS)), COLOURS)
        np.testing.assert_array_equal(one(ViTImageProcessor(do_exif_transpose=True)(image, **LEVELS)), turned)


def test_rare_options_are_in_json_only_when_given(tmp_path):
    given = {"do_exif_transpose": True, "alpha_background": [1, 2, 3], "compatible": False}
    assert not {*given, "do_center_crop", "crop_size"} & {*ViTImageProcessor().to_dict()}
    process = ViTImageProcessor(**given)
    assert {name: process.to_dict()[name] for name in given} == given
    process.save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path) == process
    assert (ViTImageProcessor().compatible, process.alpha_background) == (None, [1, 2, 3])


@pytest.mark.parametrize(
    "options",
    [
        *({"alpha_background": value} for value in ("white", (0, 0), (0, 0, 256), (0, 0, -1), (0.5, 0, 0), 255)),
        *({name: 1} for name in ("do_center_crop", "do_exif_transpose", "compatible")),
        {"crop_size": 0},
    ],
    ids=str,
)
def test_rare_options_are_checked(options):
    (name,) = options
    for call in (
        lambda: ViTImageProcessor(**options),
        lambda: ViTImageProcessor()(COLOURS, **options),
        lambda: setattr(ViTImageProcessor(), name, options[name]),
    ):
        with pytest.raises(ImageError, match=f"{name}: expected .*, got "):
            call()


# Cropping, as DeiT does


with np.load(GOLDEN / "crops.npz") as file:
    CROPS = dict(file)
with np.load(GOLDEN / "inputs.npz") as file:
    IMAGE = file["3"]


@pytest.mark.parametrize("case", CROPS)
def test_crops_equal_the_references(case):
    size, crop, (resize, steps) = case.split(".")
    process = ViTImageProcessor(
        do_center_crop=True,
        crop_size=[*map(int, crop.split("x"))],
        size=[*map(int, size.split("x"))],
        resample=3,
        do_resize=resize == "1",
        do_rescale=steps == "1",
        do_normalize=steps == "1",
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    for image in (IMAGE, Image.fromarray(IMAGE)):
        result = one(process(image, input_data_format="channels_last"))
        assert result.dtype == CROPS[case].dtype
        np.testing.assert_array_equal(result, CROPS[case])


@pytest.mark.parametrize("case", json.loads((GOLDEN / "deit_processors.json").read_text()), ids=["defaults", "sizes"])
@pytest.mark.parametrize("name", ["DeiTImageProcessor", "DeiTImageProcessorFast", "DeiTFeatureExtractor"])
def test_files_of_deit(case, name, tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**case["arguments"], "image_processor_type": name}))
    process = AutoImageProcessor.from_pretrained(tmp_path)
    assert process.to_json_string() == case["text"]  # under the name that crops in transformers too
    process.save_pretrained(tmp_path)
    assert path.read_text() == case["text"]
    assert AutoImageProcessor.from_pretrained(tmp_path) == process


def test_a_file_of_vit_that_asks_for_a_crop_is_ambiguous(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "do_center_crop": True}))
    with pytest.raises(ImageError, match="does not crop, whatever the file says"):
        AutoImageProcessor.from_pretrained(tmp_path)
    sizes = [
        one(AutoImageProcessor.from_pretrained(tmp_path, do_center_crop=crop, crop_size=5, size=8)(COLOURS)).shape
        for crop in (True, False)
    ]
    assert sizes == [(3, 5, 5), (3, 8, 8)]


# Batches


def test_threads_change_nothing_and_errors_name_the_first_image():
    rng = np.random.default_rng(7)
    images = [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(40)]
    process = ViTImageProcessor(size=11)
    one_by_one = process(images, num_threads=1, return_tensors="np")["pixel_values"]
    for threads in (2, 5, None):
        np.testing.assert_array_equal(process(images, num_threads=threads)["pixel_values"], one_by_one)
    for threads in (1, 2, 7):
        with pytest.raises(ImageError, match="image 3 of 42: expected an image, got str"):
            process([*images[:3], "x", *images[3:], "y"], num_threads=threads)
    for wrong in (0, -1, True, 2.0, "2"):
        with pytest.raises(InputError, match="num_threads: expected a whole number"):
            process(images, num_threads=wrong)


def test_an_image_given_twice_is_read_once_at_a_time(tmp_path):
    picture = np.random.default_rng(3).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    process = ViTImageProcessor(size=9)
    expected = one(process(picture, input_data_format="channels_last"))
    for _ in range(20):
        with Image.open(tmp_path / "x.png") as image:
            for values in process([image] * 8, num_threads=8)["pixel_values"]:
                np.testing.assert_array_equal(values, expected)


def test_a_generator_is_drawn_from_as_needed():
    alive, most = set(), 0

    class Counted(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def images():
        nonlocal most
        for level in range(60):
            image = np.full((3, 40, 40), level, np.uint8).view(Counted)
            alive.add(id(image))
            most = max(most, len(alive))
            yield image
            del image

    process = ViTImageProcessor(size=4)
    batch = process(images(), return_tensors="np", num_threads=2)["pixel_values"]
    np.testing.assert_array_equal(
        batch[:, 0, 0, 0], one(process(np.arange(60, dtype=np.uint8)[None, None], do_resize=False))[0, 0]
    )
    assert most < 12
    with pytest.raises(ImageError, match="image 1: expected an image"):
        process(iter([np.zeros((3, 4, 4), np.uint8), "x"]))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_one_object_yielded_again_and_again_is_read_each_time(num_threads, tmp_path):
    levels = range(0, 240, 8)
    first, *others = [Image.new("L", (40, 40), level) for level in levels]
    first.save(tmp_path / "frames.gif", save_all=True, append_images=others)

    def buffers():
        buffer = np.empty((40, 40), np.uint8)
        for level in levels:
            buffer[:] = level
            yield buffer

    process = ViTImageProcessor(size=4, image_mean=0.0, image_std=1 / 255)
    with Image.open(tmp_path / "frames.gif") as image:
        for images in (ImageSequence.Iterator(image), [ImageSequence.Iterator(image)], buffers(), [buffers()]):
            batch = process(images, num_threads=num_threads, do_convert_rgb=True, return_tensors="np")
            np.testing.assert_allclose(batch["pixel_values"][:, 0, 0, 0], levels, atol=1e-3)


def test_the_number_of_images_is_bounded():
    limits = replace(LIMITS, batch_images=3)
    process = ViTImageProcessor(size=1)
    images = np.zeros((4, 3, 2, 2), np.uint8)
    assert len(process(images[:3], limits=limits)["pixel_values"]) == 3
    for given in (images, iter(images)):
        with pytest.raises(ImageError, match=r"more images .* the limit of 3; to raise it: .*batch_images"):
            process(given, limits=limits)


@pytest.mark.parametrize("axes", [(), (0,), (-1,)], ids=["no channels", "channels first", "channels last"])
def test_arrays_of_sixteen_bits_are_images_of_sixteen_bits(axes):
    processor = ViTImageProcessor(size={"height": 7, "width": 9})
    array = np.expand_dims(DEEP, axes) if axes else DEEP
    found = processor(array, input_data_format="channels_first" if axes == (0,) else None, return_tensors="np")
    wanted = processor(CASES["I;16"][0], return_tensors="np")
    np.testing.assert_array_equal(found["pixel_values"], wanted["pixel_values"])
