"""Lets mypy and pyright read what users read and write: the snippets of the README and the docs, and tests/typed.

`make check` runs it. The snippets of a page are one program, line for line where they stand on the page, so a message
names the page's line. A later snippet of one import line is the first line of the first snippet in other words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import ONE_IMPORT, PAGES, ROOT, blocks, names

SETTINGS = {
    "pythonVersion": "3.11",
    "reportUnnecessaryTypeIgnoreComment": "error",
    "reportMissingModuleSource": "none",  # whether stubs have their library beside them
}


def programs(text: str) -> list[str]:
    """The programs of a page: its snippets, and the first one again for each other import line."""
    whole = [""] * len(text.splitlines())
    first: list[str] = []
    others = []
    for block in blocks(text):
        if block.kind == "given":
            whole[block.line] = f"from typing import Any; {'; '.join(f'{name}: Any = ...' for name in names(block))}"
        elif block.kind == "python" and first and ONE_IMPORT.fullmatch(block.text):
            others.append("\n".join([*first[:-1], block.text.strip(), *first[-1].splitlines()[1:]]))
        elif block.kind == "python":
            lines = block.text.splitlines()
            whole[block.line : block.line + len(lines)] = lines
            first = first or [*([""] * block.line), block.text]
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
