"""Writes what grows into docs/reference/benchmarks.md, from what the groups of growth measured.

    PYTHONPATH=tests python -m benchmarks.run --groups growth growth-batch … --json tests/benchmarks/growth.json
    PYTHONPATH=tests python -m benchmarks.growth

The picture beside it is drawn by docs/book_pictures.py, from the same file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
MEASURED, PAGE = HERE / "growth.json", HERE.parents[1] / "docs" / "reference" / "benchmarks.md"
START, END = "<!-- growth -->", "<!-- end of growth -->"
Row = dict[str, Any]


def number(case: str) -> int:
    """How large a case is: of "4,097 tokens, memory" 4097, of an image its side."""
    found = re.search(r"[\d,]*\d", case)
    assert found, case
    return int(found[0].replace(",", ""))


def series(result: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of each contender that was measured in every case, by size."""
    found: dict[str, list[Row]] = {}
    for row in result["rows"]:
        found.setdefault(row["what"], []).append(row)
    return {what: sorted(rows, key=lambda row: number(row["case"])) for what, rows in found.items()}


def exponent(floors: list[Row], rows: list[Row]) -> float:
    """p of time ~ floor ** p, fitted to the ratios of rounds, which drift less than times: 1 + their own exponent."""
    ratios = np.log([row["ratio"][1] for row in rows])
    return 1 + float(np.polyfit(np.log([row["value"] for row in floors]), ratios, 1)[0])


def per_unit(rows: list[Row]) -> tuple[float, float]:
    """Seconds at the start, and for each unit of the size; every case counts alike."""
    values = np.array([row["value"] for row in rows])
    each, start = np.polyfit([number(row["case"]) for row in rows], values, 1, w=1 / values)
    return float(start), float(each)


def fitted(result: dict[str, Any]) -> Iterator[str]:
    """A row for each of ours."""
    found = series(result)
    (floor,) = (what for what, rows in found.items() if rows[0]["role"] == "floor")
    for what, rows in found.items():
        if rows[0]["role"] != "ours":
            continue
        ratios = [row["ratio"][1] for row in rows]
        sizes = f"{number(rows[0]['case']):,} to {number(rows[-1]['case']):,}"
        if "tensors" in rows[0]["case"]:
            start, each = per_unit(rows)
            power = f"{start * 1e3:.0f} ms and {each * 1e6:.1f} microseconds a tensor"
        else:
            power = f"{exponent(found[floor], rows):.2f}"
        yield f"| {result['title']} | {what} | {sizes} | {power} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"


def section(report: dict[str, Any]) -> Iterator[str]:
    facts = report["machine"]
    yield f"{facts['cpu']}, {facts['cores']} cores, {facts['date']}. Ratios are medians over the rounds."
    yield from ("", "| what | by | sizes | exponent | ratios to the floor |", "| --- | --- | --- | --- | --- |")
    for result in report["groups"].values():
        yield from fitted(result)


def main() -> None:
    text, report = PAGE.read_text(), json.loads(MEASURED.read_text())
    before, _, rest = text.partition(START)
    PAGE.write_text("\n".join([before + START, *section(report), END + rest.partition(END)[2]]))


if __name__ == "__main__":
    main()
