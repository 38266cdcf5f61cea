"""Large images in a mode that is converted: part by part, to the same bits, and without a copy of their size."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vit_core.errors import ImageError
from vit_core.images import pictures, steps
from vit_core.images.processor import ViTImageProcessor

RNG = np.random.default_rng(5)
SIZES = [(45, 60), (90, 20), (20, 90), (40, 40)]  # height, width; the second has its height resized first
OPTIONS = {
    "bilinear": {"size": (16, 12)},
    "bicubic": {"size": (16, 12), "resample": 3},
    "nearest": {"size": (16, 12), "resample": 0},
    "larger": {"size": (100, 120)},
    "the same size": {"size": (40, 40)},
    "wide": {"size": (16, 90)},
    "background": {"size": (16, 12), "alpha_background": (200, 30, 90)},
    "gray background": {"size": (16, 12), "alpha_background": (70, 70, 70)},
    "one mean": {"size": (16, 12), "image_mean": 0.5, "image_std": 0.5},
    "cropped": {"size": (16, 12), "do_center_crop": True, "crop_size": 10},
    "as the reference": {"size": (16, 12), "compatible": True},
}


def images(height: int, width: int) -> dict[str, Image.Image]:
    rgba = Image.fromarray(RNG.integers(0, 256, (height, width, 4), dtype=np.uint8))
    rgb, deep = rgba.convert("RGB"), RNG.integers(0, 65_536, (height, width), dtype=np.uint16)
    few = {mode: rgba.convert(mode) for mode in ("LA", "1")} | {mode: rgb.convert(mode) for mode in ("CMYK", "YCbCr")}
    found = {"RGBA": rgba, "RGB": rgb, "P": rgb.quantize(99), "PA": rgb.quantize(99).convert("PA"), **few}
    found |= {
        "P with a clear level": rgb.quantize(99),
        "I;16": Image.fromarray(deep),
        "I;16, clear": Image.fromarray(deep),
    }
    found["P with a clear level"].info["transparency"] = 3
    found["I;16, clear"].info["transparency"] = int(deep[1, 2])
    found["I;16B"] = Image.frombytes("I;16B", (width, height), deep.astype(">u2").tobytes())
    found["I"], found["I of 8 bits"] = (
        Image.fromarray(deep.astype(np.int32)),
        Image.fromarray((deep % 256).astype(np.int32)),
    )
    return found


def result(process: ViTImageProcessor, image: Image.Image) -> np.ndarray:
    """Pixel values, or the words that refuse the image, as the reference does fractions above 1."""
    try:
        return process(image, return_tensors="np")["pixel_values"]
    except ImageError as error:
        return np.array(str(error))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parts_change_no_bit(options, monkeypatch):
    process = ViTImageProcessor(**options)
    split = []
    resize = steps.resize_parts
    monkeypatch.setattr(steps, "resize_parts", lambda *given: split.append(1) or resize(*given))
    for height, width in SIZES:
        for mode, image in images(height, width).items():
            expected = result(process, image)
            with monkeypatch.context() as patch:
                for module in (pictures, steps):
                    patch.setattr(module, "PART", 70)  # some rows, or less than one
                np.testing.assert_array_equal(result(process, image), expected, mode)
    assert len(split) == len(SIZES) * (8 if "compatible" in options else 13)


def test_what_cannot_be_used_is_refused_as_a_whole(monkeypatch):
    for module in (pictures, steps):
        monkeypatch.setattr(module, "PART", 10)
    with pytest.raises(ImageError, match=r"image 0 of 1: expected levels .* mode I with 0 to 65536"):
        ViTImageProcessor(size=4)(Image.fromarray(np.arange(65_537, dtype=np.int32).reshape(1, -1)))


PEAK = """
import sys
from PIL import Image
from vit_core import ViTImageProcessor

def peak():  # bytes; getrusage would start from what the process that started this one took
    return 1024 * int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])

process = ViTImageProcessor()
process(Image.new(sys.argv[1], (1500, 1500)), return_tensors="np")
before = peak()
image = Image.new(sys.argv[1], (6000, 6000))
process(image, return_tensors="np")
print((peak() - before) / (image.width * image.height))
"""


@pytest.mark.parametrize(("mode", "own"), [("RGBA", 4), ("P", 1), ("I;16", 2), ("LA", 4), ("CMYK", 4)])
def test_a_large_image_takes_hardly_more_than_itself(mode, own):
    """Bytes a pixel; converted as a whole RGBA takes 8, a palette 5, 16 bits 10."""
    run = subprocess.run([sys.executable, "-c", PEAK, mode], capture_output=True, text=True, check=True)
    assert float(run.stdout) <= own + 0.6
