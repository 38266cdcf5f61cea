"""Comparisons of outputs and of models, for any backend."""

from typing import Any

import numpy as np

from vit_core.tensors import to_numpy


def check_same(got: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Compares tensors, or nested tuples of them, to a share of their largest value."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            check_same(one, other, tolerance)
        return
    other = to_numpy(expected)
    np.testing.assert_allclose(to_numpy(got), other, rtol=0, atol=tolerance * np.abs(other).max())


def check_tensors(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compares canonical tensors bit by bit: names in their order, dtypes and values."""
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert got[key].dtype == value.dtype, key
        np.testing.assert_array_equal(got[key], value, err_msg=key)
