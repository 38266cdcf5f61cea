"""Lets mypy and pyright read what users read and write: the snippets of the README and the docs, and tests/typed.

`make check` runs it. The snippets of a page are one program, line for line where they stand on the page, so a message
names the page's line. Two things are not shown to readers: what a page takes as given stands in a comment in front of
a snippet, `<!-- given: images, labels -->`, and a later snippet of one import line is the first line of the first
snippet in other words.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
GIVEN = re.compile(r"<!-- given: (.*?) -->")
SETTINGS = {
    "pythonVersion": "3.11",
    "reportUnnecessaryTypeIgnoreComment": "error",
    "reportMissingModuleSource": "none",  # whether stubs have their library beside them
}
ONE_IMPORT = re.compile(r"from \w+ import [^\n]+\n")


def programs(text: str) -> list[str]:
    """The programs of a page: its snippets, and the first one again for each other import line."""
    whole = [""] * len(text.splitlines())
    first: list[str] = []
    others = []
    for match in GIVEN.finditer(text):
        names = "; ".join(f"{name}: Any = ..." for name in match[1].split(", "))
        whole[text[: match.start()].count("\n")] = f"from typing import Any; {names}"
    for match in SNIPPET.finditer(text):
        start = text[: match.start(1)].count("\n")
        if first and ONE_IMPORT.fullmatch(match[1]):
            others.append("\n".join([*first[:-1], match[1].strip(), *first[-1].splitlines()[1:]]))
            continue
        lines = match[1].splitlines()
        whole[start : start + len(lines)] = lines
        first = first or [*([""] * start), match[1]]
    return ["\n".join(whole) + "\n", *others] if first else []


def written(folder: Path) -> list[Path]:
    """The programs of all pages as files in a package `snippets`."""
    package = folder / "snippets"
    package.mkdir()
    (package / "__init__.py").touch()
    files = []
    for page in PAGES:
        for number, program in enumerate(programs(page.read_text(encoding="utf-8"))):
            name = "_".join(page.relative_to(ROOT).with_suffix("").parts)
            files.append(package / f"{name}{f'_{number}' if number else ''}.py")
            files[-1].write_text(program, encoding="utf-8")
    return files


def by_mypy(files: list[Path]) -> int:
    """The exit status of mypy, with the project's settings."""
    return subprocess.run([sys.executable, "-m", "mypy", *map(str, files)], cwd=ROOT, check=False).returncode


def by_pyright(folder: Path) -> int:
    """The exit status of pyright for all files in a folder, on its own node: that of the machine can be too old."""
    (folder / "pyrightconfig.json").write_text(json.dumps({**SETTINGS, "extraPaths": [str(ROOT)]}), encoding="utf-8")
    environment = {**os.environ, "PYRIGHT_PYTHON_GLOBAL_NODE": "0", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", "pyright", "--project", str(folder), "--pythonpath", sys.executable]
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    """Checks everything with both; 0 where neither finds anything."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        snippets = written(folder)
        typed = [Path(shutil.copy(file, folder)) for file in sorted((ROOT / "tests" / "typed").glob("*.py"))]
        print(f"mypy and pyright: {len(snippets)} programs of the docs, {len(typed)} files of types", flush=True)
        return by_mypy([*typed, *snippets]) or by_pyright(folder)


if __name__ == "__main__":
    sys.exit(main())
