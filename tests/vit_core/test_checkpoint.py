"""One weight file: what is sound is read without a copy, everything else is refused by file, tensor and reason."""

import json
import os
import tracemalloc
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import refusing
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vit_core.errors import CheckpointError, MissingFileError
from vit_core.files.arrays import DTYPES, check_finite
from vit_core.files.folders import open_weights
from vit_core.files.safetensors import open_file
from vit_core.files.saving import save_folder
from vit_core.limits import LIMITS


def pack(header, data=b"", *, length=None):
    """The bytes of a safetensors file with any header: a dict (padded, so that data are aligned), or text."""
    text = header
    if not isinstance(header, bytes):
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(start, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.safetensors"


def refusal(path, content, error=CheckpointError, **options):
    path.write_bytes(content)
    message = refusing.refusal(lambda: open_file(path, **options), error)
    assert message.startswith(f"{path}: ") and len(message) < len(str(path)) + 300
    return message.removeprefix(f"{path}: ")


# What is sound


@pytest.mark.parametrize("mmap", [True, False])
def test_views_can_be_written_to_and_the_file_stays_as_it_is(path, mmap):
    content = pack({"a": entry(0, 24, [2, 3])}, np.arange(6, dtype=np.float32).tobytes())
    path.write_bytes(content)
    file = open_file(path, mmap=mmap)
    array = file.read("a")
    np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])
    array += 1
    np.testing.assert_array_equal(file.read("a"), array)  # the same memory: nothing was copied
    assert path.read_bytes() == content
    path.unlink()
    np.testing.assert_array_equal(array, [[1, 2, 3], [4, 5, 6]])


def test_odd_but_legal_files_are_read(path):
    header = {
        "empty": entry(4, 4, [0, 7]),
        "scalar": entry(0, 4, []),
        "": entry(4, 6, [1], "BF16"),
        "naïve\n": entry(6, 7, [1], "BOOL"),
        "__metadata__": {"format": "pt", "note": ""},
    }
    path.write_bytes(pack(json.dumps(header, ensure_ascii=False).encode() + b"   ", b"\0\0\x80\x3f\x80\x3f\1"))
    file = open_file(path)
    assert file.metadata == {"format": "pt", "note": ""}
    for name, expected in {"empty": np.zeros((0, 7)), "scalar": 1.0, "": [1.0], "naïve\n": [True]}.items():
        np.testing.assert_array_equal(file.read(name), expected)
    assert file.read("").dtype == ml_dtypes.bfloat16


def test_a_file_without_tensors_or_metadata_is_sound(path):
    path.write_bytes(pack({}))
    assert len(open_weights(path)) == 0


def test_misaligned_data_are_copied(path):
    path.write_bytes(pack(b'{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}} ', np.float64(3).tobytes()))
    array = open_file(path).read("a")
    np.testing.assert_array_equal(array, [3.0])
    assert array.flags.aligned and array.flags.writeable


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_read_as_the_library_wrote_it(path, name):
    array = np.array([[1, 0, 1], [1, 1, 0]]).astype(DTYPES[name])
    safetensors.numpy.save_file({"a": array}, path)
    found = open_file(path).read("a")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_names_shapes_and_dtypes_cost_no_data(path):
    with open(path, "wb") as file:  # 4 GB, all of it a hole
        file.write(pack({"a": entry(0, 2**32, [2**30]), "b": entry(2**32, 2**32 + 2, [1], "F16")}))
        file.truncate(file.tell() + 2**32 + 2)
    tracemalloc.start()
    infos = open_weights(path).infos
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {name: (info.dtype.name, info.shape, info.nbytes) for name, info in infos.items()} == {
        "a": ("float32", (2**30,), 2**32),
        "b": ("float16", (1,), 2),
    }
    assert peak < 1_000_000


# What is refused

FOUR = b"\0" * 4
HEADERS = {
    "empty": (b"", "an empty file."),
    "shorter than a length": (b"\0\0\0", "a header of 0 bytes in 3 bytes"),
    "cut inside the header": (pack(b"{}", length=3), "a header of 3 bytes in 10 bytes"),
    "a huge length": (pack(b"{}", length=2**64 - 1), "a header of 18446744073709551615 bytes in 10 bytes"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer, not weights"),
    "zip": (b"PK\3\4" + b"\0" * 400, "a zip archive, as torch.save and numpy.savez write"),
    "html": (b"<!DOCTYPE html><html></html>", "an HTML or XML page"),
    "no header": (pack(b""), "expected a header that starts with '{'"),
    "list": (pack(b"[]"), "expected a header that starts with '{'"),
    "space first": (pack(b" {}"), "expected a header that starts with '{'"),
    "cut json": (pack(b'{"a": '), "header: not valid JSON: Expecting value"),
    "not utf-8": (pack(b'{"\xff": 1}'), "header: not valid JSON: 'utf-8' codec can't decode byte 0xff"),
    "deep": (pack(b'{"a":' + b"[" * 100_000), "header: not valid JSON: maximum recursion depth"),
    "digits": (pack(b'{"a":' + b"1" * 5000 + b"}"), "header: not valid JSON: Exceeds the limit"),
    "same name twice": (pack(b'{"a": 1, "a": 1}'), "header: the name 'a' stands there twice"),
    "same key twice": (
        pack(b'{"a": {"dtype": "F32", "shape": [1], "shape": [2], "data_offsets": [0, 4]}}', FOUR),
        "header: the name 'shape' stands there twice",
    ),
    "same metadata twice": (pack(b'{"__metadata__": {"f": "a", "f": "b"}}'), "the name 'f' stands there twice"),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}}), "__metadata__: expected strings by name, got {'a': 1}"),
    "metadata of no names": (pack({"__metadata__": []}), "__metadata__: expected strings by name, got []"),
    "no object": (pack({"a": [1]}), "'a': expected dtype, shape and data_offsets, got [1]"),
    "no shape": (pack({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, FOUR), "'a': expected dtype, shape and"),
    "another key": (pack({"a": {**entry(0, 4, [1]), "x": 1}}, FOUR), "'a': expected dtype, shape and"),
    "unknown dtype": (pack({"a": entry(0, 4, [1], "F8_E4M3")}, FOUR), "'a': dtype: expected one of U64, I64"),
    "dtype of no text": (pack({"a": entry(0, 4, [1], ["F32"])}, FOUR), "got ['F32']"),
    "negative side": (pack({"a": entry(0, 4, [-1, -1])}, FOUR), "'a': shape: expected counts, got [-1, -1]"),
    "fraction": (pack({"a": entry(0, 4, [1.0])}, FOUR), "'a': shape: expected counts, got [1.0]"),
    "truth": (pack({"a": entry(0, 4, [True])}, FOUR), "'a': shape: expected counts, got [True]"),
    "shape of no list": (pack({"a": entry(0, 4, 1)}, FOUR), "'a': shape: expected counts, got 1"),
    "nan": (pack(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}'), "expected counts, got [nan]"),
    "overflow": (pack({"a": entry(0, 4, [2**62, 2**62, 4])}, FOUR), "'a': shape [4611"),
    "overflow times zero": (pack({"a": entry(0, 0, [2**62, 0])}), "'a': shape [4611"),
    "three offsets": (pack({"a": {**entry(0, 4, [1]), "data_offsets": [0, 4, 4]}}, FOUR), "expected two counts"),
    "negative offset": (pack({"a": entry(-4, 0, [1])}, FOUR), "data_offsets: expected two counts, got [-4, 0]"),
    "backwards": (pack({"a": entry(4, 0, [1])}, FOUR), "'a': F32 [1] takes 4 bytes, data_offsets are [4, 0]"),
    "wrong size": (pack({"a": entry(0, 4, [2])}, FOUR), "'a': F32 [2] takes 8 bytes, data_offsets are [0, 4]"),
    "hole at the start": (pack({"a": entry(4, 8, [1])}, 2 * FOUR), "'a': starts at byte 76, expected 72: a hole"),
    "hole": (pack({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 3 * FOUR), "'b': starts at byte"),
    "overlap": (pack({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, 2 * FOUR), "'b': starts at byte"),
    "alias": (pack({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, FOUR), "'b': starts at byte"),
    "cut data": (pack({"a": entry(0, 8, [2])}, FOUR), "76 bytes, expected 80 by its header"),
    "something behind": (pack({"a": entry(0, 4, [1])}, 2 * FOUR), "80 bytes, expected 76 by its header"),
    "terminal codes": (pack({"\x1b[2J\n": 1}), "'\\x1b[2J\\n': expected dtype"),
    "surrogate": (pack(b'{"\\ud800": 1}'), "'\\ud800': expected dtype"),
    "long name": (pack({"n" * 10**6: 1}), "...: expected dtype"),
}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("kind", HEADERS)
def test_unsound_files_are_refused(path, kind, mmap):
    content, reason = HEADERS[kind]
    assert reason in refusal(path, content, mmap=mmap)


@pytest.mark.parametrize("bit", range(8))
def test_no_cut_and_no_flip_of_the_header_passes_unseen(path, bit):
    sound = pack({"a": entry(0, 4, [1]), "b": entry(4, 12, [2, 1])}, 3 * FOUR)
    expected = {"a": ("float32", (1,)), "b": ("float32", (2, 1))}
    for place in range(len(sound) - 12):
        changed = bytearray(sound)
        changed[place] ^= 1 << bit
        for content in (bytes(changed), sound[: place + 12]):
            path.write_bytes(content)
            try:
                infos = open_weights(path).infos
            except CheckpointError:
                continue
            found = {name: (info.dtype.name, info.shape) for name, info in infos.items()}
            # Without a digest, another name or another dtype of the same size is as sound as the true one.
            assert found != expected and [shape for _, shape in found.values()] == [(1,), (2, 1)], content


def test_things_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, reason in {"pipe": "expected a regular file", "folder": "Is a directory"}.items():
        with pytest.raises(CheckpointError, match=reason):
            open_file(tmp_path / name)
    with pytest.raises(MissingFileError, match="no such file"):
        open_file(tmp_path / "none")


# Limits


def tensors(count):
    return {f"t{i}": entry(0, 0, [0]) for i in range(count)}


LIMITED = {
    "tensors": ({"tensors": 3}, pack(tensors(3)), pack(tensors(4)), "4 tensors"),
    "rank": ({"rank": 2}, pack({"a": entry(0, 4, [1] * 2)}, FOUR), pack({"a": entry(0, 4, [1] * 3)}, FOUR), "3 axes"),
    "parameters": (
        {"parameters": 2},
        pack({"a": entry(0, 8, [2, 1])}, 2 * FOUR),
        pack({"a": entry(0, 12, [3, 1])}, 3 * FOUR),
        "shape [3, 1]",
    ),
    "header_bytes": (
        {"header_bytes": 20},
        pack(b"{" + b" " * 18 + b"}"),
        pack(b"{" + b" " * 19 + b"}"),
        "header of 21",
    ),
}


@pytest.mark.parametrize("name", LIMITED)
def test_limits_hold_and_say_how_to_raise_them(path, name):
    bounds, at, above, what = LIMITED[name]
    limits = replace(LIMITS, **bounds)
    path.write_bytes(at)
    open_file(path, limits=limits)
    message = refusal(path, above, limits=limits)
    assert what in message
    assert f"above the limit of {bounds[name]}; to raise it: limits=replace(LIMITS, {name}=...)" in message
    open_file(path)


@pytest.mark.parametrize("item", [b"[],", b"{},", b"1,"])
def test_a_header_of_a_million_marks_is_refused_before_it_is_parsed(path, item):
    content = pack(b'{"a":[' + item * 3_000_000 + b"1]}")
    tracemalloc.start()
    message = refusal(path, content)
    peak = tracemalloc.get_traced_memory()[1] - len(content)
    tracemalloc.stop()
    assert "more entries than the limit of 100000" in message
    assert peak < 50_000_000


# Values


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_that_are_not_finite_are_counted(dtype):
    array = np.ones((3, 4), DTYPES["F64"]).astype(dtype)
    check_finite("file", "a", array)
    check_finite("file", "a", array[:0])
    array[0, 1], array[2, 3], array[1, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(CheckpointError, match=r"^file: a: 3 of 12 values are NaN or infinite"):
        check_finite("file", "a", array)


# Round trips

FLOATS = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).flatmap(
    lambda shape: st.sampled_from([*DTYPES.values()]).flatmap(
        lambda dtype: st.integers(0, 2**32).map(
            lambda seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
        )
    )
)


@settings(deadline=None, max_examples=50)
@given(tensors=st.dictionaries(st.text(min_size=1).filter(lambda n: n != "__metadata__"), FLOATS, max_size=5))
def test_what_is_saved_is_read_and_has_the_bytes_of_the_library(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("round") / "trip"
    save_folder(folder, files={}, tensors=tensors)
    expected = safetensors.numpy.save(tensors, {"format": "pt"})
    assert (folder / "model.safetensors").read_bytes() == expected
    found = open_weights(folder, verify=True)
    assert {*found} == {*tensors}
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
