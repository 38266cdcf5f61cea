"""Writes the table of docs/guides/export.md from certificates: `programs_table.py FOLDER`, which has programs below it.

`make programs-table` exports every one of them anew.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vit_core.programs import PURPOSES
from vitriad.programs.exporting import FORMATS

START, END = "<!-- table -->", "<!-- end of table -->"
UINT8 = "uint8 images, logits"


class Program(NamedTuple):
    """One certificate: of which row and column, and its worst error."""

    to: str
    backend: str
    sizes: str
    what: str
    worst: float


def programs(folder: Path) -> Iterator[Program]:
    """What lies below a folder in float32."""
    for path in sorted(folder.rglob("certificate.json")):
        said, found = (json.loads(each.read_text()) for each in (path.with_name("vitriad.json"), path))
        if found["precision"] != "float32":
            continue
        to, packages = said["format"], {*said["versions"]}
        backend = next(name for name, needed in FORMATS[to].converters.items() if {*needed} <= packages)
        what = UINT8 if said["preprocessing"] else f"{said['model']}, {said['outputs']}"
        yield Program(to, backend, "fixed" if said["image_size"] else "any", what, found["worst"])


def columns() -> list[str]:
    """A column for every class that has programs of a purpose, and one for images that are not prepared."""
    return [*(f"{cls}, {purpose}" for purpose, classes in PURPOSES.items() for cls in classes), UINT8]


def table(found: list[Program]) -> str:
    """A line for every format, backend and kind of size; the worst error of each class and purpose."""
    worst: dict[tuple[str, ...], float] = {}
    for each in found:
        worst[each[:4]] = max(each.worst, worst.get(each[:4], 0.0))
    heads = ["format", "from", "sizes", *columns()]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for to, known in FORMATS.items():
        for backend in known.converters:
            for sizes in ("any", "fixed"):
                refused = sizes == "any" and backend in known.one_size
                cells = [_cell(worst.get((to, backend, sizes, what)), refused) for what in columns()]
                lines.append(f"| {' | '.join([f'`{to}`', backend, sizes, *cells])} |")
    refusals = [f"{name} (`{to}` from {backend})" for to, f in FORMATS.items() for backend, name in f.one_size.items()]
    return "\n".join(
        [*lines, "", f"Refused: images of any size by {', '.join(refusals)}. A dash is a cell without a test."]
    )


def _cell(error: float | None, refused: bool) -> str:
    return "refused" if refused else "-" if error is None else f"{error:.1e}"


if __name__ == "__main__":
    page = Path(__file__).parent / "guides" / "export.md"
    before, _, rest = page.read_text().partition(START)
    new = table([*programs(Path(sys.argv[1]))])
    page.write_text(f"{before}{START}\n{new}\n{END}{rest.partition(END)[2]}")
