"""`vitriad parity`: every backend and engine in a process, compared with the float64 oracle and with one another."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from vit_core.errors import BackendError, InputError
from vit_core.files.atomic_folder import write_file
from vit_core.files.npz import save_arrays
from vit_core.files.saving import save_folder
from vit_core.files.targets import check_target
from vit_core.installing import own_version
from vit_core.likeness import COLUMNS, Likeness, cells, least, likeness
from vit_core.tensors import Array, missing_backend
from vitriad.backends import BACKENDS
from vitriad.engines import ENGINES, engine_of
from vitriad.option_groups import check_images, reading_options
from vitriad.parity_matrix import cases as parity_cases
from vitriad.parity_matrix import training as parity_training
from vitriad.parity_matrix.cases import Case
from vitriad.parity_matrix.causes import HALVES, causes, silenced
from vitriad.parity_matrix.engine import DTYPE, not_asked, writer
from vitriad.printing import print_table

Row = dict[str, Any]

CHECKS = ("forward", "hidden", "attentions", "loss", "gradients", "training", "preprocessing", "roundtrip")
_COMPARED = ("forward", "hidden", "attentions", "loss", "gradients")  # with the oracle
# How far from the oracle is equal, as a share of the largest value. Half precision also rounds what it computes from,
# and differs from check to check: each of its rungs is twice the worst that was measured, which stands behind it.
TOLERANCES = {
    "float64": dict.fromkeys(_COMPARED, 1e-10),
    "float32": dict.fromkeys(_COMPARED, 1e-5),
    "bfloat16": {
        "forward": 1e-1,  # 5.1e-2
        "hidden": 6.5e-2,  # 3.2e-2
        "attentions": 8e-2,  # 3.8e-2
        "loss": 1e-2,  # 4.5e-3
        "gradients": 1.5e-1,  # 7.4e-2
    },
    "float16": {
        "forward": 1.7e-2,  # 8.5e-3
        "hidden": 5e-3,  # 2.3e-3
        "attentions": 1.1e-2,  # 5.2e-3
        "loss": 2e-3,  # 8.9e-4
        "gradients": 1.5e-2,  # 7.4e-3
    },
}
_TIMEOUT = 3600  # seconds for one backend


def run(arguments: Namespace) -> int:
    """Runs the comparison and prints it; 1 if anything departs."""
    installed = [backend for backend, (_, framework, _) in BACKENDS.items() if find_spec(framework)]
    backends = arguments.backends or installed
    engines = [name for name in backends if name in ENGINES]
    if engines and DTYPE not in arguments.dtype:
        raise InputError(f"--backends {engines[0]}: programs compute in {DTYPE}: add --dtype {DTYPE}.")
    for engine in engines:
        engine_of(engine)
    needed = [writer(name) if name in ENGINES else name for name in backends]
    if missing := [backend for backend in needed or BACKENDS if backend not in installed]:
        raise missing_backend(missing[0], f"--backends {missing[0]}")
    check_images(arguments)
    if arguments.images and arguments.model is None:
        raise InputError("parity: --images: random models see random numbers.\nName a checkpoint in front of them.")
    for file in (arguments.json_file, arguments.html_file):
        if file:
            check_target(file, is_folder=False, error=InputError)
    options = reading_options(arguments)
    if arguments.preset is not None:
        cases = parity_cases.preset(arguments.preset)
    elif arguments.model is not None:
        cases = parity_cases.checkpoint(arguments.model, arguments.images, arguments.processor, **options)
    else:
        cases = [*parity_cases.sweep(), *(parity_cases.every_patch() if engines else ())]
    what = arguments.model or arguments.preset or f"{len(cases)} small random models"
    found = {"what": what, **compare(cases, backends, arguments.dtype, arguments.checks)}
    if arguments.json_file:
        write_file(arguments.json_file, json.dumps(found, indent=1) + "\n", error=InputError)
    if arguments.html_file:
        from vitriad.parity_matrix.report import page

        write_file(arguments.html_file, page(found), error=InputError)
    _print(found)
    return 0 if found["passed"] else 1


def compare(cases: Sequence[Case], backends: Sequence[str], dtypes: Sequence[str], checks: Sequence[str]) -> Row:
    """Everything that was found, as docs/reference/parity.md describes it.

    Raises:
        BackendError: a backend's process fails.
    """
    start = monotonic()
    frameworks = [backend for backend in backends if backend in BACKENDS]
    training = parity_training.dtypes_of(dtypes) if "training" in checks and frameworks else []
    dtypes = dtypes if {*checks} - {"training", "preprocessing", "roundtrip"} else []
    with tempfile.TemporaryDirectory(prefix="vitriad-parity-") as name:
        folder = Path(name)
        with _progress(len(cases) + len(backends) * len(cases) * len(dtypes)) as bar:
            expected = []
            for i, case in enumerate(cases):
                expected.append(_write(folder, i, case, "gradients" in checks))
                bar.update()
            _write_jobs(folder, cases, dtypes, checks, training)
            processes = _run_all(folder, backends, bar)
        rows = [*_compared(folder, cases, expected, backends, dtypes, checks)]
        trained = {backend: processes[backend] for backend in frameworks}
        if "training" in checks:
            rows += parity_training.compared(folder, trained)
        if "preprocessing" in checks and frameworks:
            rows += _same("preprocessing", {b: p["preprocessing"] for b, p in trained.items()}, "bundled digits")
        if "roundtrip" in checks and frameworks:
            rows += _round(folder, cases, frameworks)
        halves = partial(_halves, {case.name: case for case in cases})
        found_causes = causes(rows, backends, halves)
    weights = [item for process in processes.values() for item in process["digests"].items()]
    same_weights = len({*weights}) == len({*dict(weights)})
    return {
        "passed": same_weights and all(row["passed"] for row in rows),
        "causes": found_causes,
        "seconds": monotonic() - start,
        "same_weights": same_weights,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "vitriad": own_version(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "processes": processes,
        "rows": rows,
        "not_for_programs": not_asked(backends, cases, dtypes, checks, rows),
    }


# --- processes -------------------------------------------------------------------------------------------------------


def _write(folder: Path, index: int, case: Case, wants_gradients: bool) -> Row:
    """Puts a case where the processes find it; returns what the oracle computes."""
    expected = case.expected()
    weights = case.weights(expected)
    arrays = {f"t:{name}": tensor for name, tensor in case.tensors.items()}
    arrays |= {f"i:{name}": array for name, array in case.inputs.items()}
    arrays |= {f"w:{name}": weight for name, weight in weights.items()}
    save_arrays(folder / f"{index}.npz", arrays)
    derivatives = case.derivatives(weights) if wants_gradients else {}
    return {"outputs": expected, "derivatives": derivatives, "directions": case.directions() if derivatives else {}}


def _write_jobs(
    folder: Path, cases: Sequence[Case], dtypes: Sequence[str], checks: Sequence[str], training: Sequence[str] = ()
) -> None:
    """Tells the processes what to do; `training` are the dtypes of runs of training."""
    jobs = {
        "cases": [
            {"index": i, "class": case.cls, "config": case.config.to_dict(), "options": case.options}
            for i, case in enumerate(cases)
        ],
        "dtypes": dtypes,
        "checks": checks,
        **{check: check in checks for check in ("gradients", "preprocessing")},
        "training": {"dtypes": training, "steps": parity_training.STEPS} if training else None,
    }
    (folder / "jobs.json").write_text(json.dumps(jobs))


def _progress(total: int) -> Any:
    """A bar of the models that are done, at a terminal: one step for each in the oracle, and in a backend and dtype."""
    from tqdm import tqdm

    return tqdm(total=total, unit="model", desc="parity", leave=False, file=sys.stderr, disable=not sys.stderr.isatty())


def _run_all(folder: Path, backends: Sequence[str], bar: Any) -> dict[str, Row]:
    """Runs the processes of all backends beside one another; returns what each wrote."""
    done = 0
    with ThreadPoolExecutor(min(len(backends), os.cpu_count() or 1)) as pool:
        running = {backend: pool.submit(_run, backend, folder) for backend in backends}
        while wait(running.values(), timeout=0.5).not_done:
            written = len([*folder.glob("*-*-*.npz")])
            bar.update(written - done)
            done = written
    return {backend: future.result() for backend, future in running.items()}


def _halves(cases: Mapping[str, Case], backend: str, name: str, dtype: str, layer: int) -> list[str]:
    """The halves of a layer that depart while the other one is silenced."""
    alone = [silenced(cases[name], layer, half) for half in HALVES]
    with tempfile.TemporaryDirectory(prefix="vitriad-parity-") as folder_name:
        folder = Path(folder_name)
        wanted = [_write(folder, i, case, False) for i, case in enumerate(alone)]
        _write_jobs(folder, alone, [dtype], ["hidden"])
        _run(backend, folder)
        rows = [*_compared(folder, alone, wanted, [backend], [dtype], ["hidden"])]
    after = f"hidden_states.{layer + 1}"
    return [half for half, row in zip(HALVES.values(), rows, strict=True) if row["errors"][after] > row["tolerance"]]


def _run(backend: str, folder: Path, *more: str) -> Row:
    """Runs one backend's process and returns what it wrote."""
    module = "vitriad.parity_matrix.worker" if backend in BACKENDS else "vitriad.parity_matrix.engine"
    command = [sys.executable, "-m", module, backend, str(folder), *more]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"parity: the process of {backend} failed with {done.returncode}:\n{last[:300]}")
    return {} if more else dict(json.loads((folder / f"{backend}.json").read_text()))


# --- comparing -------------------------------------------------------------------------------------------------------


def _compared(
    folder: Path, cases: Sequence[Case], expected: Sequence[Row], backends: Sequence[str], dtypes: Any, checks: Any
) -> Iterator[Row]:
    for i, case in enumerate(cases):
        for dtype in dtypes:
            found = {}
            running = [backend for backend in backends if backend in BACKENDS or dtype == DTYPE]
            for backend in running:
                with np.load(folder / f"{backend}-{i}-{dtype}.npz") as stored:
                    found[backend] = {name: stored[name] for name in stored}
                yield from _against_oracle(case, expected[i], found[backend], backend, dtype, checks)
            for one, two in combinations(running, 2):
                yield from _against_each_other(case, found, one, two, dtype, checks)


def _kind(name: str) -> str:
    """The check that an output belongs to."""
    first = name.partition(".")[0]
    return {"hidden_states": "hidden", "attentions": "attentions", "loss": "loss"}.get(first, "forward")


def _flat(outputs: Mapping[str, Any]) -> dict[str, Array]:
    flat: dict[str, Array] = {}
    for name, output in outputs.items():
        parts = {f"{name}.{i}": part for i, part in enumerate(output)} if isinstance(output, tuple) else {name: output}
        flat |= parts
    return flat


def _against_oracle(
    case: Case, expected: Row, found: Mapping[str, Array], backend: str, dtype: str, checks: Any
) -> Iterator[Row]:
    want = _flat(expected["outputs"])
    errors: dict[str, dict[str, float]] = {}
    alike: dict[str, list[Likeness]] = {}
    if backend in ENGINES:  # which return some of it
        want = {name: reference for name, reference in want.items() if f"o:{name}" in found}
    for name, reference in want.items():
        got = found.get(f"o:{name}")
        same_shape = got is not None and got.shape == reference.shape
        scale = float(np.abs(reference).max(initial=0.0)) or 1.0
        error = float(np.abs(got - reference).max(initial=0.0)) / scale if same_shape else float("inf")
        errors.setdefault(_kind(name), {})[name] = error if error == error else float("inf")
        if got is not None and same_shape and got.ndim:
            alike.setdefault(_kind(name), []).append(likeness(name, got, reference))
    if (derivatives := expected["derivatives"]) and backend in BACKENDS:
        scale = max(map(abs, derivatives.values())) or 1.0
        errors["gradients"] = {
            name: abs(float((found[f"g:{name}"] * way).sum()) - derivatives[name]) / scale
            for name, way in expected["directions"].items()
        }
    for check, by_name in errors.items():
        if check in checks:
            between = least(alike.get(check, ()))
            yield _row(check, case, backend, "oracle", dtype, by_name, TOLERANCES[dtype][check], between)


def _against_each_other(
    case: Case, found: Mapping[str, Mapping[str, Array]], one: str, two: str, dtype: str, checks: Any
) -> Iterator[Row]:
    errors: dict[str, dict[str, float]] = {}
    alike: dict[str, list[Likeness]] = {}
    whole = max((float(np.abs(a).max(initial=0)) for n, a in found[one].items() if n.startswith("g:")), default=1.0)
    for name, first in found[one].items():
        second = found[two].get(name)
        if second is None and not {one, two} <= {*BACKENDS}:
            continue
        check = "gradients" if name.startswith("g:") else _kind(name[2:])
        scale = whole if check == "gradients" else float(np.abs(first).max(initial=0.0))
        same_shape = second is not None and second.shape == first.shape
        error = float(np.abs(first - second).max(initial=0.0)) / (scale or 1.0) if same_shape else float("inf")
        errors.setdefault(check, {})[name[2:]] = error if error == error else float("inf")
        if second is not None and same_shape and name.startswith("o:") and first.ndim:
            alike.setdefault(check, []).append(likeness(name[2:], second, first))
    for check, by_name in errors.items():
        if check in checks:
            between = least(alike.get(check, ()))
            yield _row(check, case, one, two, dtype, by_name, 2 * TOLERANCES[dtype][check], between)


def _row(
    check: str,
    case: Case,
    backend: str,
    against: str,
    dtype: str,
    errors: Mapping[str, float],
    tolerance: float,
    alike: Likeness | None,
) -> Row:
    """One line of the result; `first` is the first named value, in the order of the forward pass, that departs."""
    worst = max(errors, key=lambda name: errors[name])
    return {
        "check": check,
        "case": case.name,
        "class": case.cls,
        "backend": backend,
        "against": against,
        "dtype": dtype,
        "error": errors[worst],
        "worst": worst,
        "tolerance": tolerance,
        "passed": errors[worst] <= tolerance,
        "first": next((name for name, error in errors.items() if error > tolerance), None),
        "errors": dict(errors) if check == "hidden" else None,
        **(alike._asdict() if alike else {}),
    }


def _plain(check: str, backend: str, against: str, case: str) -> Row:
    return {
        "check": check,
        "case": case,
        "class": "",
        "backend": backend,
        "against": against,
        "dtype": "float32",
        "first": None,
    }


def _same(check: str, digests: Mapping[str, str], case: str) -> Iterator[Row]:
    """A row per backend whose digest is, or is not, that of the first."""
    first = next(iter(digests))
    for backend, digest in digests.items():
        is_same = digest == digests[first]
        error = 0.0 if is_same else float("inf")
        yield {
            **_plain(check, backend, first, case),
            **{"error": error, "worst": "digest", "tolerance": 0.0, "passed": is_same, "errors": None},
        }


def _round(folder: Path, cases: Sequence[Case], backends: Sequence[str]) -> Iterator[Row]:
    """Saved in each backend in turn, what the last one saved is what the first one loaded."""
    import conversion

    exact = [{name: tensor.astype(np.float32) for name, tensor in case.tensors.items()} for case in cases]
    for i, case in enumerate(cases):
        config = type(case.config).from_dict(case.config.to_dict())
        config.architectures = [case.cls]
        save_folder(folder / f"round-{i}-0", files={"config.json": config.to_json_string()}, tensors=exact[i])
    chain = (*backends, backends[0])
    for step, backend in enumerate(chain):
        _run(backend, folder, str(step))
    for i, case in enumerate(cases):
        again = conversion.load(folder / f"round-{i}-{len(chain)}", cls=case.cls, **case.options)[1]
        is_same = all(again[name].tobytes() == tensor.tobytes() for name, tensor in exact[i].items())
        yield {
            **_plain("roundtrip", " > ".join(chain), "itself", case.name),
            **{"error": 0.0 if is_same else float("inf"), "worst": "bits", "tolerance": 0.0},
            **{"class": case.cls, "passed": is_same, "errors": None},
        }


# --- printing --------------------------------------------------------------------------------------------------------


def _print(found: Row) -> None:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in found["rows"]:
        groups.setdefault((row["check"], row["backend"], row["against"], row["dtype"]), []).append(row)
    table: list[tuple[str, ...]] = [
        ("check", "backend", "against", "dtype", "models", "worst error", "tolerance", "", *COLUMNS)
    ]
    for key, rows in sorted(groups.items(), key=lambda item: CHECKS.index(item[0][0])):
        worst = max(rows, key=lambda row: row["error"] / (row["tolerance"] or 1.0))
        passed = all(row["passed"] for row in rows)
        numbers = (str(len(rows)), f"{worst['error']:.1e}", f"{worst['tolerance']:.1e}", "ok" if passed else "FAIL")
        alike = least(Likeness(*(row[name] for name in Likeness._fields)) for row in rows if "cosine" in row)
        table.append((*key, *numbers, *cells(alike)))
    for left in found["not_for_programs"]:
        words = (left["check"], left["backend"], "", left["dtype"], str(left["models"]))
        table.append((*words, "", "", "not for programs", *cells(None)))
    print_table(table)
    for backend, process in found["processes"].items():
        print(f"{backend}: process {process['pid']}, " + ", ".join(f"{n} {v}" for n, v in process["versions"].items()))
    for cause in found["causes"]:
        print(f"cause: {cause}")
    for row in found["rows"]:
        if not row["passed"]:
            print(
                f"departs: {row['check']} of {row['backend']} against {row['against']}, {row['dtype']}, {row['case']}: "
                f"first {row['first'] or row['worst']}, worst {row['worst']} {row['error']:.2e}"
            )
    if not found["same_weights"]:
        print("departs: the processes did not have the same weights")
    holding = sum(all(row["passed"] for row in rows) for rows in groups.values())
    print(f"parity: {holding} of {len(groups)} hold, {found['seconds']:.0f} s")
