"""What the project says of itself in pyproject.toml holds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_shipped_and_typed():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == ["conversion", "vit_core", "vit_flax", "vit_tf", "vit_torch", "vitriad"]
    assert [name for name in packages if not (ROOT / name / "py.typed").exists()] == []


def test_every_dependency_is_pinned_in_the_tested_set():
    groups = [*PROJECT["dependency-groups"].values(), *PROJECT["project"]["optional-dependencies"].values()]
    wanted = {
        name for group in [PROJECT["project"]["dependencies"], *groups] for name in group if isinstance(name, str)
    }
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {name.partition(">=")[0] for name in wanted if not name.startswith("vitriad[")} <= pinned
