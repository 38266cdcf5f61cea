"""Memory of the image processor for a large picture."""

import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.bench

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
