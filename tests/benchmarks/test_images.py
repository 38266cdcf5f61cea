"""Speed and memory of the image processor; read the ratios within a group, not the times.

The floor is Pillow's resize alone, of images that are decoded already.
"""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vit_core import ViTImageProcessor

pytestmark = pytest.mark.bench

BATCHES = {"32 images of 640 x 480": (32, 480, 640), "8 images of 12 megapixels": (8, 3000, 4000)}


def photographs(name: str) -> list[Image.Image]:
    """Smooth pictures, as photographs are."""
    rng, (count, height, width) = np.random.default_rng(0), BATCHES[name]
    spots = [Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(count)]
    return [image.resize((width, height), Image.Resampling.BICUBIC) for image in spots]


@pytest.mark.parametrize("what", ["pillow", "1 thread", "2 threads"])
@pytest.mark.parametrize("name", BATCHES)
def test_batch(benchmark, name, what):
    benchmark.group = f"{name} to 224 x 224"
    images, process = photographs(name), ViTImageProcessor()

    def run() -> None:
        if what == "pillow":
            for image in images:
                image.resize((224, 224), Image.Resampling.BILINEAR)
        else:
            process(images, return_tensors="np", num_threads=int(what[0]))

    benchmark.pedantic(run, rounds=60 if "640" in name else 10, warmup_rounds=2)


PEAK = """
import sys
from pathlib import Path
from PIL import Image
from vit_core import ViTImageProcessor, open_image

def peak():  # bytes
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

ViTImageProcessor()(Image.new("RGB", (64, 64)), return_tensors="np")
before = peak()
image = open_image(sys.argv[1])
ViTImageProcessor()(image, return_tensors="np")
print((peak() - before) / (image.width * image.height))
"""


def test_peak_memory_of_100_megapixels(benchmark, tmp_path):
    """Bytes a pixel, decoding included; Pillow itself holds 4."""
    path = tmp_path / "large.png"
    Image.new("RGB", (10_000, 10_000), (200, 100, 50)).save(path)
    benchmark.group = "a picture of 100 megapixels: bytes a pixel at peak are in extra_info"
    found = []

    def run() -> None:
        command = [sys.executable, "-W", "ignore", "-c", PEAK, str(path)]
        found.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["bytes a pixel"] = round(found[0], 2)
    assert found[0] <= 4.5
