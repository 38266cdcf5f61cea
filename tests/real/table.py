"""Writes the table of real weights in docs/reference/parity.md: `python -m real.table`, with `tests` on the path."""

import sys
import tempfile
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from backends import INSTALLED
from real import comparing, dinov2
from real.comparing import RUNGS
from real.fetching import NotFetchedError

import conversion
from vitriad.backends import BACKENDS

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "parity.md"
START, END = "<!-- real -->", "<!-- end of real -->"
WHAT = {
    "largest": "largest difference of a layer, of its largest value",
    "typical": "root mean square of a layer's differences, of its values'",
    "cosine": "1 - cosine of the class token",
}


def measured(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(dtype, backend) -> measure -> value."""
    images = dinov2.pixel_values()
    expected, found = dinov2.reference(images), {}
    for dtype in RUNGS:
        for backend in INSTALLED:
            states = comparing.states(comparing.load(folder, backend, dtype), backend, images)
            found[dtype, backend] = comparing.errors(states, expected)
    return found


def table(found: dict[tuple[str, str], dict[str, float]]) -> str:
    """One line per dtype and measure, one column per backend."""
    lines = [f"| dtype | what | {' | '.join(INSTALLED)} | at most |", "| --- " * (len(INSTALLED) + 3) + "|"]
    for dtype, rungs in RUNGS.items():
        for measure, rung in rungs.items():
            cells = " | ".join(f"{found[dtype, backend][measure]:.1e}" for backend in INSTALLED)
            lines.append(f"| {dtype} | {WHAT[measure]} | {cells} | {rung:.1e} |")
    packages = [name for b in INSTALLED for name in import_module(f"{BACKENDS[b].package}.parity").FRAMEWORKS]
    said = ", ".join(f"{name} {version(name)}" for name in (*packages, "numpy", "onnxruntime"))
    return "\n".join([*lines, "", f"{datetime.now(UTC):%Y-%m-%d}; {said}."])


def main() -> int:
    """Measures, and writes the page."""
    with tempfile.TemporaryDirectory() as name:
        try:
            published = dinov2.write(Path(name) / "dinov2_vits14_pretrain.safetensors")
            conversion.convert(published, Path(name) / "model", to="hf", cls="ViTModel", add_pooling_layer=False)
            new = table(measured(Path(name) / "model"))
        except NotFetchedError as error:
            print(f"real weights were NOT measured: {error}", file=sys.stderr)
            return 1
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    PAGE.write_text(f"{before}{START}\n{new}\n{END}{rest.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
