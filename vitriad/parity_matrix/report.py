"""The report of `vitriad parity` for people: one HTML file that refers to nothing outside itself."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from vit_core.likeness import Likeness

Row = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9d9e0; --page: #fcfcfd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f; --page: #111113; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, dt { color: var(--soft); max-width: 60rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; padding: .3rem .7rem; border-bottom: 1px solid var(--line); }
td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
.e { text-align: right; } td.e { color: #10141a; }
@media (max-width: 44rem) {
  tr:first-child { display: none; } table, tbody, tr, td { display: block; width: auto; } td { white-space: normal; }
  tr { border-bottom: 2px solid var(--line); padding: .5rem 0; } td { border: 0; padding: .1rem .5rem; }
  td[data-head] { display: flex; justify-content: space-between; } td[data-head]::before { content: attr(data-head); }
  dl { display: block; } dd { margin: 0 0 .4rem; overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
}
.fail { font-weight: 700; outline: 2px solid #d13415; outline-offset: -2px; }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; color: #fff; font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; } dd { margin: 0; }
"""
_MATRIX = ("forward", "hidden", "attentions", "loss", "gradients")
_COLOURS = {"torch": "#d9482b", "tf": "#d98e04", "flax": "#3e63dd"}
_OTHERS = ("#8e4ec6", "#12a594", "#e54666")
_NOT_ASKED = "not for programs"  # of engines: a loss, gradients, float64 …
_DASHES = {"torch": "", "tf": "6 3", "flax": "2 3"}


def page(found: Mapping[str, Any]) -> str:
    """The whole file."""
    verdict = ("#18794e", "the same") if found["passed"] else ("#cd2b31", "not the same")
    body = [
        f"<h1>vitriad parity: {_text(found['what'])}</h1>",
        f'<p><span class="badge" style="background:{verdict[0]}">{verdict[1]}</span> {_text(found["date"])}, '
        f"vitriad {_text(found['vitriad'])}, {_text(found['machine'])}, {found['seconds']:.0f} s</p>",
        "".join(f"<p><strong>{_text(cause)}</strong></p>" for cause in found["causes"]),
        "<p>An error is the largest difference as a share of the largest value of the output; of a gradient, of the "
        "whole model. A cell is the worst of its models. Colours say how much of the tolerance is used: green next to "
        "none, yellow all of it, red more.</p>",
        *(_matrix(found, dtype) for dtype in _values(found["rows"], "dtype")),
        _not_asked(found["not_for_programs"]),
        _layers(found["rows"]),
        _training(found),
        _failures(found["rows"]),
        _environment(found),
    ]
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>vitriad parity</title>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f"{head}{view}<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"


def _text(value: object) -> str:
    return html.escape(str(value))


def _values(rows: Iterable[Row], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _colour(error: float, tolerance: float) -> str:
    """From green where less than a ten-thousandth of the tolerance is used, over yellow at all of it, to red beyond."""
    share = error / tolerance if tolerance else math.inf * error if error else 0.0
    power = min(4.0, max(-4.0, math.log10(share))) if 0 < share < math.inf else math.copysign(4.0, share - 1)
    return f"hsl({60 - 22.5 * power if power < 0 else 40 - 10 * power:.0f} 62% 72%)"


def _matrix(found: Mapping[str, Any], dtype: str) -> str:
    """Backend and model class down, checks across."""
    engines = {left["backend"] for left in found["not_for_programs"]}
    rows = [row for row in found["rows"] if row["dtype"] == dtype and row["check"] in _MATRIX]
    checks = [check for check in _MATRIX if any(row["check"] == check for row in rows)]
    lines = []
    for backend, against, cls in dict.fromkeys((row["backend"], row["against"], row["class"]) for row in rows):
        cells = []
        for check in checks:
            here = [
                r
                for r in rows
                if (r["backend"], r["against"], r["class"], r["check"]) == (backend, against, cls, check)
            ]
            cells.append(_cell(here, _text(check), _NOT_ASKED if {backend, against} & engines else ""))
        lines.append(
            f"<tr><td>{_text(backend)}</td><td>{_text(against)}</td><td>{_text(cls)}</td>{''.join(cells)}</tr>"
        )
    if not lines:
        return ""
    heads = "".join(f"<th>{name}</th>" for name in ("backend", "against", "class"))
    heads += "".join(f'<th class="e">{_text(check)}</th>' for check in checks)
    return f'<h2>{_text(dtype)}</h2><div class="wide"><table><tr>{heads}</tr>{"".join(lines)}</table></div>'


def _cell(rows: list[Row], head: str, nothing: str = "") -> str:
    """The worst of some rows, or `nothing`; `head` is shown beside it where a screen is too narrow for columns."""
    if not rows:
        return f'<td data-head="{head}">{nothing}</td>'
    worst = max(rows, key=lambda row: row["error"])
    passed = all(row["passed"] for row in rows)
    alike = [(name, worst[name]) for name in Likeness._fields if worst.get(name) is not None]
    said = "".join(f", {name} {value:.7g}" for name, value in alike)
    title = _text(f"{worst['case']}: {worst['worst']}, tolerance {worst['tolerance']:g}{said}")
    style = f'class="e{"" if passed else " fail"}" style="background:{_colour(worst["error"], worst["tolerance"])}"'
    return f'<td {style} data-head="{head}" title="{title}">{worst["error"]:.1e}</td>'


def _chart(curves: Mapping[str, list[float]], xlabel: str, names: list[str] | None = None) -> str:
    """Curves over their index, on a logarithmic scale."""
    width, height, left, bottom = 760, 280, 60, 46
    shown = [value for curve in curves.values() for value in curve if 0 < value < math.inf]
    if not shown:
        return "<p>No difference at all.</p>"
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)) + 1e-9)
    high = max(high, low + 1)
    longest = max(max(map(len, curves.values())) - 1, 1)

    def x(i: int) -> float:
        return left + i * (width - left - 110) / longest

    def y(value: float) -> float:
        power = min(max(math.log10(value), low), high) if value > 0 else low
        return 12 + (high - power) * (height - bottom - 12) / (high - low)

    parts = []
    for power in range(low, high + 1, max(1, (high - low) // 6)):
        at = y(10.0**power)
        parts.append(f'<line class="axis" x1="{left}" x2="{width - 110}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power}</text>')
    for i in range(0, longest + 1, max(1, longest // 10)):
        label = names[i] if names else str(i)
        parts.append(f'<text x="{x(i):.1f}" y="{height - bottom + 18}" text-anchor="middle">{_text(label)}</text>')
    below = 0.0
    for number, (name, curve) in enumerate(
        sorted(curves.items(), key=lambda item: (round(y(item[1][-1])), bool(_DASHES.get(item[0]))))
    ):
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(curve))
        colour = _COLOURS.get(name, _OTHERS[number % len(_OTHERS)])
        dashes = _DASHES.get(name, "")
        parts.append(
            f'<polyline fill="none" stroke-width="2" stroke="{colour}" stroke-dasharray="{dashes}" points="{points}"/>'
        )
        below = max(y(curve[-1]) + 4, below + 15)
        parts.append(
            f'<text x="{x(len(curve) - 1) + 8:.1f}" y="{below:.1f}" style="fill:{colour}">{_text(name)}</text>'
        )
    parts.append(f'<text x="{(width - 110 + left) / 2}" y="{height - 6}" text-anchor="middle">{_text(xlabel)}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_text(xlabel)}">{"".join(parts)}</svg>'


def _layers(rows: Iterable[Row]) -> str:
    """How the error of the hidden states grows from layer to layer, for the deepest model, in every dtype."""
    rows = [row for row in rows if row["check"] == "hidden" and row["against"] == "oracle" and row["errors"]]
    if not rows:
        return ""
    depth = max(len(row["errors"]) for row in rows)
    case = next(row["case"] for row in rows if len(row["errors"]) == depth)
    parts = [f"<h2>From layer to layer: {_text(case)}</h2>"]
    for dtype in _values(rows, "dtype"):
        chosen = [row for row in rows if row["case"] == case and row["dtype"] == dtype]
        curves = {row["backend"]: list(row["errors"].values()) for row in chosen}
        parts.append(f"<p>{_text(dtype)}: error of every hidden state against the oracle</p>")
        parts.append(_chart(curves, "layer (0: embeddings)"))
    return "".join(parts)


def _training(found: Mapping[str, Any]) -> str:
    rows = [row for row in found["rows"] if row["check"] == "training"]
    runs = {name: p["training"] for name, p in found["processes"].items() if "training" in p}
    if not runs:
        return ""
    text = "<h2>Training</h2>"
    for key in next(iter(runs.values())):
        name, dtype = key.split()
        text += f"<p>{_text(name)}, {_text(dtype)}: the loss, in every backend, from the same weights and data</p>"
        text += _chart({backend: run[key] for backend, run in runs.items()}, "step")
        mine = [row for row in rows if row["errors"] and row["dtype"] == dtype and row["case"].startswith(name)]
        apart = {f"{row['backend']} - {row['against']}": list(accumulate(row["errors"].values(), max)) for row in mine}
        text += "<p>The largest difference of two backends so far, of the largest loss</p>" + _chart(apart, "step")
    ends = "".join(
        f"<tr><td>{_text(r['backend'])}</td><td>{_text(r['against'])}</td><td>{_text(r['case'])}</td>"
        f"<td>{_text(r['dtype'])}</td><td>{_text(r['worst'])}</td>"
        f"{_cell([r], 'error')}<td data-head='tolerance'>{r['tolerance']:g}</td></tr>"
        for r in rows
    )
    words = ("backend", "against", "run", "dtype", "what", "error", "tolerance")
    heads = "".join(f"<th>{word}</th>" for word in words)
    return f'{text}<div class="wide"><table><tr>{heads}</tr>{ends}</table></div>'


def _not_asked(left: Iterable[Row]) -> str:
    """What engines were not compared in."""
    checks: dict[str, dict[str, None]] = {}
    for row in left:
        checks.setdefault(row["backend"], {})[f"{row['check']} in {row['dtype']} of {row['models']} models"] = None
    items = "".join(f"<li>{_text(engine)}: {_text(', '.join(names))}</li>" for engine, names in checks.items())
    return f"<h2>{_NOT_ASKED.capitalize()}</h2><ul>{items}</ul>" if items else ""


def _failures(rows: Iterable[Row]) -> str:
    wrong = [row for row in rows if not row["passed"]]
    if not wrong:
        return ""
    items = "".join(
        f"<li>{_text(row['check'])} of {_text(row['backend'])} against {_text(row['against'])}, {_text(row['dtype'])}, "
        f"{_text(row['case'])}: first {_text(row['first'] or row['worst'])}, "
        f"worst {_text(row['worst'])} {row['error']:.2e}</li>"
        for row in wrong
    )
    return f"<h2>What departs</h2><ul>{items}</ul>"


def _environment(found: Mapping[str, Any]) -> str:
    exact = [row for row in found["rows"] if row["check"] in ("preprocessing", "roundtrip")]
    lines = [
        (f"{row['check']}, {row['backend']}", "equal, bit for bit" if row["passed"] else "different") for row in exact
    ]
    lines = list(dict.fromkeys(lines))
    for backend, process in found["processes"].items():
        versions = ", ".join(f"{name} {number}" for name, number in process["versions"].items())
        lines.append((f"{backend}, process {process['pid']}", versions))
    lines.append(("weights", "the same in every process" if found["same_weights"] else "not the same"))
    terms = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in lines)
    return f"<h2>Bits and processes</h2><dl>{terms}</dl>"
