"""Saves: what is written, what is kept, what is refused before anything is written."""

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import refusing
import safetensors.numpy

from vit_core.errors import CheckpointError, ConfigError, InputError
from vit_core.files import atomic_folder, saving, writers
from vit_core.files.atomic_folder import finish_swap
from vit_core.files.folders import open_weights
from vit_core.files.saving import save_folder

TENSORS = {f"layer.{i}.weight": np.full((2, i), i, np.float32) for i in (1, 2, 10)}
CONFIG = {"config.json": '{"hidden": "größe"}\n'}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "parent" / "model"


def save(folder, tensors=TENSORS, **options):
    save_folder(folder, files=CONFIG, tensors=tensors, **options)


def check(folder, tensors=TENSORS):
    weights = open_weights(folder, verify=True)
    assert sorted(weights) == sorted(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(weights[name], array)
    assert (folder / "config.json").read_text(encoding="utf-8") == CONFIG["config.json"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no lock, nothing half done


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(folder, error=CheckpointError, **options):
    return refusing.refusal(lambda: save(folder, **options), error)


@pytest.fixture(params=["exchange", "aside"])
def swapping(request, monkeypatch):
    """Both ways to swap folders, whatever the system has."""
    if request.param == "aside":
        monkeypatch.setattr(atomic_folder, "_exchange", lambda one, other: False)


# What is written


def test_the_library_reads_what_is_written(folder):
    save(folder)
    found = safetensors.numpy.load_file(folder / "model.safetensors")
    assert [*found] == sorted(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array)


def test_arrays_of_any_memory_order_are_written(folder):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {
        "t": array.T,
        "strided": array[:, ::2],
        "backwards": array[..., ::-1],
        "0-d": np.float32(3) * array[0, 0, 1],
    }
    save(folder, {name: np.asarray(value) for name, value in tensors.items()})
    check(folder, tensors)


def test_shards_fill_in_order_and_the_index_is_that_of_transformers(folder):
    save(folder, max_shard_size=30)
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert names(folder) == ["config.json", "manifest.json", *shards, "model.safetensors.index.json"]
    assert (folder / "model.safetensors.index.json").read_text() == (
        '{\n  "metadata": {\n    "total_parameters": 26,\n    "total_size": 104\n  },\n  "weight_map": {\n'
        f'    "layer.1.weight": "{shards[0]}",\n    "layer.10.weight": "{shards[1]}",\n'
        f'    "layer.2.weight": "{shards[0]}"\n  }}\n}}\n'
    )
    check(folder)


@pytest.mark.parametrize(
    ("size", "count"), [(104, 1), (103, 2), ("104", 1), ("1KB", 1), ("0.1 KB", None), (24, 2), (23, 3), (1, 3)]
)
def test_sizes_of_shards(folder, size, count):
    if count is None:
        assert "max_shard_size: expected bytes, or text like" in refusal(folder, InputError, max_shard_size=size)
        return
    save(folder, max_shard_size=size)
    assert sum(name.endswith(".safetensors") for name in names(folder)) == count
    check(folder)


@pytest.mark.parametrize(("text", "size"), [("2kb", 2000), ("3 MiB", 3 * 2**20), ("5GB", 5 * 10**9), (7, 7)])
def test_units_of_sizes(text, size):
    assert saving._bytes(text) == size


@pytest.mark.parametrize("size", [0, -1, "", "GB", "5XB", "1.5GB", None, 2.5, "٣"])
def test_sizes_that_mean_nothing_are_refused(folder, size):
    refusal(folder, InputError, max_shard_size=size)
    assert not folder.parent.exists()


def test_more_shards_than_can_be_read_are_refused(folder):
    message = refusal(folder, InputError, tensors={str(i): np.ones(1) for i in range(1025)}, max_shard_size=1)
    assert message.startswith("max_shard_size: 1 makes 1025 files, above the limit of 1024")


@pytest.mark.parametrize("dtype", [object, "U3", "complex64", ">f4", "datetime64[s]"])
def test_dtypes_the_format_does_not_have_are_refused(folder, dtype):
    assert refusal(folder, tensors={"x": np.zeros(2, dtype)}).startswith("x: dtype ")
    assert not folder.parent.exists()


# What is kept


def test_other_files_are_kept_as_hard_links(folder, swapping):
    save(folder, max_shard_size=30)
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("preprocessor_config.json", "optimizer.pt", "sub/deep/file", "model-x-of-y.safetensors"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to("sub/deep/file")
    os.mkfifo(folder / "sub" / "pipe")
    numbers = {name: (folder / name).stat().st_ino for name in ("optimizer.pt", "sub/deep/file")}
    save(folder)
    kept = ["link", "model-x-of-y.safetensors", "preprocessor_config.json", "optimizer.pt", "sub"]
    assert names(folder) == sorted(["config.json", "manifest.json", "model.safetensors", *kept])
    assert {name: (folder / name).stat().st_ino for name in numbers} == numbers
    assert (folder / "link").readlink().name == "file" and (folder / "sub" / "pipe").is_fifo()
    check(folder)


def test_files_are_copied_where_there_are_no_hard_links(folder, monkeypatch):
    save(folder)
    (folder / "other").write_text("text")

    def refuse(*args, **options):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    save(folder)
    assert (folder / "other").read_text() == "text"
    check(folder)


def test_mapped_tensors_outlive_the_save_that_replaces_them(folder, swapping):
    save(folder)
    old = dict(open_weights(folder))
    save(folder, {name: array + 1 for name, array in old.items()})
    save(folder, old)
    check(folder)


def test_a_link_to_a_folder_stays_a_link(folder, tmp_path):
    save(folder)
    (tmp_path / "link").symlink_to(folder)
    save(tmp_path / "link", {"a": np.ones(1)})
    assert (tmp_path / "link").is_symlink()
    check(folder, {"a": np.ones(1)})


def test_permissions_of_the_folder_stay(folder):
    save(folder)
    folder.chmod(0o750)
    save(folder)
    assert folder.stat().st_mode & 0o777 == 0o750


# What is refused


def test_a_file_is_no_folder(folder):
    folder.parent.mkdir()
    folder.write_text("text")
    assert refusal(folder) == f"{folder}: expected a folder to save into, got a file."
    assert folder.read_text() == "text" and names(folder.parent) == ["model"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [("", "expected a folder to save into, got an empty name."), ("/", "/: the root of a file system: save into")],
)
def test_a_place_that_is_no_folder_of_its_own_is_refused(tmp_path, monkeypatch, place, reason):
    monkeypatch.chdir(tmp_path)
    assert refusal(place).startswith(reason)
    assert names(tmp_path) == []


def test_a_folder_below_a_file_is_refused(folder):
    folder.parent.write_text("text")
    assert "saving failed: " in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model-00001-of-00002.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_not_removed(folder, name):
    (folder / name / "inner").mkdir(parents=True)
    assert refusal(folder) == f"{folder}: {name} is a folder, where a file is to be saved."
    assert (folder / name / "inner").is_dir() and names(folder.parent) == ["model"]


def test_a_read_only_place_is_refused(folder, monkeypatch):
    for closed in (folder.parent, folder):
        if closed == folder:
            save(folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, mode, closed=closed: path != closed)
            assert refusal(folder) == f"{folder}: cannot be saved to: {closed} is read-only."
    check(folder)


def test_a_file_mounted_from_elsewhere_is_not_taken_away(folder, monkeypatch):
    save(folder)
    (folder / "mounted").write_text("text")

    def refuse(*args, **options):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assert "Invalid cross-device link" in refusal(folder, tensors={"new": np.ones(1)})
    assert (folder / "mounted").read_text() == "text"


def test_too_little_space_is_refused(folder, monkeypatch):
    size = 104 + len(CONFIG["config.json"])
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(1.1 * size)))
    assert refusal(folder) == f"{folder}: {size} bytes to save, and only {int(1.1 * size)} bytes free."
    assert names(folder.parent) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(1.1 * size) + 1))
    save(folder)


def test_a_second_writer_is_told_who_is_the_first(folder):
    save(folder)
    tensors = {"slow": np.ones(3)}

    class Slow(dict):
        def __getitem__(self, name):
            message = refusal(folder)
            assert message == f"{folder}: process {os.getpid()} is saving to it right now."
            save = f"save_folder({str(folder)!r}, files={{}}, tensors={{}})"
            code = f"from vit_core.files.saving import save_folder; {save}"
            other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert message in other.stderr
            return super().__getitem__(name)

    save(folder, Slow(tensors))
    check(folder, tensors)


# Folders that have to stay


@pytest.fixture(params=["where it runs", "where it runs, within", "mount point", "mount point within", "closed parent"])
def staying(request, folder, monkeypatch):
    """A saved folder that cannot be swapped with another one."""
    save(folder, {"old": np.ones(1)}, max_shard_size=1)
    (folder / "sub").mkdir()
    (folder / "sub" / "other").write_text("kept")
    if request.param == "closed parent":
        monkeypatch.setattr(os, "access", lambda path, mode: path != folder.parent)
    elif "mount" in request.param:
        mounted = os.fspath(folder / "sub" if "within" in request.param else folder)
        monkeypatch.setattr(os.path, "ismount", lambda path: os.fspath(path) == mounted)
    else:
        monkeypatch.chdir(folder / "sub" if "within" in request.param else folder)
    return folder


def test_a_folder_that_has_to_stay_gets_the_files(staying):
    number = staying.stat().st_ino
    for options in ({"max_shard_size": 30}, {}, {"variant": "fp16"}, {}):
        save(staying, **options)
        check(staying)
    assert staying.stat().st_ino == number and (staying / "sub" / "other").read_text() == "kept"
    assert names(staying) == ["config.json", "manifest.json", "model.fp16.safetensors", "model.safetensors", "sub"]
    open_weights(staying, variant="fp16", verify=True)


@pytest.mark.parametrize("moved", range(5))
@pytest.mark.parametrize("finish", [finish_swap, save])
def test_a_decided_save_is_finished_from_anywhere(folder, monkeypatch, finish, moved):
    save(folder, {"old": np.ones(1), "older": np.ones(1)}, max_shard_size=8)
    replace, calls = os.replace, []

    def fail(source, target):
        if len(calls) == moved:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)
        calls.append(target)

    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(os, "replace", fail)
        if moved < 3:  # the files of a save
            assert "saving failed: Input/output error" in refusal(folder)
            assert (folder / ".vitriad.new").is_dir()
        else:
            save(folder)
    finish(folder)
    assert names(folder) == ["config.json", "manifest.json", "model.safetensors"]
    check(folder)


def test_files_that_a_link_leads_to_are_not_moved_in(folder, monkeypatch):
    save(folder)
    elsewhere = folder.parent / "elsewhere"
    (elsewhere / ".stale").mkdir(parents=True)
    (elsewhere / "config.json").write_text("precious")
    (folder / ".vitriad.new").symlink_to(elsewhere)
    finish_swap(folder)
    monkeypatch.chdir(folder)
    refusal(folder)
    assert (elsewhere / "config.json").read_text() == "precious"


# Leftovers


@pytest.fixture
def dead():
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_dead_saves_left_behind_is_removed(folder, dead):
    save(folder)
    others = [f".model.tmp-{os.getppid()}", f".model2.tmp-{dead}", ".model.tmp-x", f".model.tmp-1.tmp-{dead}"]
    stale = [f".model.tmp-{dead}", f".model.tmp-{os.getpid()}", f".model.tmp-{2**70}", f".model.old-{dead + 1}"]
    for name in (*others, *stale):
        (folder.parent / name / "inner").mkdir(parents=True)
    (folder.parent / ".model.lock").write_text(str(dead))
    save(folder)
    assert names(folder.parent) == sorted(["model", *others])


@pytest.mark.parametrize("is_new_there", [True, False])
@pytest.mark.parametrize("finish", [finish_swap, save])
def test_an_interrupted_swap_is_finished(folder, dead, is_new_there, finish):
    for kind, tensors in (("tmp", TENSORS), ("old", {"old": np.ones(1)})):
        save(folder.with_name(kind), tensors)
        (folder.with_name(kind) / "other").write_text("kept")
        os.rename(folder.with_name(kind), folder.with_name(f".model.{kind}-{dead}"))
    if not is_new_there:
        shutil.rmtree(folder.with_name(f".model.tmp-{dead}"))
    finish(folder)
    assert (folder / "other").read_text() == "kept"
    check(folder, TENSORS if is_new_there or finish is save else {"old": np.ones(1)})


def test_a_folder_made_anew_does_not_lose_an_interrupted_save(folder, dead):
    """As by a program that makes its output folder before it saves."""
    for kind in ("tmp", "old"):
        save(folder.with_name(f".model.{kind}-{dead}"), {kind: np.ones(1)})
    folder.mkdir()
    (folder / "something").write_text("else")
    message = refusal(folder)
    assert message.startswith(f"{folder}: a save to it was interrupted, and something else was put there since.")
    assert f".model.tmp-{dead}, what it was to replace in .model.old-{dead}: move or delete both." in message
    (folder / "something").unlink()
    finish_swap(folder)
    check(folder, {"tmp": np.ones(1)})


def test_a_reader_waits_for_a_save_that_is_putting_its_files_in_place(folder, dead, monkeypatch):
    save(folder.with_name(f".model.old-{dead}"))
    monkeypatch.setattr(atomic_folder, "_PATIENCE", 0.05)
    monkeypatch.setattr(writers, "_GLANCE", -1)
    with writers.locked(folder, False), pytest.raises(CheckpointError, match=f"process {os.getpid()} is saving"):
        finish_swap(folder)

    def saved_meanwhile(seconds):
        os.rename(folder.with_name(f".model.old-{dead}"), folder)

    monkeypatch.setattr(atomic_folder.time, "sleep", saved_meanwhile)
    with writers.locked(folder, False):
        finish_swap(folder)
    check(folder)


def test_a_swap_that_a_reader_cannot_finish_is_named(folder, dead, monkeypatch):
    save(folder.with_name(f".model.old-{dead}"))

    def refuse(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match="interrupted, and cannot be finished: Read-only file system"):
        finish_swap(folder)


@pytest.mark.parametrize("name", ["none", "owner/none", "a\0b", ""])
def test_there_is_nothing_to_finish(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    finish_swap(name)
    assert list(tmp_path.iterdir()) == []


def test_a_swap_that_fails_half_way_is_undone(folder, monkeypatch):
    save(folder)
    rename = os.rename

    def fail(source, target):
        if os.fspath(target) == os.fspath(folder) and ".tmp-" in os.fspath(source):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(atomic_folder, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", fail)
    message = refusal(folder, tensors={"new": np.ones(1)})
    assert message.startswith(f"{folder}: saving failed: Input/output error.\nThe folder holds")
    check(folder)


def test_progress_is_for_big_saves_at_a_terminal(folder, monkeypatch, capsys):
    save(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(saving, "_PROGRESS_FROM", 1)
    save(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    save(folder)
    assert "saving: 100%" in capsys.readouterr().err


def test_the_manifest_says_where_the_code_came_from(folder, monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    save(folder)
    assert json.loads((folder / "manifest.json").read_text())["vitriad"] == "unknown"
    check(folder)


def test_a_damaged_manifest_does_not_stop_a_save(folder):
    save(folder)
    (folder / "manifest.json").write_text("{")
    save(folder)
    check(folder)


# Other systems


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_swap(folder, monkeypatch, number):
    save(folder, {"old": np.ones(1)})
    calls = []

    def refuse(*arguments):
        calls.append(arguments)
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: SimpleNamespace(renameat2=refuse))
    save(folder)
    check(folder)
    new, old = os.fsencode(folder.with_name(f".model.tmp-{os.getpid()}")), os.fsencode(folder)
    assert calls == [(-100, new, -100, old, 2)]


def test_a_swap_that_the_system_refuses_is_an_error(folder, monkeypatch):
    save(folder)

    def refuse(*arguments):
        ctypes.set_errno(errno.EXDEV)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: SimpleNamespace(renameat2=refuse))
    assert "saving failed: Invalid cross-device link." in refusal(folder, tensors={"new": np.ones(1)})
    check(folder)


def test_systems_without_the_call_and_without_locks(folder, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: SimpleNamespace())
    monkeypatch.setattr(writers, "fcntl", None)
    for tensors in ({"old": np.ones(1)}, TENSORS):
        save(folder, tensors)
        check(folder, tensors)
    monkeypatch.setattr(sys, "platform", "darwin")
    save(folder)
    check(folder)


def test_this_system_swaps_in_one_step(folder):
    save(folder)
    save(folder.with_name("other"), {"a": np.ones(1)})
    assert atomic_folder._exchange(folder, folder.with_name("other")) == (sys.platform == "linux")


# Single files


@pytest.fixture
def file(tmp_path):
    return tmp_path / "parent" / "config.json"


def test_a_file_is_replaced_as_a_whole(file, tmp_path, dead):
    for text in ("größe", "new"):
        atomic_folder.write_file(file, text, error=ConfigError)
        assert file.read_text(encoding="utf-8") == text
    file.chmod(0o640)
    number, link = file.stat().st_ino, tmp_path / "link"
    link.symlink_to(file)
    for leftover in (dead, os.getpid()):
        file.with_name(f".config.json.tmp-{leftover}").write_text("half")
    atomic_folder.write_file(link, "newer", error=ConfigError)
    assert link.is_symlink() and file.read_text() == "newer" and file.stat().st_ino != number
    assert file.stat().st_mode & 0o777 == 0o640 and names(file.parent) == ["config.json"]


def test_files_that_cannot_be_replaced_are_refused(file, tmp_path, monkeypatch):
    file.mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("text")
    refusals = {
        file: f"{file}: expected a file to write, got a folder or a device.",
        tmp_path / "pipe": f"{tmp_path / 'pipe'}: expected a file to write, got a folder or a device.",
        tmp_path / "file" / "config.json": f"{tmp_path / 'file'}: expected a folder to save into, got a file.",
        tmp_path / "file" / "sub" / "config.json": f"{tmp_path / 'file' / 'sub' / 'config.json'}: saving failed: ",
        tmp_path / "a\0b": f"{tmp_path / 'a'}",
    }
    for path, reason in refusals.items():
        with pytest.raises(ConfigError) as caught:
            atomic_folder.write_file(path, "new", error=ConfigError)
        assert str(caught.value).startswith(reason) and str(caught.value).count("\n") < 3
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="file: cannot be written: it is read-only"):
        atomic_folder.write_file(tmp_path / "file", "new", error=ConfigError)
    assert (tmp_path / "file").read_text() == "text"


def test_a_file_that_cannot_be_written_through_stays_as_it_was(file, monkeypatch):
    atomic_folder.write_file(file, "old", error=ConfigError)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"config.json: saving failed: No space left on device\.\nThe file"):
        atomic_folder.write_file(file, "new", error=ConfigError)
    assert file.read_text() == "old" and names(file.parent) == ["config.json"]


def test_a_configuration_saved_after_an_interrupted_swap_does_not_take_its_place(folder, dead):
    for kind in ("tmp", "old"):
        save(folder.with_name(f".model.{kind}-{dead}"), {kind: np.ones(1)})
    atomic_folder.write_file(folder / "config.json", CONFIG["config.json"], error=ConfigError)
    check(folder, {"tmp": np.ones(1)})
