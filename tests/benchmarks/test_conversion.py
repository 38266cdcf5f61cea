"""Converting ViT-H/14 (2.5 GB) against copying, syncing and hashing the same file; read the ratios, not the times.

`make bench-once` runs these. `peak_mb` is what a process needs beyond its imports.
"""

import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from vit_core.config import ViTConfig
from vit_core.files.arrays import LazyArray
from vit_core.files.saving import save_folder
from vit_core.parameters import parameter_table

pytestmark = pytest.mark.bench

H14 = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
CODE = """
import sys, conversion
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
conversion.convert(sys.argv[1], sys.argv[2], to=sys.argv[3], force=True, allow=("numerics",))
print((peak() - before) // 1024)
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A folder with random weights, made without holding them."""
    folder = tmp_path_factory.mktemp("huge") / "model"
    config = ViTConfig(**H14, patch_size=14, num_labels=1000, layer_norm_eps=1e-6)
    random = np.random.default_rng(0)
    tensors = {
        name: LazyArray(np.dtype(np.float32), row.shape, lambda shape=row.shape: random.random(shape, np.float32))
        for name, row in parameter_table(config, "ViTForImageClassification").items()
    }
    save_folder(folder, files={"config.json": config.to_json_string()}, tensors=tensors)
    (folder / "manifest.json").unlink()
    yield folder
    shutil.rmtree(folder.parent)


def copied(source, target):
    digest = hashlib.sha256()
    with open(source, "rb") as old, open(target, "wb") as new:
        while piece := old.read(16_000_000):
            new.write(piece)
            digest.update(piece)
        new.flush()
        os.fsync(new.fileno())


@pytest.mark.benchmark(group="ViT-H/14: convert, against copying")
@pytest.mark.parametrize("to", ["copy", "timm", "google", "hf_tf", "hf_flax", "torchvision"])
def test_convert(benchmark, huge, to):
    target = huge.parent / {"google": "new.npz", "torchvision": "new.safetensors"}.get(to, "new")

    def run():
        if to == "copy":
            return copied(huge / "model.safetensors", target)
        done = subprocess.run(
            [sys.executable, "-c", CODE, huge, target, to], capture_output=True, text=True, check=True
        )
        benchmark.extra_info["peak_mb"] = max(benchmark.extra_info.get("peak_mb", 0), int(done.stdout))

    benchmark.pedantic(run, rounds=2)
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert benchmark.extra_info.get("peak_mb", 0) <= 400
