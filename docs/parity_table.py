"""Writes the table of docs/reference/parity.md from what `vitriad parity --json FILE` found: `parity_table.py FILE`."""

import json
import sys
from pathlib import Path

START, END = "<!-- table -->", "<!-- end of table -->"


def table(found: dict) -> str:
    """One line per check and dtype, one column per backend: the worst error against the oracle."""
    backends = [*found["processes"]]
    rows = [row for row in found["rows"] if row["against"] == "oracle"]
    lines = [f"| check | dtype | {' | '.join(backends)} | between two of them | tolerance |"]
    lines.append("| --- " * (len(backends) + 4) + "|")
    for check, dtype in dict.fromkeys((row["check"], row["dtype"]) for row in rows):
        here = [row for row in found["rows"] if (row["check"], row["dtype"]) == (check, dtype)]
        errors = [max(r["error"] for r in here if r["backend"] == b and r["against"] == "oracle") for b in backends]
        between = max((r["error"] for r in here if r["against"] != "oracle"), default=0.0)
        cells = [*(f"{error:.1e}" for error in errors), f"{between:.1e}"]
        lines.append(f"| {check} | {dtype} | {' | '.join(cells)} | {tolerance(here):.1e} |")
    others = ("training", "preprocessing", "roundtrip")
    for check, dtype in dict.fromkeys((row["check"], row["dtype"]) for row in found["rows"] if row["check"] in others):
        here = [row for row in found["rows"] if (row["check"], row["dtype"]) == (check, dtype)]
        worst = max(row["error"] for row in here)
        text = f"{worst:.1e}" if worst else "equal, bit for bit"
        lines.append(f"| {check} | {dtype} | {'| ' * len(backends)}{text} | {max(r['tolerance'] for r in here):.1e} |")
    versions = {name: v for process in found["processes"].values() for name, v in process["versions"].items()}
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n".join([*lines, "", f"{found['date']}; {said}; {found['machine']}."])


def tolerance(rows: list[dict]) -> float:
    return min(row["tolerance"] for row in rows)


if __name__ == "__main__":
    page = Path(__file__).parent / "reference" / "parity.md"
    before, _, rest = page.read_text().partition(START)
    new = table(json.loads(Path(sys.argv[1]).read_text()))
    page.write_text(f"{before}{START}\n{new}\n{END}{rest.partition(END)[2]}")
