"""Measures groups of contenders in turns, each in a process of its own, beside the floor of the same round.

    PYTHONPATH=tests python -m benchmarks.run [--groups torch importing] [--rounds 5] [--peer hf4=PYTHON] [--page FILE]

Times drift with the machine, ratios within a round hardly do: these are printed, kept and compared, as median and
quartiles over the rounds. Ctrl-C keeps what is measured. --check FILE compares with what a run before it wrote.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import distributions
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.contenders import HOMES, Contender, Group, groups

HERE = Path(__file__).parent
START, END = "<!-- bench -->", "<!-- end of bench -->"
FEWEST = 3  # rounds, however little time is left
PATIENCE = 300  # seconds for one answer
MARGIN = 1.05  # a median that is no more than this times the old one is no loss
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16", "asimd", "sve")
SAME = ("cpu", "cores", "threads")  # of the machine, for ratios to be compared
PACKAGES = ("torch", "tensorflow", "keras", "jax", "flax", "numpy", "pillow", "onnxruntime", "openvino")
Values = dict[str, dict[str, list[float]]]  # contender -> case -> by round
Row = dict[str, Any]


class LostError(Exception):
    """A contender that cannot run, and why."""


class Child:
    """A contender's process. Ctrl-C does not reach it."""

    def __init__(self, python: str, group: str, name: str, folder: Path, tiny: bool) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if python == sys.executable:
            environment["PYTHONPATH"] = str(HERE.parents[1])
        self._cases: list[str] = []
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(HERE / "contender.py"), group, name, str(folder), str(tiny)],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said, "text": True},
            env=environment,
            start_new_session=True,
        )

    def answer(self, question: str = "") -> Any:
        """The next answer; asked for before, if there is a question."""
        watch = threading.Timer(PATIENCE, self.process.kill)
        watch.start()
        try:
            if question:
                print(question, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            raise LostError(self._reason())
        return json.loads(line)

    def cases(self) -> list[str]:
        """What it can do; it is ready when it says so."""
        self._cases = self._cases or self.answer()
        return self._cases

    def _reason(self) -> str:
        code = self.process.wait()
        self.said.seek(0)
        lines = [line.strip() for line in self.said.read().splitlines() if line.strip()]
        return " ".join(lines[-1].split())[:200] if lines and code > 0 else f"ended by signal {-code}"

    def finish(self) -> None:
        """Waits until it ends by itself."""
        self.process.stdin.close()
        if self.process.wait(PATIENCE):
            raise LostError(self._reason())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.said):
            with suppress(BrokenPipeError):  # a question that was not read
                file.close()


# --- measuring -------------------------------------------------------------------------------------------------------


class Measurement:
    """One group: what was measured of whom, and who could not be and why."""

    def __init__(self, name: str, group: Group, peers: dict[str, str], tiny: bool) -> None:
        self.name, self.group, self.tiny = name, group, tiny
        self.values: Values = {}
        self.missing: dict[str, str] = {}
        self.pythons: dict[str, str] = {}
        for what, contender in group.contenders.items():
            if contender.home and contender.home not in peers:
                self.missing[what] = "make bench-peers has it"
            else:
                self.pythons[what] = peers.get(contender.home, sys.executable)

    def take(self, rounds: int, until: float) -> None:
        """Measures in turns; what stays alive from round to round has one before the first."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if self.group.prepare:
                self._child("", folder, stack).finish()
            fresh = self.group.is_fresh
            lasting = {} if fresh else {what: self._child(what, folder, stack) for what in self.pythons}
            for number in range(fresh, rounds + 1):
                if number > FEWEST and time.monotonic() > until:
                    break
                tell(f"{self.name}: round {number} of {rounds}" if number else f"{self.name}: starting")
                for what in [what for what in self.pythons if what not in self.missing]:
                    self._turn(what, lasting.get(what), folder, is_kept=number > 0)

    def _turn(self, what: str, child: Child | None, folder: Path, is_kept: bool) -> None:
        with ExitStack() as stack:
            try:
                child = child or self._child(what, folder, stack)
                found = {case: child.answer(case) for case in child.cases()}
            except LostError as error:
                self.missing[what] = str(error)
                self.values.pop(what, None)
                tell(f"{self.name}: {what}: {error}")
                return
        for case, value in found.items() if is_kept else ():
            self.values.setdefault(what, {}).setdefault(case, []).append(value)

    def _child(self, what: str, folder: Path, stack: ExitStack) -> Child:
        child = Child(self.pythons.get(what, sys.executable), self.name, what, folder, self.tiny)
        stack.callback(child.close)
        return child

    def result(self) -> dict[str, Any]:
        rows = [*summary(self.group.contenders, self.values)]
        return {"title": self.group.title, "rows": rows, "missing": self.missing}


def quartiles(values: list[float]) -> list[float]:
    return quantiles(values, method="inclusive") if len(values) > 1 else values * 3


def summary(contenders: dict[str, Contender], values: Values) -> Iterator[Row]:
    """Every contender and case: its median, the quartiles of its ratio to the floor, and of ours to it for a peer."""
    named = {contender.of for contender in contenders.values() if contender.role == "ours"}
    for what, cases in values.items():
        me = contenders[what]
        ours = contenders[me.of] if me.role == "peer" else me
        for case, mine in cases.items():
            floors = [w for w in values if contenders[w].role == "floor" and values[w].get(case)]
            if not floors:
                continue
            fastest = min(floors, key=lambda w: median(values[w][case]))
            floor = ours.of or (what if what in named else fastest)
            row: Row = {"what": what, "case": case, "role": me.role, "value": median(mine), "floor": floor}
            row["ratio"] = quartiles(ratios(mine, values.get(floor, {}).get(case, mine)))
            if me.role == "peer" and me.of in values:
                row["ours"] = quartiles(ratios(values[me.of][case], mine))
            yield {**row, "rounds": len(mine)}


def ratios(some: list[float], others: list[float]) -> list[float]:
    """Round by round; a round that Ctrl-C broke off has some only."""
    return [a / b for a, b in zip(some, others, strict=False)]


def losses(found: dict[str, Any], kept: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Ours that are slower than they were: quartiles that lie above the old ones, and a median above the margin."""
    before = {(row["what"], row["case"]): row["ratio"] for row in kept["rows"] if row["role"] == "ours"}
    lost = {}
    for row in found["rows"]:
        key = row["what"], row["case"]
        if key in before:
            (low, middle, _), (_, old, old_high) = row["ratio"], before[key]
            if low > old_high and middle > MARGIN * old:
                lost[key] = f"{row['what']}, {row['case']}: {middle:.2f} of the floor, {old:.2f} before"
    for what, case in before.keys() - {(row["what"], row["case"]) for row in found["rows"]}:
        lost[what, case] = f"{what}, {case}: not measured; {found['missing'].get(what, 'it is no contender any more')}"
    return lost


# --- telling ---------------------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    found = {(each.metadata["Name"] or "").lower(): each.version for each in distributions()}
    return {
        "cpu": facts.get("model name", os.uname().machine),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "threads": os.environ.get("OMP_NUM_THREADS", "as the libraries choose"),
        "load": round(os.getloadavg()[0], 1),
        "versions": {"Python": sys.version.split()[0]} | {name: found[name] for name in PACKAGES if name in found},
        "date": time.strftime("%Y-%m-%d"),
    }


def shown(value: float, case: str) -> str:
    if "memory" in case:
        return f"{value / 1e9:.2f} GB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def spread(three: list[float]) -> str:
    low, middle, high = three
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def table(result: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {result['title']}", "", "| what | case | median | to the floor | ours to this |")
    yield "| --- | --- | --- | --- | --- |"
    for row in result["rows"]:
        ours = spread(row["ours"]) if "ours" in row else ""
        if ours and row["ours"][1] > 1:
            ours = f"**{ours}**"
        ratio = "1" if row["floor"] == row["what"] else spread(row["ratio"])
        yield f"| {row['what']} | {row['case']} | {shown(row['value'], row['case'])} | {ratio} | {ours} |"
    yield ""
    for what, reason in result["missing"].items():
        yield f"- {what}: not measured; {reason}."
    if result["missing"]:
        yield ""


def page(report: dict[str, Any]) -> Iterator[str]:
    """The section of the page."""
    facts, versions = report["machine"], report["machine"]["versions"]
    yield f"{facts['cpu']}, {facts['cores']} cores ({', '.join(facts['flags'])}), threads: {facts['threads']}."
    yield f"{', '.join(f'{name} {number}' for name, number in versions.items())}. {facts['date']}."
    if facts["load"] > 1:
        yield f"Others were at work on the machine (load {facts['load']})."
    yield ""
    for result in report["groups"].values():
        yield from table(result)


def replaced(text: str, lines: Iterable[str]) -> str:
    """The page with another section between the marks."""
    before, _, rest = text.partition(START)
    return "\n".join([before + START, *lines, END + rest.partition(END)[2]])


# --- the command -----------------------------------------------------------------------------------------------------


def parse(arguments: list[str]) -> argparse.Namespace:
    everything = groups()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    usual = [name for name, group in everything.items() if not group.is_asked_for]
    parser.add_argument("--groups", nargs="+", choices=[*everything], default=usual, metavar="GROUP")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=450, help="of all; beyond its share a group ends after 3 rounds"
    )
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"of {', '.join(HOMES)}")
    parser.add_argument("--json", type=Path, help="file of results: groups that were measured are replaced in it")
    parser.add_argument("--page", type=Path, help="Markdown file whose section is replaced")
    parser.add_argument("--check", type=Path, help="file of results to compare with; a loss is exit code 1")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try this program")
    options = parser.parse_args(arguments)
    if options.check and not options.check.exists():
        parser.error(f"{options.check}: no such file; `make bench` writes it")
    options.peers = dict(peer.split("=", 1) for peer in options.peer)
    if unknown := options.peers.keys() - HOMES.keys():
        parser.error(f"--peer: expected {', '.join(HOMES)}, got {', '.join(unknown)}")
    return options


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Adds group by group to the results; Ctrl-C ends it, and what was measured until then stays."""
    start = time.monotonic()
    for number, name in enumerate(options.groups):
        measurement = Measurement(name, groups()[name], options.peers, options.tiny)
        until = start + options.seconds * (number + 1) / len(options.groups)
        is_ended = False
        try:
            measurement.take(options.rounds, until)
        except KeyboardInterrupt:
            is_ended = True
        except LostError as error:
            measurement.missing[name] = str(error)
        if measurement.values or not is_ended:
            results[name] = measurement.result()
        if is_ended:
            tell("Ctrl-C: what is measured is kept")
            return


def checked(options: argparse.Namespace, results: dict[str, Any], kept: dict[str, Any]) -> int:
    """Compares, and measures once more what seems lost: what is seen twice is a loss."""
    known = [name for name in results if name in kept["groups"]]
    lost = {name: losses(results[name], kept["groups"][name]) for name in known}
    options.groups = [name for name in known if lost[name]]
    again: dict[str, Any] = {}
    measure(options, again)
    twice = [
        message
        for name, result in again.items()
        for key, message in losses(result, kept["groups"][name]).items()
        if key in lost[name]
    ]
    print("\n".join(f"lost: {message}" for message in twice) or "nothing lost")
    return 1 if twice else 0


def together(report: dict[str, Any], file: Path) -> dict[str, Any]:
    """The groups of a report, and those of the same machine and versions in the file, in the order of the page."""
    old = json.loads(file.read_text()) if file.exists() else report
    same = all(old["machine"][key] == report["machine"][key] for key in (*SAME, "versions"))
    found = {**(old["groups"] if same else {}), **report["groups"]}
    return {name: found[name] for name in groups() if name in found}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    report: dict[str, Any] = {"machine": machine(), "groups": {}}
    kept = json.loads(options.check.read_text()) if options.check else None
    if kept and [kept["machine"][key] for key in SAME] != [report["machine"][key] for key in SAME]:
        was = kept["machine"]
        tell(
            f"{options.check} is of {was['cpu']}, {was['cores']} cores, threads {was['threads']}: "
            "measure one on this machine by --json"
        )
        return 2
    if report["machine"]["load"] > 1:
        tell(f"others are at work on this machine (load {report['machine']['load']}): spreads will be wide")
    measure(options, report["groups"])
    if options.json:
        report["groups"] = together(report, options.json)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(*page(report), sep="\n")
    if options.page:
        options.page.write_text(replaced(options.page.read_text(), page(report)))
    return checked(options, report["groups"], kept) if kept else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
