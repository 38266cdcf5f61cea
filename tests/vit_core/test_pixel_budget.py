"""Large pictures are worked on a few at a time, by the image processor and by `vitriad classify`."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from vit_core import ViTImageProcessor, open_image
from vit_core.errors import ImageError, MissingImageError
from vit_core.images import batches as image_batches
from vit_core.images.files import image_pixels
from vit_core.images.pixel_budget import PIXELS_IN_WORK, PixelBudget


class Watch:
    """Counts what is in work."""

    def __init__(self):
        self.now, self.most, self.sizes, self.lock = 0, 0, [], threading.Lock()

    def work(self, size):
        with self.lock:
            self.now += size
            self.most = max(self.most, self.now)
            self.sizes.append(size)
        time.sleep(0.002)
        with self.lock:
            self.now -= size


def held(budget, watch, size):
    with budget.holding(size):
        watch.work(size)


def test_no_more_is_in_work_than_the_budget_has():
    watch, sizes = Watch(), [3, 4, 2, 5, 1] * 8
    with ThreadPoolExecutor(8) as threads:
        budget = PixelBudget(10)
        [*threads.map(lambda size: held(budget, watch, size), sizes)]
    assert 5 < watch.most <= 10 and sorted(watch.sizes) == sorted(sizes)


def test_what_is_larger_than_the_budget_is_worked_on_alone():
    watch, budget = Watch(), PixelBudget(10)
    with ThreadPoolExecutor(8) as threads:
        [*threads.map(lambda size: held(budget, watch, size), [2, 50, 2, 2, 50, 2])]
    assert watch.most == 50


def test_an_error_gives_its_room_back():
    budget = PixelBudget(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.holding(10):
            raise ZeroDivisionError


def test_the_image_processor_works_on_a_few_large_pictures_at_a_time(monkeypatch):
    watch = Watch()
    monkeypatch.setattr(image_batches, "PixelBudget", lambda: PixelBudget(2 * 40 * 30))
    before = image_batches.Batch._result

    def watched(self, job):
        watch.work(40 * 30)
        return before(self, job)

    monkeypatch.setattr(image_batches.Batch, "_result", watched)
    pictures = [Image.new("RGB", (40, 30), (i, 0, 0)) for i in range(12)]
    found = ViTImageProcessor(size=4)(pictures, num_threads=6)["pixel_values"]
    assert watch.most == 2 * 40 * 30
    np.testing.assert_array_equal(found, [ViTImageProcessor(size=4)(each)["pixel_values"][0] for each in pictures])


def test_the_size_of_a_file_is_in_its_header(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    assert image_pixels(tmp_path / "a.png") == image_pixels(tmp_path / "cut.png") == 2000
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_image(tmp_path / "cut.png")
    with pytest.raises(MissingImageError):
        image_pixels(tmp_path / "b.png")


MEASURED = """
import sys
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.images.pixel_budget import PixelBudget
from vit_core.images import decoding
from vitriad.classify import read_pixels
from vit_core.images.sources import ImageSource
paths, processor, config = sys.argv[2:], ViTImageProcessor(size=32), ViTConfig(image_size=32)
decoding._cores = lambda: 6
if sys.argv[1] == "unbounded":
    decoding.PixelBudget = lambda: PixelBudget(10**12)
found = decoding.decoded(map(ImageSource, paths), lambda path: read_pixels(path, processor, config), len(paths))
assert [pixels.shape for _, pixels in found] == [(3, 32, 32)] * len(paths)
status = open("/proc/self/status").read()  # getrusage would start from what the process that started this one took
print(int(status.partition("VmHWM:")[2].split()[0]) / 1000)
"""


@pytest.mark.long
def test_pictures_of_many_megapixels_take_the_memory_of_one(tmp_path):
    side = int((0.8 * PIXELS_IN_WORK) ** 0.5)
    Image.new("RGB", (side, side), (10, 20, 30)).save(tmp_path / "a.png")

    def megabytes(how):
        run = [sys.executable, "-c", MEASURED, how, *[str(tmp_path / "a.png")] * 6]
        environment = {**os.environ, "PILLOW_BLOCK_SIZE": "64m"}  # as the command line has it
        return float(subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout)

    assert megabytes("bounded") < 450 < megabytes("unbounded")
