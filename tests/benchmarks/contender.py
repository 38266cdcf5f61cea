"""One contender in a process of its own: makes what it times, then does a case whenever a line of stdin names it.

    python contender.py GROUP CONTENDER FOLDER TINY

It is run by interpreters that have nothing of ours. An empty CONTENDER prepares the files of the group.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])
from benchmarks.contenders import HOMES, groups  # noqa: E402 - found by the line above

ALL = groups()
del sys.path[0]  # names of our tests are not to hide packages

ENOUGH, MOST = 0.5, 3  # seconds and calls of one turn


def turn(call: Callable[[], Any], calls: int) -> float:
    """What a call takes, or says of itself: the least of a few."""
    found: list[float] = []
    spent = 0.0
    while len(found) < calls and spent < ENOUGH:
        start = time.perf_counter()
        value = call()
        spent += (took := time.perf_counter() - start)
        found.append(value if isinstance(value, int | float) else took)
    return min(found)


def check_home(home: str) -> None:
    package, wanted = HOMES[home]
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    if found != wanted:
        raise SystemExit(f"expected {package} {wanted} in that environment, found {found}")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what frameworks print is no answer
    group, name, folder, tiny = ALL[sys.argv[1]], sys.argv[2], Path(sys.argv[3]), sys.argv[4] == "True"
    if not name:
        assert group.prepare, "nothing to prepare"
        group.prepare(folder, tiny)
        return
    contender = group.contenders[name]
    if contender.home:
        check_home(contender.home)
    calls = contender.make(folder, tiny)
    print(json.dumps([*calls]), file=answers)
    for line in sys.stdin:
        print(json.dumps(turn(calls[line.rstrip("\n")], 1 if group.is_fresh else MOST)), file=answers)


if __name__ == "__main__":
    main()
