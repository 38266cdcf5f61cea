"""Plants faults in the source, one at a time in a scratch copy, and shows that the tests catch every one.

    python tests/mutate.py              every fault of faults.py and its neighbours; exits 1 if one survives
    python tests/mutate.py vit_flax     only those of that package
    python tests/mutate.py --each 3     three of every package, others every day
    python tests/mutate.py --beside     those beside the models: files, hub, images, conversion, commands
    python tests/mutate.py --random 10  ten of each backend, at places that chance picks
    python tests/mutate.py --write      and puts the table into docs/reference/parity.md
    python tests/mutate.py --keep FILE  a run in parts: what FILE has is not run again, and Ctrl-C loses nothing

The copy is tested in a fresh process by the fast set of its package; one that outlives that meets all tests of the
package. It is a catch only if tests fail, not if they cannot be collected.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from faults import FAULTS, Edit
from faults_beside import BESIDE
from faults_of_options import OPTIONS
from tqdm import tqdm

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "parity.md"
PACKAGES = ("vit_core", "vit_torch", "vit_tf", "vit_flax", "conversion", "vitriad", "tests", "docs")
BACKENDS = ("vit_torch", "vit_tf", "vit_flax")
SOME = "float64 and (test_outputs or test_gradients and square) or patchify or only_kept"
FAST = {  # what a fault meets first: 25 seconds at most
    "vit_core": "tests/vit_torch/test_parity.py tests/vit_core/test_reference.py",
    "vit_torch": "tests/vit_torch/test_parity.py tests/vit_torch/test_model.py tests/behaviour -k torch",
    "vit_tf": f"tests/vit_tf/test_parity.py tests/behaviour -k '(vit_tf or [tf) and ({SOME})'",
    "vit_flax": f"tests/vit_flax/test_parity.py tests/behaviour -k '(vit_flax or [flax) and ({SOME})'",
    "conversion": "tests/conversion/test_foreign.py",
    "vitriad": "tests/vitriad/test_cli.py",
}
ALL = FAULTS | OPTIONS | BESIDE
OTHERS = {"+": "-", "-": "+", "*": "+", "/": "*", "//": "*", "<": ">=", "==": "!=", "+=": "-="}  # operators


class Verdict(NamedTuple):
    """What became of a fault: whether it was caught, how, in words, and the day of the run."""

    caught: bool
    how: str
    day: str


class Kept:
    """What was found so far, in a file where there is one, so that a run goes on where it was stopped.

    A verdict is of the day that it carries: after a change of the code or of the tests, begin with a new file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.lock = path, threading.Lock()
        self.found: dict[str, list] = json.loads(path.read_text()) if path and path.exists() else {}

    def once(self, key: str, make: Callable[[], tuple]) -> list:
        """What the file has under a key, or else what `make` finds now."""
        if key not in self.found:
            value = [*make()]
            with self.lock:
                self.found[key] = value
                if self.path:
                    half = self.path.with_name(f"{self.path.name}.half")
                    half.write_text(json.dumps(self.found, indent=1))
                    half.replace(self.path)
        return self.found[key]


def copy(scratch: Path) -> None:
    """Copies the project to `scratch`."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, scratch / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", scratch)


def plant(edit: Edit, scratch: Path) -> None:
    """Puts the fault into a copy of the project."""
    text = (scratch / edit.file).read_text()
    if text.count(edit.old) != 1:
        raise SystemExit(f"expected once in {edit.file}: {edit.old!r}")
    (scratch / edit.file).write_text(text.replace(edit.old, edit.new))


def run(tests: str, scratch: Path) -> str | None:
    """The first test that fails on the copy, and how far off it is; None where none does."""
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider {tests}"
    compiled = scratch.parent / f"compiled-{threading.get_ident()}"  # what one copy compiled serves the next
    environment = {
        **os.environ,
        "PYTHONPATH": str(scratch),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(command, shell=True, cwd=scratch, env=environment, capture_output=True, text=True)
    if "from pytest-timeout" in done.stdout:  # of a machine that is busy: no catch
        raise SystemExit(f"a test took too long; run this again:\n{command}")
    failed = re.search(r"^FAILED \S+?::(\w+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or bool(done.returncode) != bool(failed):
        raise SystemExit(f"the tests did not run:\n{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if failed is None:
        return None
    scale = re.search(r"scale ([\d.e+-]+)\)", done.stdout)
    error = re.search(r"Max absolute difference[^:]*: ([\d.e+-]+)", done.stdout)
    return f"{float(error[1]) / float(scale[1]):.0e}" if error and scale else failed[1]


def judge(edit: Edit, root: Path, kept: Kept) -> Verdict:
    """What catches a fault: now, or in the part of the run that has planted it."""
    return Verdict(*kept.once("\n".join(edit), lambda: planted(edit, root)))


def planted(edit: Edit, root: Path) -> Verdict:
    """Plants a fault and sees what catches it."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        copy(Path(folder))
        plant(edit, Path(folder))
        how = run(fast(edit), Path(folder)) or run(every(edit), Path(folder))
    return Verdict(how is not None, how or "SURVIVED", str(date.today()))


def fast(edit: Edit) -> str:
    """The tests that a fault meets first."""
    return edit.tests or FAST[edit.file.partition("/")[0]]


def every(edit: Edit) -> str:
    """All tests of the package that a fault is in, and of what all backends promise."""
    package = edit.file.partition("/")[0]
    own = f" tests/behaviour -k '{package} or [{package.removeprefix('vit_')}'" if package in BACKENDS else ""
    return f"tests/{package}{own}"


def check_sound(tests: str, root: Path) -> tuple[str]:
    """Tests that fail without a fault would catch anything; the day on which they did not."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        copy(Path(folder))
        if failed := run(tests, Path(folder)):
            raise SystemExit(f"fails without a fault: {failed}, of {tests}")
    return (str(date.today()),)


def by_chance(package: str, count: int, seed: int) -> dict[str, tuple[Edit, ...]]:
    """Faults at tokens that chance picks: another operator, a number that is one more."""
    places = {}
    for file in (f"{package}/vit.py", f"{package}/vit_mae.py"):
        text = (ROOT / file).read_text()
        lines = [*text.splitlines(), ""]  # the end has a line of its own
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        for before, token in pairwise(tokens):
            line = lines[token.start[0] - 1]
            is_code = (
                not line.lstrip().startswith(("def ", "class ", "import ", "from ", "raise ", "@")) and '"' not in line
            )
            has_left = before.type in (tokenize.NAME, tokenize.NUMBER) or before.string in (")", "]")
            new = OTHERS.get(token.string) if token.type == tokenize.OP and has_left else None
            new = str(int(token.string) + 1) if token.type == tokenize.NUMBER and token.string.isdecimal() else new
            if new and is_code and token.line.strip() == line.strip() and lines.count(line) == 1 and "->" not in line:
                mutant = line[: token.start[1]] + new + line[token.end[1] :]
                places[f"`{line.strip()}` with {new} for {token.string} in column {token.start[1]}"] = Edit(
                    file, line, mutant
                )
    names = random.Random(seed).sample(list(places), count)
    return {name: (places[name],) for name in names}


def chosen(packages: list[str], each: int | None) -> dict[str, tuple[Edit, ...]]:
    """The faults of some packages, or of all; or a few of each, by the day, so that all have a turn."""
    wanted: set[Edit] = set()
    for package in FAST:
        edits = [edit for several in ALL.values() for edit in several if edit.file.startswith(f"{package}/")]
        count = len(edits) if each is None else min(each, len(edits))
        first = date.today().toordinal() * count
        if not packages or package in packages:
            wanted.update(edits[(first + i) % len(edits)] for i in range(count))
    found = {what: tuple(edit for edit in edits if edit in wanted) for what, edits in ALL.items()}
    return {what: edits for what, edits in found.items() if edits}


def row(what: str, edits: tuple[Edit, ...], verdicts: list[Verdict]) -> str:
    """One line of the table: a column for each backend, one for what they share, and the day of the oldest verdict."""
    cells = dict.fromkeys((*BACKENDS, "shared"), "")
    for edit, verdict in zip(edits, verdicts, strict=True):
        package, _, file = edit.file.partition("/")
        column, name = (package, file) if package in BACKENDS else ("shared", edit.file)
        cells[column] = f"{name}, {verdict.how}"
    return f"| {what} | {' | '.join(cells.values())} | {min(verdict.day for verdict in verdicts)} |"


def rows_of(faults: dict[str, tuple[Edit, ...]], kept: Kept) -> tuple[list[str], int]:
    """The lines of the table, printed as they come, and how many faults survived."""
    lines, survivors = ["| fault | torch | tf | flax | shared | run |", f"{'| --- ' * 6}|"], 0
    print(*lines, sep="\n")
    edits, days = [edit for several in faults.values() for edit in several], set()
    new = {fast(edit) for edit in edits if "\n".join(edit) not in kept.found}
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            list(pool.map(lambda tests: kept.once(f"sound: {tests}", lambda: check_sound(tests, Path(root))), new))
            found = iter(
                tqdm(pool.map(lambda edit: judge(edit, Path(root), kept), edits), total=len(edits), disable=None)
            )
            for what, several in faults.items():
                verdicts = [next(found) for _ in several]
                survivors += sum(not verdict.caught for verdict in verdicts)
                days |= {verdict.day for verdict in verdicts}
                lines.append(row(what, several, verdicts))
                print(lines[-1], flush=True)
        except BaseException:  # Ctrl-C, or tests that did not run: what waits need not begin
            pool.shutdown(cancel_futures=True)
            raise
    when = " to ".join(sorted({min(days), max(days)}))
    return [*lines, "", f"{when}: {len(edits)} faults, {len(edits) - survivors} caught."], survivors


def write(section: str, lines: list[str]) -> None:
    """Puts lines between the marks of a section of the page."""
    start, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, found, rest = PAGE.read_text().partition(start)
    assert found and end in rest, f"{PAGE}: no {start}"
    PAGE.write_text("\n".join([before + start, *lines, end + rest.partition(end)[2]]))


def main() -> None:
    """Prints one row per fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    parser.add_argument("--random", type=int, metavar="N", help="so many of every backend, picked by chance instead")
    parser.add_argument("--seed", type=int, default=0, help="of that chance (%(default)s)")
    parser.add_argument("--each", type=int, metavar="N", help="so many of every package")
    parser.add_argument("--beside", action="store_true", help="only those beside the models")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="put verdicts there, and run what it lacks")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reference/parity.md")
    arguments = parser.parse_args()
    faults = chosen(arguments.packages, arguments.each)
    if arguments.write and not arguments.beside:  # those have a table of their own
        faults = {what: edits for what, edits in faults.items() if what not in BESIDE}
    if arguments.beside:
        faults = {what: edits for what, edits in faults.items() if what in BESIDE}
    if arguments.random is not None:
        backends = [name for name in BACKENDS if name in (arguments.packages or BACKENDS)]
        faults = {k: v for name in backends for k, v in by_chance(name, arguments.random, arguments.seed).items()}
    lines, survivors = rows_of(faults, Kept(arguments.keep))
    print(*lines[-2:], sep="\n")
    if arguments.write:
        section = "beside" if arguments.beside else "faults"
        write(section if arguments.random is None else "chance", lines)
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
