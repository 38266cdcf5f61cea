"""Tensors of a file read by threads: what they hand over, what they leave behind, and how much memory they take."""

import gc
import mmap
import tracemalloc

import numpy as np
import pytest

from vit_core.errors import CheckpointError
from vit_core.files.arrays import LazyArray, bytes_of, check_finite, contiguous, copied, held, release
from vit_core.files.reading import being_read, uncollected

LARGE = 3_000_000  # numbers; several of the blocks that are looked at at a time


def test_each_tensor_is_read_once_and_what_became_of_it_is_given_by_name():
    read, released = [], []

    def lazy(name):
        return LazyArray(np.dtype(np.float32), (2,), lambda: read.append(name) or np.full(2, len(name), np.float32))

    tensors = {"a": lazy("a"), "bb": lazy("bb"), "c": np.ones(2, np.float32)}
    with being_read(tensors, lambda name, array: (name, array.sum()), lambda: released.append(1)) as ready:
        assert {name: wait() for name, wait in ready.items()} == {"a": ("a", 2), "bb": ("bb", 4), "c": ("c", 2)}
    assert sorted(read) == ["a", "bb"] and len(released) == 3


def test_what_reading_raises_is_raised_where_it_is_waited_for():
    def broken():
        raise CheckpointError("a: broken")

    tensors = {"a": LazyArray(np.dtype(np.float32), (1,), broken), "b": np.ones(1)}
    with being_read(tensors, lambda _, array: array) as ready:
        assert ready["b"]().shape == (1,)
        with pytest.raises(CheckpointError, match="a: broken"):
            ready["a"]()


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_collection_is_as_it_was(was_on):
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(KeyError), uncollected():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


@pytest.mark.parametrize("place", [0, 2**18 - 1, 2**18, LARGE - 1])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_a_value_that_is_not_finite_is_found_wherever_it_is(place, order):
    array = np.zeros((LARGE // 1000, 1000), np.float32)
    array.reshape(-1)[place] = np.inf
    array = {"C": array, "F": array.T, "strided": np.repeat(array, 2, axis=1)[:, ::2]}[order]
    with pytest.raises(CheckpointError, match=f"a: 1 of {LARGE} values"):
        check_finite("file", "a", array)


def test_looking_for_such_values_takes_little_memory():
    array = np.zeros((1000, LARGE // 1000), np.float32)
    tracemalloc.start()
    check_finite("file", "a", array)
    check_finite("file", "a", array.T)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 20


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (5,), (1, 1), (513, 65), (1025, 130), (3, 4, 5)])
def test_a_copy_is_contiguous_and_in_memory_of_its_own(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for source in (array, array.T):
        copy = copied(source)
        np.testing.assert_array_equal(copy, source)
        assert copy.flags.c_contiguous and copy.flags.writeable and copy.dtype == source.dtype
        assert copy.ctypes.data % mmap.PAGESIZE == 0 and not np.shares_memory(copy, source)
    assert contiguous(array) is array
    assert held(array).read() is array


def test_a_map_that_is_given_back_is_read_from_the_file_again(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * (3 * mmap.PAGESIZE + 1))
    content = bytes_of(path, mmap=True)
    for place in range(0, len(content), mmap.PAGESIZE):
        content[place] = ord("b")  # lost with the memory, so nothing that was written to is ever given back
    release(content, mmap.PAGESIZE, mmap.PAGESIZE)
    assert [content[i * mmap.PAGESIZE] for i in range(4)] == [*b"babb"]
    release(content)
    assert bytes(content) == path.read_bytes()
