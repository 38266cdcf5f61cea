"""Files of images and of processors: open_image, from_pretrained and save_pretrained."""

import copy
import io
import json
import os
import pickle
import zlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from vit_core.errors import ImageError, MissingFileError
from vit_core.images.files import FILE_FORMATS, open_image
from vit_core.images.processor import AutoImageProcessor, ViTFeatureExtractor, ViTImageProcessor
from vit_core.limits import LIMITS

NAME = "preprocessor_config.json"


@pytest.fixture
def picture(request):
    rng = np.random.default_rng(zlib.crc32(request.node.name.encode()))
    return rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)


def write(folder, options):
    (folder / NAME).write_text(json.dumps(options), encoding="utf-8")
    return folder


# open_image


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_each_format_opens_fully_decoded(name, picture, tmp_path):
    path = tmp_path / "picture"
    options = {"lossless": True} if name == "WEBP" else {}
    Image.fromarray(picture).save(path, format=name, **options)
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    opened = open_image(path)
    path.unlink()
    np.testing.assert_array_equal(np.array(opened.convert("RGB")), expected)
    assert ViTImageProcessor(size=4, do_convert_rgb=True)(opened, return_tensors="np").pixel_values.shape == (
        1,
        3,
        4,
        4,
    )
    if name not in ("JPEG", "GIF"):  # these two lose something
        np.testing.assert_array_equal(expected, picture)


def test_fast_decode_takes_the_smallest_fraction_not_below_the_size(tmp_path):
    rng = np.random.default_rng(5)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((320, 240), 3)
    smooth.save(tmp_path / "x.jpg", quality=95)
    exact = open_image(tmp_path / "x.jpg")
    sizes = {30: (40, 30), 31: (80, 60), (30, 41): (80, 60), 60: (80, 60), 100: (160, 120), 121: (320, 240)}
    for size, expected in sizes.items():
        assert open_image(tmp_path / "x.jpg", fast_decode=True, size=size).size == expected
    process = ViTImageProcessor(size=60)
    fast = open_image(tmp_path / "x.jpg", fast_decode=True, size=process.size)
    results = process([exact, fast], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(results[1], results[0], atol=0.1)
    smooth.save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png", fast_decode=True, size=9).size == exact.size == (320, 240)
    with pytest.raises(ImageError, match="size: expected"):
        open_image(tmp_path / "x.jpg", fast_decode=True, size=0)


@pytest.mark.parametrize("name", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_many(name, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "frames", format=name, save_all=True, append_images=frames[1:])
    red = np.array(open_image(str(tmp_path / "frames")).convert("RGB"))
    assert red[..., 0].min() > 200
    assert red[..., 1:].max() < 50


@pytest.mark.parametrize("name", FILE_FORMATS)
@pytest.mark.parametrize("kept", [0, 20, 0.6])
def test_truncated_files_are_refused_by_name(name, kept, picture, tmp_path):
    path = tmp_path / "cut"
    Image.fromarray(picture).save(path, format=name)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(ImageError, match="cut: cannot be decoded") as caught:
        open_image(path)
    assert str(caught.value).count("\n") <= 2


def test_what_is_no_image_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    Image.new("RGB", (4, 4)).save(tmp_path / "other.ppm")
    for path, words in {
        "pipe": "regular file",
        ".": "regular file",
        "text": "cannot be decoded",
        "other.ppm": "cannot be decoded",
        "text/in/a/file": "cannot be opened",
        "nul\0": "cannot be opened",
    }.items():
        with pytest.raises(ImageError, match=words):
            open_image(tmp_path / path)
    for path in (tmp_path / "absent", "https://localhost/image.png"):
        with pytest.raises(FileNotFoundError, match="no such file") as caught:
            open_image(path)
        assert isinstance(caught.value, ImageError)


@pytest.mark.parametrize(("limit", "value"), [("image_file_bytes", 0), ("image_pixels", 600), ("image_file_side", 30)])
def test_limits_hold_at_the_bound_and_one_above(limit, value, picture, tmp_path):
    path = tmp_path / "picture.bmp"
    Image.fromarray(picture).save(path)
    bound = value or path.stat().st_size
    assert open_image(path, limits=replace(LIMITS, **{limit: bound})).size == (20, 30)
    with pytest.raises(ImageError, match=f"limits?.* of.*{bound - 1}(.|\n)*replace") as caught:
        open_image(path, limits=replace(LIMITS, **{limit: bound - 1}))
    assert limit == "image_file_bytes" or "height 30 and width 20" in str(caught.value)


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (12_000, 14_500, "height 12000 and width 14500 are more than the limits"),
        (1, 70_000, "are more than the limits of 65535 pixels a side"),
        (40_000, 40_000, "bomb.png: .*1600000000 pixels(.|\n)*PIL.Image.MAX_IMAGE_PIXELS"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_from_its_header(height, width, words, tmp_path):
    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in [(b"IHDR", sides + bytes([8, 2, 0, 0, 0])), (b"IDAT", b"")]  # nothing there to decode
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header)
    with pytest.raises(ImageError, match=words):
        open_image(tmp_path / "bomb.png")


# preprocessor_config.json


def test_save_and_load(tmp_path):
    process = ViTImageProcessor(size=(5, 7), image_mean=0.1, crop_pct=0.9, processor_class="Some")
    (path,) = process.save_pretrained(tmp_path / "made" / "here")
    assert path == str(tmp_path / "made" / "here" / NAME)
    for loaded in (
        ViTImageProcessor.from_pretrained(tmp_path / "made" / "here"),
        ViTImageProcessor.from_pretrained(tmp_path / "made", subfolder="here"),
        ViTImageProcessor.from_pretrained(path),
        ViTImageProcessor.from_json_file(path),
        AutoImageProcessor.from_pretrained(tmp_path / "made" / "here"),
        AutoImageProcessor.from_pretrained(tmp_path / "made" / "here", use_fast=False),
        pickle.loads(pickle.dumps(process)),
        copy.deepcopy(process),
    ):
        assert type(loaded) is ViTImageProcessor
        assert loaded == process
        assert loaded.to_json_string() == process.to_json_string() == (tmp_path / "made" / "here" / NAME).read_text()
        assert repr(loaded) == f"ViTImageProcessor {process.to_json_string()}"


def test_old_feature_extractor_file(tmp_path):
    write(tmp_path, {"do_normalize": True, "feature_extractor_type": "ViTFeatureExtractor", "size": 33})
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded == ViTImageProcessor(size=33)
    assert loaded.do_rescale is True
    assert "feature_extractor_type" not in loaded.to_dict()


@pytest.mark.parametrize(
    "named", ["ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor", None]
)
def test_every_spelling_of_the_type(named, tmp_path):
    write(tmp_path, {"size": 9} if named is None else {"size": 9, "image_processor_type": named})
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded == ViTImageProcessor(size=9)
    assert loaded.to_dict()["image_processor_type"] == "ViTImageProcessor"


def test_image_processor_object_in_a_file_is_used(tmp_path):
    write(tmp_path, {"image_processor": {"size": 9, "image_processor_type": "ViTImageProcessor"}, "size": 10})
    assert ViTImageProcessor.from_pretrained(tmp_path) == ViTImageProcessor(size=9)


def test_overrides_and_unused_keywords(tmp_path):
    write(tmp_path, {"size": 9, "crop_pct": 0.9})
    options = {"size": 33, "do_resize": False, "crop_pct": 0.5}
    loaded, unused = ViTImageProcessor.from_pretrained(tmp_path, **options, foo=1, return_unused_kwargs=True)
    assert loaded == ViTImageProcessor(**options)
    assert unused == {"foo": 1}
    with pytest.raises(ImageError, match="'foo'"):
        ViTImageProcessor.from_pretrained(tmp_path, foo=1)


def test_extra_keys_are_kept_but_shadow_nothing():
    extra = {"crop_pct": 0.9, "resize": 1, "self": 2, "extra": 3, "_private": {"a": [1]}, "do_pad": False}
    process = ViTImageProcessor.from_dict(extra)
    assert process.crop_pct == 0.9
    assert process.extra == extra
    assert process.resize(np.zeros((3, 4, 4), np.uint8), 2).shape == (3, 2, 2)
    assert {**process.to_dict(), **extra} == process.to_dict()
    process.crop_pct = 0.5
    assert process.to_dict()["crop_pct"] == process.crop_pct == 0.5
    with pytest.raises(AttributeError, match="crop_pcd"):
        _ = process.crop_pcd


def test_dicts_are_copies():
    process = ViTImageProcessor(table=[1])
    process.to_dict()["size"]["height"] = 1
    process.to_dict()["table"].append(2)
    given = {"table": [1], "image_mean": [0.5] * 3}
    from_given = ViTImageProcessor(**given)
    given["table"].append(2)
    given["image_mean"].append(2)
    assert from_given == process
    assert process == ViTImageProcessor(table=[1])
    assert process != ViTImageProcessor(table=[2])
    assert process != ViTImageProcessor(size=3, table=[1])
    assert process != "ViTImageProcessor"


def test_feature_extractor_is_deprecated_and_otherwise_the_same():
    with pytest.warns(FutureWarning, match="use ViTImageProcessor") as caught:
        extractor = ViTFeatureExtractor(True, 9)
    assert caught[0].filename == __file__
    options = {**ViTImageProcessor(size=9).to_dict(), "image_processor_type": "ViTFeatureExtractor"}
    assert extractor.to_dict() == options


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"size": 9, "size": 10}', "'size'"),
        ('{"size": 9', "not valid JSON"),
        ("[]", "JSON object"),
        ("[" * 100 + "]" * 100, "nested"),
        ('{"image_processor": 3}', "image_processor"),
        ('{"image_processor_type": "CLIPImageProcessor"}', "CLIPImageProcessor"),
        ('{"feature_extractor_type": "BeitFeatureExtractor"}', "BeitFeatureExtractor"),
        ('{"do_pad": true}', "do_pad"),
        ('{"do_reduce_labels": true}', "do_reduce_labels"),
        ('{"reduce_labels": true, "do_pad": true}', "reduce_labels, do_pad"),
        ('{"data_format": "channels_last"}', "data_format: expected channels_first as an option, got 'channels_last'"),
        ('{"input_data_format": "channels_first"}', "input_data_format"),
        ('{"return_tensors": "pt"}', "return_tensors"),
        ('{"default_to_square": false}', "default_to_square"),
        ('{"size": {"height": 1e3, "width": 9}}', "size"),
        ('{"size": 1000000}', "16384"),
        ('{"image_mean": [NaN, 0, 0]}', "image_mean"),
        ('{"rescale_factor": 1' + 400 * "0" + "}", "rescale_factor"),
        ('{"resample": 99}', "resample"),
        ('{"do_resize": "yes"}', "do_resize"),
        ('{"a": "' + 17_000_000 * " " + '"}', "limit"),
    ],
)
def test_unusable_files(content, words, tmp_path):
    (tmp_path / NAME).write_text(content)
    for cls in (ViTImageProcessor, AutoImageProcessor):
        with pytest.raises(ImageError, match=words) as caught:
            cls.from_pretrained(tmp_path)
        assert str(caught.value).count("\n") <= 2


def test_absent_files(tmp_path):
    with pytest.raises(MissingFileError, match=NAME):
        ViTImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ImageError, match="expected a folder"):
        ViTImageProcessor().save_pretrained(write(tmp_path, {}) / NAME)
    with pytest.raises(ImageError, match="use_fast"):
        AutoImageProcessor.from_pretrained(tmp_path, use_fast=True)


def test_hub_options_reach_the_hub_and_overrides_do_not(tmp_path, monkeypatch):
    asked = []

    def resolve(name, files, **options):
        asked.append((name, list(files), options))
        return write(tmp_path, {"size": 9})

    monkeypatch.setattr("vit_core.hub.download.resolve", resolve)
    loaded = AutoImageProcessor.from_pretrained("owner/name", revision="v1", local_files_only=True, do_resize=False)
    assert loaded == ViTImageProcessor(size=9, do_resize=False)
    assert asked == [("owner/name", [NAME], {"revision": "v1", "local_files_only": True})]


# open_image: bytes and file objects


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_and_file_objects_are_opened_as_the_file_is(wrap, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "x.png")
    found = open_image(wrap((tmp_path / "x.png").read_bytes()))
    np.testing.assert_array_equal(np.asarray(found), picture)
    with open(tmp_path / "x.png", "rb") as file:
        np.testing.assert_array_equal(np.asarray(open_image(file)), picture)
        assert not file.closed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "the image: cannot be decoded"),
        (b"<html>", "the image: cannot be decoded"),
        (b"x" * 1001, "the image: 1001 bytes, above the limit of 1000;"),
        (io.BytesIO(b"x" * 2000), "the image: 1001 bytes, above the limit of 1000;"),
        (io.StringIO("text"), "expected a file object that reads bytes"),
        (np.zeros(3), "expected a path, bytes or a file object, got ndarray"),
        (None, "expected a path, bytes or a file object, got NoneType"),
    ],
)
def test_what_is_no_image_is_refused(given, message):
    with pytest.raises(ImageError, match=message):
        open_image(given, limits=replace(LIMITS, image_file_bytes=1000))


def test_the_other_numerics_are_refused_by_every_door(tmp_path):
    ViTImageProcessor().save_pretrained(tmp_path)
    for value in (False, None):
        assert "use_fast" not in ViTImageProcessor.from_pretrained(tmp_path, use_fast=value).to_dict()
        assert "use_fast" not in ViTImageProcessor(use_fast=value).to_dict()
    for door in (ViTImageProcessor, partial(ViTImageProcessor.from_pretrained, tmp_path)):
        with pytest.raises(ImageError, match="use_fast: expected False as an option, got True"):
            door(use_fast=True)
    options = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**options, "use_fast": True}), encoding="utf-8")
    assert ViTImageProcessor.from_pretrained(tmp_path).to_dict() == ViTImageProcessor().to_dict()
