"""Damaged checkpoints by the thousand, and checkpoints that are saved while they are loaded."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from reliability import bad_inputs

import conversion
from vit_core.errors import CheckpointError

CLASS = "ViTForImageClassification"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file after one accident."""
    place, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
    if rng.random() < 0.5:  # half of the accidents happen to the header
        place %= 2000
    damage = rng.bytes(length)
    return [
        content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :],
        content[:place] + damage + content[place + length :],
        content[:place] + damage + content[place:],
        content[:place] + content[place + length :],
        content[:place],
        content[:place] + bytes(length) + content[place + length :],
        content[:place] + content[place : place + length] + content[place:],
    ][int(rng.integers(7))]


def ends(folder: Path, original: bytes, count: int) -> Counter:
    """How loading ends for so many mutants; an error of any other class is raised."""
    rng, found = np.random.default_rng(count), Counter()
    expected = {name: np.array(array) for name, array in conversion.load_pretrained(folder, CLASS, {}).tensors.items()}
    for _ in range(count):
        (folder / "model.safetensors").write_bytes(content := mutated(original, rng))
        try:
            tensors = conversion.load_pretrained(folder, CLASS, {}).tensors
        except CheckpointError as error:
            assert str(folder) in str(error) and len(str(error).splitlines()) <= 3
            found["refused"] += 1
            continue
        same = all(tensors[name].tobytes() == array.tobytes() for name, array in expected.items())
        found["unchanged" if same or content == original else "changed"] += 1
    return found


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=[pytest.mark.reliability])])
@pytest.mark.parametrize("manifest", [True, False])
def test_mutants(tmp_path, manifest, count, figure):
    bad_inputs.saved(tmp_path, manifest)
    found = ends(tmp_path, (tmp_path / "model.safetensors").read_bytes(), count)
    figure(f"mutants, {count}, {'with' if manifest else 'without'} a manifest", dict(found))
    assert found["refused"] > count / 4
    assert (found["changed"] == 0) is manifest  # the format has no checksum of its own: this test can fail


SAVER = """
import os, sys, time
import conversion
from vit_core import ViTConfig
from vit_core.files import atomic_folder
from vit_core.parameters import draw

how, folder, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
if how == "rename aside":
    atomic_folder._exchange = lambda one, other: False
if how == "in place":
    os.chdir(folder)
until, saves = time.monotonic() + seconds, 0
while time.monotonic() < until:
    saves += 1
    config = ViTConfig(12, 1 + saves % 2, 2, 8, image_size=8, patch_size=4)
    conversion.save_pretrained(folder, config, draw(config, "ViTModel", saves), class_name="ViTModel")
print(saves)
"""


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=[pytest.mark.reliability])])
@pytest.mark.parametrize("how", ["exchange", "rename aside", "in place"])
def test_a_load_during_saves_finds_one_checkpoint(tmp_path, how, seconds, figure):
    """The number of layers alternates, so that a mix of two saves cannot be loaded."""
    folder = tmp_path / "model"
    config = bad_inputs.ViTConfig(**bad_inputs.SIZES)
    conversion.save_pretrained(folder, config, bad_inputs.draw(config, "ViTModel", 0), class_name="ViTModel")
    command = [sys.executable, "-c", SAVER, how, str(folder), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loads = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as saver:
        while saver.poll() is None:
            loaded = conversion.load_pretrained(folder, "ViTModel", {})
            assert len(loaded.tensors) in (24, 40)
            loads += 1
        saves = int(saver.stdout.read())
    assert saver.returncode == 0 and saves > 5 and loads > 5
    figure(f"loads during saves, {how}, {seconds} s", f"{loads} loads, {saves} saves, 0 errors, 0 mixed")
