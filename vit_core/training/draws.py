"""Random numbers by what they are for and where in a run they are drawn, not by how many were drawn before."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np

from vit_core.masking import check_seed
from vit_core.tensors import Array


class Draws:
    """Uniform random numbers of one purpose at one place of a run.

    Equal seeds, purposes and places give equal numbers on every machine and with every number of workers, and a run
    that goes on in the middle draws what it would have drawn.

    Args:
        seed: of the run, any int from 0 to 2**64 - 1.
        purpose: such as "flip": other purposes draw other numbers.
        place: up to two ints of the same range, such as the epoch and the number of the image.

    Raises:
        InputError: the seed or a place is not such an int.

    Source: the raw bits of Philox4x64, whose counter starts at the place; NumPy may change all else that it draws.
    """

    def __init__(self, seed: int, purpose: str, *place: int) -> None:
        first, second = (check_seed("place", number) for number in (*place, 0, 0)[:2])
        key = np.array([check_seed("seed", seed), crc32(purpose.encode())], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=np.array([0, first, second, 0], dtype=np.uint64))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""
        return int(self.uniform() * count)

    def order(self, count: int) -> Array:
        """A permutation of 0 to count - 1: (count,), int64."""
        return np.argsort(self._bits.random_raw(count), kind="stable")

    def bytes(self, *shape: int) -> Array:
        """An array of uint8."""
        raw = np.asarray(self._bits.random_raw(-(-int(np.prod(shape)) // 8)), dtype="<u8")
        return raw.view(np.uint8)[: int(np.prod(shape))].reshape(shape)

    def beta(self, alpha: float) -> float:
        """A number of the beta distribution with both parameters `alpha`, in steps of 2**-24.

        Source: M. D. Jöhnk, Erzeugung von betaverteilten und gammaverteilten Zufallszahlen (1964).
        """
        while True:
            one, other = (math.pow(self.uniform(), 1 / alpha) for _ in range(2))
            if 0 < one + other <= 1:
                return round(one / (one + other) * 2**24) * 2.0**-24  # the last bits of powers differ between machines
