"""What the system says no to, and names that no file can have, end in errors of ours."""

import os
import subprocess
import sys

import pytest
from checkpoints import make_config, make_tensors, write
from PIL import Image
from refusing import as_nobody

import conversion
from vit_core import ViTConfig, ViTImageProcessor, open_image
from vit_core.config import AutoConfig
from vit_core.errors import CheckpointError, ImageError, InputError, VitError
from vitriad.cli import main

CLASSIFIER = "ViTForImageClassification"


@pytest.fixture
def folder(tmp_path):
    config = make_config(CLASSIFIER, image_size=8)
    write(tmp_path / "m", config, make_tensors(CLASSIFIER, config))
    return tmp_path / "m"


def load_all(where, **options):
    return conversion.load_pretrained(where, CLASSIFIER, options)


READERS = [load_all, conversion.load, conversion.detect, AutoConfig.from_pretrained]


@pytest.fixture
def open_to_all(tmp_path):
    """pytest's own folders are its user's alone."""
    for place in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        place.chmod(0o755)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("place", ["m", ""])
def test_a_folder_that_may_not_be_looked_into(place, read, folder, tmp_path, open_to_all):
    (tmp_path / place).chmod(0)
    try:
        with as_nobody(), pytest.raises(VitError, match="Permission denied") as caught:
            read(folder)
    finally:
        (tmp_path / place).chmod(0o755)
    assert str(caught.value).count("\n") < 3


@pytest.mark.parametrize("to", ["hf", "timm", "hf_flax", "google"])
def test_a_target_that_may_not_be_looked_into(to, folder, tmp_path, open_to_all):
    (tmp_path / "new").mkdir(mode=0)
    target = tmp_path / "new" / "x.npz" if to == "google" else tmp_path / "new"
    with as_nobody(), pytest.raises(VitError, match=r"Permission denied|read-only"):
        conversion.convert(folder, target, to=to, allow=["numerics"])


@pytest.mark.parametrize("limits", [1, None, {"layers": 3}])
@pytest.mark.parametrize("read", READERS)
def test_limits_that_are_none(read, limits, folder):
    if limits is None and read is load_all:  # None is a keyword that is not given
        limits = 0
    with pytest.raises(InputError, match="limits: expected replace"):
        read(folder, limits=limits)


def test_limits_of_images_that_are_none(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="limits: expected replace"):
        open_image(tmp_path / "a.png", limits=1)
    with pytest.raises(InputError, match="limits: expected replace"):
        ViTImageProcessor(size=4)(Image.new("RGB", (4, 4)), limits=1)


@pytest.mark.parametrize("words", ["limits=1", "mmap=0", "variant=3", "cache_dir=1", "token=1", "strict=false"])
def test_options_of_loading_are_no_fields(words, folder, capsys):
    for command in (["inspect", str(folder)], ["convert", str(folder), str(folder.parent / "new"), "--to", "timm"]):
        assert main([*command, "--set", words]) == 1
        name = words.partition("=")[0]
        assert capsys.readouterr().err == (
            f"vitriad: error: --set {name}: an option of loading, not a field of the configuration.\n"
        )


IMPOSSIBLE = {"a NUL": "a\0b", "overlong": 300 * "x", "overlong, inside": f"{300 * 'x'}/m"}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_names_that_no_file_can_have(case, folder, tmp_path):
    name = f"{tmp_path}/{IMPOSSIBLE[case]}"
    config = make_config(CLASSIFIER)
    for act in (
        *(lambda read=read: read(name) for read in READERS),
        lambda: conversion.convert(folder, name, to="hf"),
        lambda: conversion.convert(folder, name, to="timm", force=True),
        lambda: conversion.convert(folder, f"{name}.npz", to="google", allow=["numerics"]),
        lambda: conversion.save_pretrained(name, config, make_tensors(CLASSIFIER, config), class_name=CLASSIFIER),
        lambda: config.save_pretrained(name),
        lambda: ViTImageProcessor().save_pretrained(name),
        lambda: ViTImageProcessor.from_pretrained(name),
        lambda: ViTConfig.from_json_file(f"{name}.json"),
        lambda: open_image(name),
    ):
        with pytest.raises(VitError) as caught:
            act()
        assert str(caught.value).count("\n") < 3


def test_more_shards_than_files_that_may_be_open(tmp_path):
    config = make_config(CLASSIFIER)
    tensors = make_tensors(CLASSIFIER, config)
    conversion.save_pretrained(tmp_path / "m", config, tensors, class_name=CLASSIFIER, max_shard_size=300)
    assert len([*(tmp_path / "m").glob("*.safetensors")]) > 24
    code = (
        "import sys, resource, conversion\nresource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "try: print(len(conversion.load(sys.argv[1], mmap=len(sys.argv) < 3, verify=False)[1]))\n"
        "except conversion.detect.__globals__['VitError'] as error: print(type(error).__name__, error)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "m")]
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert text.startswith("CheckpointError ") and "Too many open files" in text and "mmap=False" in text
    assert subprocess.run([*run, "copied"], capture_output=True, text=True, check=True).stdout.strip().isdecimal()


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("copied", [False, True])
def test_no_memory_for_weights(copied, folder, monkeypatch):
    if copied:
        monkeypatch.setattr("vit_core.files.arrays.np.empty", raising(MemoryError("Unable to allocate 3 GiB")))
    else:
        monkeypatch.setattr("vit_core.files.arrays.mapping.mmap", raising(OSError(12, os.strerror(12))))
    for read in (load_all, conversion.load):
        with pytest.raises(CheckpointError, match="out of memory: Unable to" if copied else "Cannot allocate memory"):
            read(folder, mmap=not copied)


def test_no_memory_for_a_cast(folder, monkeypatch):
    monkeypatch.setattr("conversion.fitting.check_finite", raising(MemoryError()))
    with pytest.raises(CheckpointError, match="out of memory"):
        load_all(folder)


def test_no_memory_for_an_image(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    image = Image.new("RGB", (4, 4))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", raising(MemoryError()))
    with pytest.raises(ImageError, match=r"a\.png: not enough memory to decode it"):
        open_image(tmp_path / "a.png")
    monkeypatch.setattr("vit_core.images.steps.resize", raising(MemoryError()))
    with pytest.raises(ImageError, match="image 0 of 1: not enough memory"):
        ViTImageProcessor(size=8)(image)
