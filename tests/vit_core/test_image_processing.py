"""ViTImageProcessor against transformers 4.57.6 (golden files), plain Pillow and NumPy, and its own word."""

import enum
import json
import logging
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_core.images import steps
from vit_core.images.batch_feature import BatchFeature
from vit_core.images.processor import ViTImageProcessor
from vit_core.tensors import from_numpy, to_numpy

GOLDEN = Path(__file__).parents[1] / "golden" / "images"
LAYOUTS = ("channels_first", "channels_last")
MEAN = [0.485, 0.456, 0.406, 0.3]
STD = [0.229, 0.224, 0.225, 0.4]
FRAMEWORKS = [name for name, module in {"pt": "torch", "tf": "tensorflow", "jax": "jax"}.items() if find_spec(module)]


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


INPUTS, UINT8, FLOATS, MODES, METHODS = map(golden, ("inputs", "uint8", "floats", "modes", "methods"))
PROCESSORS = json.loads((GOLDEN / "processors.json").read_text(encoding="utf-8"))


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


def processor(channels=3, **options):
    return ViTImageProcessor(image_mean=MEAN[:channels], image_std=STD[:channels], **options)


def one(batch):
    (pixel_values,) = batch["pixel_values"]
    return pixel_values


def in_layout(image, layout):
    return image.transpose(2, 0, 1) if layout == "channels_first" else image


def sides(text):
    height, width = text.split("x")
    return int(height), int(width)


# Against the golden files: equal to the last bit


@pytest.mark.parametrize("case", UINT8)
def test_uint8_arrays_in_both_layouts(case):
    resample, size, channels = case.split(".")
    compatible = channels == "4"  # alpha weights the other channels there
    process = processor(int(channels), size=sides(size), resample=int(resample), compatible=compatible)
    for given_layout, row in zip(LAYOUTS, UINT8[case], strict=True):
        image = in_layout(INPUTS[channels], given_layout)
        for wanted, expected in zip(LAYOUTS, row, strict=True):
            result = one(process(image, data_format=wanted, input_data_format=given_layout))
            shape = (int(channels), *sides(size)) if wanted == "channels_first" else (*sides(size), int(channels))
            assert result.shape == shape
            assert result.dtype == np.float32
            np.testing.assert_array_equal(result.ravel(), expected)


@pytest.mark.parametrize("case", [case for case in UINT8 if case.endswith(".3")])
def test_pil_images_and_tensors_give_the_numbers_of_arrays(case):
    resample, size, _ = case.split(".")
    process = processor(size=sides(size), resample=int(resample))
    expected = UINT8[case][0, 0]
    np.testing.assert_array_equal(one(process(Image.fromarray(INPUTS["3"]))).ravel(), expected)
    for framework in FRAMEWORKS:
        tensor = from_numpy(np.ascontiguousarray(INPUTS["3"].transpose(2, 0, 1)), framework)
        np.testing.assert_array_equal(one(process(tensor)).ravel(), expected)


@pytest.mark.parametrize("case", FLOATS)
def test_other_dtypes_through_every_choice_of_steps(case):
    kind, dtype, switches = case.split(".")
    image = {"unit": INPUTS["3"] / 256 + 0.001, "whole": INPUTS["3"], "binary": INPUTS["3"] > 127}[kind]
    resize, rescale, normalize = (switch == "1" for switch in switches)
    process = processor(size=(5, 7), do_resize=resize, do_rescale=rescale, do_normalize=normalize)
    for compatible in (True,) if resize and dtype.startswith("float") else (True, False):
        result = one(process(image.astype(dtype), input_data_format="channels_last", compatible=compatible))
        assert result.dtype == FLOATS[case].dtype
        np.testing.assert_array_equal(result, FLOATS[case])


@pytest.mark.parametrize("mode", [case.removesuffix(".data") for case in MODES if case.endswith(".data")])
def test_do_convert_rgb(mode):
    height, width, _ = INPUTS["3"].shape
    image = Image.frombytes(mode, (width, height), MODES[f"{mode}.data"].tobytes())
    if MODES[f"{mode}.palette"].size:
        image.putpalette(MODES[f"{mode}.palette"].tobytes())
    result = one(processor(size=(5, 7), do_convert_rgb=True)(image))
    np.testing.assert_array_equal(result, MODES[f"{mode}.result"])


@pytest.mark.parametrize("case", METHODS)
def test_methods(case):
    method, _, argument = case.partition(".")
    image, process = INPUTS["3"], ViTImageProcessor(compatible=True)
    results = {
        "center_crop": lambda: process.center_crop(image, sides(argument)),
        "resize": lambda: process.resize(image, sides(argument)),
        "resize_unit": lambda: process.resize(image / np.float32(255), sides(argument)),
        "rescale": lambda: process.rescale(image, float(argument)),
        "normalize": lambda: {
            "uint8": lambda: process.normalize(image, MEAN[:3], STD[:3]),
            "float64": lambda: process.normalize(image / 255, MEAN[:3], STD[:3]),
            "scalar": lambda: process.normalize(image, 0.3, 0.7),
        }[argument](),
    }
    result = results[method]()
    assert result.dtype == METHODS[case].dtype
    np.testing.assert_array_equal(result, METHODS[case])


@pytest.mark.parametrize("case", PROCESSORS, ids=range(len(PROCESSORS)))
def test_json_text(case):
    assert ViTImageProcessor.from_dict(case["arguments"]).to_json_string() == case["text"]
    assert ViTImageProcessor.from_dict(json.loads(case["text"])).to_json_string() == case["text"]


# Against plain Pillow and NumPy


@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_any_image_equals_pillow_then_three_operations(data):
    height, width, new_height, new_width = (data.draw(st.integers(1, 40)) for _ in range(4))
    code = data.draw(st.integers(0, 5))
    # older versions never begin with the height, see vit_core.images.steps
    assume(int(PIL.__version__.partition(".")[0]) >= 13 or height - new_height <= max(0, 2 * (width - new_width)))
    name = ["NEAREST", "LANCZOS", "BILINEAR", "BICUBIC", "BOX", "HAMMING"][code]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = np.array(Image.fromarray(image).resize((new_width, new_height), Image.Resampling[name]))
    unit = (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = ((unit - np.array(MEAN[:3], np.float32)) / np.array(STD[:3], np.float32)).transpose(2, 0, 1)
    result = one(processor(size=(new_height, new_width), resample=code)(image, input_data_format="channels_last"))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "F"])
def test_images_that_get_much_lower_lose_their_height_first_in_every_version_of_pillow(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 12, 4), dtype=np.uint8)).convert(mode)
    weighted = {"LA": "La", "RGBA": "RGBa"}.get(mode, mode)
    passes = ((12, 9), (20, 9)), ((20, 31), (20, 9))  # the height first, the width first
    results = []
    for sides in passes:
        stretched = image.convert(weighted)
        for side in sides:
            stretched = stretched.resize(side, Image.Resampling.BICUBIC)
        results.append(np.asarray(stretched.convert(mode)))
    np.testing.assert_array_equal(steps.resize(image, (9, 20), Image.Resampling.BICUBIC), results[0])
    assert (results[0] != results[1]).any()  # so the line above can fail


def test_rescale_multiplies_in_float64():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    result = ViTImageProcessor().rescale(image, 1 / 255)
    np.testing.assert_array_equal(result, np.float32(image.astype(np.float64) * (1 / 255)))
    with pytest.raises(AssertionError):  # the two orders do differ, so the line above can fail
        np.testing.assert_array_equal(result, image.astype(np.float32) * np.float32(1 / 255))


def test_normalize_divides():
    unit = np.float32(np.arange(256).reshape(1, 16, 16) / 255)
    result = ViTImageProcessor().normalize(unit, 0.485, 0.229)
    np.testing.assert_array_equal(result, (unit - np.float32(0.485)) / np.float32(0.229))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(result, (unit - np.float32(0.485)) * np.float32(1 / 0.229))


@pytest.mark.parametrize("scale", [1 / 255, 1 / 127.5, 0.01, 1, 3])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (MEAN[:3], STD[:3]), (0, 1), ([-3.1, 2e5, 7], [1e-9, 0.7, 255])])
def test_every_level_is_rescaled_then_normalized(scale, mean, std):
    image = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16) + channel for channel in range(3)])
    unit = (image.astype(np.float64) * scale).astype(np.float32)
    columns = [np.broadcast_to(np.float32(each), 3)[:, None, None] for each in (mean, std)]
    process = ViTImageProcessor(rescale_factor=scale, image_mean=mean, image_std=std, do_resize=False)
    for form in (image, Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))):
        np.testing.assert_array_equal(one(process(form)), (unit - columns[0]) / columns[1])
        np.testing.assert_array_equal(one(process(form, do_normalize=False)), unit)
        np.testing.assert_array_equal(
            one(process(form, do_rescale=False)), (image.astype(np.float32) - columns[0]) / columns[1]
        )


def test_floats_are_cut_to_8_bits_only_where_that_is_asked_for():
    image = np.full((1, 2, 2), 0.999, np.float32)  # 254.745 of 255
    np.testing.assert_array_equal(ViTImageProcessor().resize(image, (2, 2)), image)
    result = ViTImageProcessor(compatible=True).resize(image, (2, 2))
    np.testing.assert_array_equal(result, np.full((1, 2, 2), np.float32(254 / 255)))


@pytest.mark.parametrize("code", range(6))
def test_floats_are_resized_as_whole_numbers_are_but_not_rounded(code, rng):
    image = rng.integers(0, 256, (13, 9, 4), dtype=np.uint8)
    whole = ViTImageProcessor().resize(image, (7, 11), code, input_data_format="channels_last")
    for scale in (1, 255):
        floats = ViTImageProcessor().resize(image / scale, (7, 11), code, input_data_format="channels_last")
        assert floats.dtype == np.float32
        # Pillow rounds after each of its two passes, and clips what the wider filters overshoot.
        np.testing.assert_allclose(np.clip(floats * scale, 0, 255), whole, atol=2)
        if code != 0:  # the nearest filter makes no fractions
            assert np.abs(floats * scale - np.round(floats * scale)).max() > 0.1


# Layouts


def test_layout_is_inferred_from_the_first_array(rng):
    process = processor(do_resize=False)
    image = rng.integers(0, 256, (3, 9, 7), dtype=np.uint8)
    np.testing.assert_array_equal(one(process(image)), one(process(image.transpose(1, 2, 0))))
    flat = image[:, :3, :3].transpose(1, 2, 0)  # alone it would be read as channels first
    second = process([image.transpose(1, 2, 0), flat])["pixel_values"][1]
    np.testing.assert_array_equal(second, one(process(flat, input_data_format="channels_last")))


def test_ambiguous_layout_is_read_as_channels_first_and_logged(rng, caplog):
    image = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    process = processor(do_resize=False)
    result = one(process(image))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    np.testing.assert_array_equal(result, one(process(image, input_data_format="channels_first")))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 5, 3), (3, 3, 3), (50, 1, 3)])
def test_pil_images_are_never_channels_first(shape, rng, caplog):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    process = processor(size=(4, 6))
    expected = one(process(image, input_data_format="channels_last"))
    np.testing.assert_array_equal(one(process(Image.fromarray(image))), expected)
    mixed = process([Image.fromarray(image), INPUTS["3"].transpose(2, 0, 1)])["pixel_values"]
    np.testing.assert_array_equal(mixed[0], expected)
    np.testing.assert_array_equal(mixed[1], one(process(INPUTS["3"])))
    assert not caplog.records


def test_data_format_none_keeps_the_layout_of_the_input():
    process = processor(size=(4, 6))
    for layout, shape in (("channels_first", (3, 4, 6)), ("channels_last", (4, 6, 3))):
        assert one(process(in_layout(INPUTS["3"], layout), data_format=None)).shape == shape
    assert one(process(Image.fromarray(INPUTS["3"]), data_format=None)).shape == (4, 6, 3)


def test_layout_none_is_height_and_width():
    process = ViTImageProcessor(size=(4, 6), image_mean=0.3, image_std=0.2)
    image = INPUTS["1"]
    expected = one(process(image))
    plain = image[:, :, 0]
    np.testing.assert_array_equal(one(process(plain, input_data_format="none")), expected)
    np.testing.assert_array_equal(one(process(plain, input_data_format="none", data_format=None)), expected[0])
    np.testing.assert_array_equal(one(process(image, data_format="none")), expected[0])
    batch = process(np.stack([plain, 255 - plain]), input_data_format="none", return_tensors="np")
    assert batch["pixel_values"].shape == (2, 1, 4, 6)
    assert process.resize(plain, (4, 6), input_data_format="none").shape == (4, 6)


def test_layout_and_tensor_names_as_enum_members():
    dimension = enum.Enum("dimension", {"FIRST": "channels_first", "LAST": "channels_last"})
    tensor = enum.Enum("tensor", {"NUMPY": "np"})
    image = in_layout(INPUTS["3"], "channels_first")
    batch = processor(size=(4, 6))(
        image, input_data_format=dimension.FIRST, data_format=dimension.LAST, return_tensors=tensor.NUMPY
    )
    assert batch["pixel_values"].shape == (1, 4, 6, 3)


# Inputs and options


def test_forms_of_a_batch(rng):
    process = processor(size=(4, 6))
    images = list(rng.integers(0, 256, (4, 3, 9, 7), dtype=np.uint8))
    expected = np.stack([one(process(image)) for image in images])
    pil = Image.fromarray(images[1].transpose(1, 2, 0))
    for form in (
        images,
        tuple(images),
        np.stack(images),
        [np.stack(images[:2]), np.stack(images[2:])],
        [images[:1], [], images[1:]],
        [images[0], pil, *images[2:]],
        *(from_numpy(np.stack(images), framework) for framework in FRAMEWORKS),
        *([from_numpy(image, framework) for image in images] for framework in FRAMEWORKS),
    ):
        np.testing.assert_array_equal(process(form, return_tensors="np")["pixel_values"], expected)


def test_images_of_different_sizes(rng):
    images = [rng.integers(0, 256, (9, width, 3), dtype=np.uint8) for width in (5, 8)]
    assert processor(size=4)(images, return_tensors="np")["pixel_values"].shape == (2, 3, 4, 4)
    shapes = [image.shape for image in processor(do_resize=False)(images)["pixel_values"]]
    assert shapes == [(3, 9, 5), (3, 9, 8)]


def test_options_of_a_call_override_and_are_forgotten():
    process, before = ViTImageProcessor(size=4), ViTImageProcessor(size=4)
    options = {"size": (5, 7), "resample": 3, "rescale_factor": 0.01, "image_mean": 0.1, "image_std": 2.0}
    overridden = one(process(INPUTS["3"], **options))
    np.testing.assert_array_equal(overridden, one(ViTImageProcessor(**options)(INPUTS["3"])))
    off = one(process(INPUTS["3"], do_resize=False, do_rescale=False, do_normalize=False, data_format=None))
    np.testing.assert_array_equal(off, INPUTS["3"])
    assert process == before


def test_images_are_not_changed():
    image = INPUTS["3"].copy()
    image.flags.writeable = False
    processor(size=(5, 7))(image)
    unit = image / np.float32(255)
    unit.flags.writeable = False
    processor(size=(5, 7))([unit, unit], return_tensors="np")
    np.testing.assert_array_equal(image, INPUTS["3"])


def test_numbers_already_in_0_to_1_are_logged_once_a_call(caplog):
    unit = INPUTS["3"] / 255
    for calls in (1, 2):
        processor(size=4)([unit, unit])
        assert [record.levelno for record in caplog.records] == calls * [logging.WARNING]
        assert "do_rescale=False" in caplog.records[-1].message
    caplog.clear()
    processor(size=4, do_rescale=False)(unit)
    processor(size=4)(np.zeros_like(INPUTS["3"]))
    assert not caplog.records


@pytest.mark.parametrize("size", [5, (5, 5), [5, 5], {"width": 5, "height": 5}, np.int64(5), (np.int32(5), 5)])
def test_forms_of_size(size):
    assert ViTImageProcessor(size=size).size == {"height": 5, "width": 5}
    assert one(ViTImageProcessor(size=4)(INPUTS["3"], size=size)).shape == (3, 5, 5)


def test_size_is_height_then_width():
    assert ViTImageProcessor(size=(5, 7)).size == {"height": 5, "width": 7}
    assert one(ViTImageProcessor()(INPUTS["3"], size=(5, 7))).shape == (3, 5, 7)
    assert one(ViTImageProcessor()(INPUTS["3"])).shape == (3, 224, 224)


def test_options_assigned_later_are_checked_and_used():
    process = ViTImageProcessor()
    process.size = 6
    process.image_mean = np.array([0.1, 0.2, 0.3])
    assert process.size == {"height": 6, "width": 6}
    assert process.image_mean == [0.1, 0.2, 0.3]
    assert one(process(INPUTS["3"])).shape == (3, 6, 6)


def test_a_gray_processor_takes_gray_pil_images():
    gray = np.arange(63, dtype=np.uint8).reshape(7, 9)
    processor = ViTImageProcessor(size=5, image_mean=[0.4], image_std=[0.3])
    expected = processor(gray, input_data_format="none", return_tensors="np").pixel_values
    got = processor(Image.fromarray(gray), return_tensors="np").pixel_values
    np.testing.assert_array_equal(got, expected)


# BatchFeature


def test_batch_is_a_dict_with_attributes():
    batch = processor(size=4)(INPUTS["3"], return_tensors="np")
    assert isinstance(batch, BatchFeature)
    assert list(batch) == list(batch.keys()) == ["pixel_values"]
    assert batch.pixel_values is batch["pixel_values"]
    assert {**batch} == dict(batch.items())
    assert (lambda pixel_values: pixel_values)(**batch) is batch.pixel_values
    with pytest.raises(AttributeError, match="it has pixel_values"):
        _ = batch.labels
    with pytest.raises(KeyError):
        batch[0]


@pytest.mark.parametrize("framework", ["np", *FRAMEWORKS])
def test_return_tensors(framework):
    process = processor(size=(4, 6))
    images = [INPUTS["3"], INPUTS["3"][::-1]]
    values = process(images)["pixel_values"]
    assert isinstance(values, list)
    tensors = process(images, return_tensors=framework)["pixel_values"]
    assert type(tensors) is type(from_numpy(np.zeros(1), framework))
    np.testing.assert_array_equal(to_numpy(tensors), np.stack(values))
    assert process(images, return_tensors="np")["pixel_values"].flags.c_contiguous
    later = BatchFeature({"pixel_values": values}).convert_to_tensors(framework)
    np.testing.assert_array_equal(to_numpy(later["pixel_values"]), np.stack(values))


class StandIn:
    """As much of a torch tensor as `.to` needs, for environments without torch."""

    __module__ = "torch"

    def __init__(self, floating, device="cpu", dtype="own"):
        self.floating, self.device, self.dtype = floating, device, dtype

    def is_floating_point(self):
        return self.floating

    def to(self, device=None, dtype=None):
        return StandIn(self.floating, device or self.device, dtype or self.dtype)


def test_to_moves_all_tensors_and_casts_floats():
    batch = BatchFeature({"floats": StandIn(True), "ints": StandIn(False), "names": ["a"]})
    assert batch.to("gpu", dtype="half") is batch
    assert (batch.floats.device, batch.floats.dtype) == ("gpu", "half")
    assert (batch.ints.device, batch.ints.dtype) == ("gpu", "own")
    assert batch.names == ["a"]
    for torch in [import_module("torch")] if "pt" in FRAMEWORKS else []:
        real = BatchFeature({"floats": torch.ones(2), "ints": torch.ones(2, dtype=torch.int64)})
        assert real.to(torch.float16)["floats"].dtype == torch.float16
        assert real.to("cpu", torch.bfloat16)["floats"].dtype == torch.bfloat16
        assert real["ints"].dtype == torch.int64
        with pytest.raises(TypeError):
            real.to(torch.float16, "cpu")


def test_familiar_keywords_that_change_nothing_pass(rng):
    image = rng.integers(0, 256, (3, 9, 7), np.uint8)
    fast = {"device": "cpu", "disable_grouping": False, "do_pad": False, "default_to_square": True, "pad_size": None}
    np.testing.assert_array_equal(one(processor(size=4)(image, **fast)), one(processor(size=4)(image)))
