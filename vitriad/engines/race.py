"""Two programs of one engine in turn: `python -m vitriad.engines.race WHAT INPUTS.npz` prints how often the second one
could have run in the time of the first.

None of vitriad's backends is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from vitriad.engines import open_program

_ROUNDS = 9  # their median is taken, so that a moment of other work on the machine does not count
_SECONDS = 20.0  # after which three rounds are enough


def main(asked: str, given: str) -> None:
    """Runs both on the same inputs, first one after the other once, then in turn."""
    what = json.loads(asked)
    programs = [
        open_program(Path(folder), what["to"], what["inputs"], what["outputs"], None) for folder in what["folders"]
    ]
    with np.load(given) as arrays:
        inputs = {name: arrays[name] for name in what["inputs"]}
    for run in programs:  # the first call settles memory and kernels
        run(inputs)
    ratios: list[float] = []
    start = perf_counter()
    while len(ratios) < _ROUNDS and (len(ratios) < 3 or perf_counter() - start < _SECONDS):
        times = []
        for run in programs if len(ratios) % 2 else programs[::-1]:
            before = perf_counter()
            run(inputs)
            times.append(perf_counter() - before)
        one, two = times if len(ratios) % 2 else times[::-1]
        ratios.append(one / two)
    print(median(ratios))


if __name__ == "__main__":
    main(*sys.argv[1:])
