"""HDF5 files on disks that fail: an error of ours at every call, never a crash inside the library."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write

import conversion
from vit_core.errors import CheckpointError
from vit_core.files import h5
from vit_core.files.containers import open_any

CLS = "ViTMAEModel"
CALLS = ("pwrite", "ftruncate", "fsync", "pread")


@pytest.fixture
def source(tmp_path):
    config = make_config(CLS, image_size=12)
    write(tmp_path / "source", config, make_tensors(CLS, config))
    return tmp_path / "source"


def write_file(path, source):
    path.unlink(missing_ok=True)
    tensors = open_any(source / "model.safetensors").tensors
    h5.write_h5(
        path, {f"vit/{name}:0": tensor for name, tensor in tensors.items()}, "tf_vi_tmae_model", lambda size: None
    )


def failing(call, number, problem):
    """A call of the system that raises `problem` when it is made for the time of this number."""
    original, made = getattr(os, call), []

    def fail(*arguments):
        made.append(arguments)
        if len(made) == number:
            raise problem
        return original(*arguments)

    return fail


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_disk_that_fails_at_any_call(source, tmp_path, monkeypatch, call, problem):
    failed = 0
    for number in range(1, 1000):
        with monkeypatch.context() as patch:
            patch.setattr(h5.os, call, failing(call, number, problem))
            try:
                write_file(tmp_path / "x.h5", source)
                break
            except type(problem) as caught:
                assert caught is problem
                failed += 1
    assert failed >= {"pwrite": 40, "ftruncate": 1, "fsync": 1, "pread": 0}[call]
    found = open_any(tmp_path / "x.h5").tensors
    for name, tensor in open_any(source / "model.safetensors").tensors.items():
        np.testing.assert_array_equal(found[f"vit/{name}:0"].read(), tensor.read())


def test_writes_that_take_a_part_are_gone_on_with(source, tmp_path, monkeypatch):
    write_file(tmp_path / "x.h5", source)
    original = os.pwrite
    monkeypatch.setattr(h5.os, "pwrite", lambda file, data, start: original(file, data[:7], start))
    write_file(tmp_path / "y.h5", source)
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_a_disk_that_forgets_is_found_out(source, tmp_path, monkeypatch):
    original = os.pwrite
    size = 4 * 12 * 3 * 4 * 4  # bytes of the patch projection

    def forget(file, data, start):
        return len(data) if len(data) == size else original(file, data, start)

    monkeypatch.setattr(h5.os, "pwrite", forget)
    with pytest.raises(CheckpointError, match=r"projection\.weight:0: not what was written\."):
        write_file(tmp_path / "x.h5", source)


CONVERT = """
import resource, sys
import conversion
from vit_core.errors import CheckpointError
source, target, *limits = sys.argv[1:]
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in map(int, limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        conversion.convert(source, target, to="hf_tf", force=True)
        print("written")
    except CheckpointError as error:
        print(str(error).splitlines()[0])
"""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr)  # no crash
    return done.stdout.splitlines()


def test_a_limit_on_the_size_of_files(source, tmp_path):
    target = tmp_path / "new"
    conversion.convert(source, target, to="hf_tf")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    size = len(before["tf_model.h5"])
    limits = [2048, 4096, *range(size // 2, size, size // 8), size - 1]  # above the length of config.json
    lines = run(sys.executable, "-c", CONVERT, str(source), str(target), *map(str, limits), str(size))
    assert lines == [f"{target}: saving failed: File too large."] * len(limits) + ["written"]
    assert {path.name for path in target.iterdir()} == before.keys()
    assert (target / "tf_model.h5").read_bytes() == before["tf_model.h5"]


def test_a_full_file_system(source, tmp_path):
    """Of so few bytes more than the weights that the check before the save lets it begin."""
    conversion.convert(source, tmp_path / "whole", to="hf_tf")
    size = (tmp_path / "whole" / "tf_model.h5").stat().st_size
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    for pages in range(size // 4096 - 6, size // 4096 + 1, 2):
        command = ["unshare", "-rm", "sh", "-c", script, "sh", str(4096 * pages), str(mounted)]
        lines = run(*command, sys.executable, "-c", CONVERT, str(source), str(mounted / "new"), str(2**40))
        assert "No space left on device" in lines[0] or "bytes free" in lines[0], lines
