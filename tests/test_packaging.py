"""What the project says of itself in pyproject.toml holds."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

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
    assert {re.split(r"\[|>=", name)[0] for name in wanted if not name.startswith("vitriad[")} <= pinned


def test_the_floors_of_the_page_on_security_are_those_that_pip_keeps_to():
    rows = re.findall(
        r"^\| (\w+) \| ([\d.]+) \|", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = {*PROJECT["project"]["dependencies"], *(name for group in extras for name in group)}
    assert len(rows) >= 5 and {f"{name}>={floor}" for name, floor in rows} <= wanted


def test_the_pythons_that_are_named_are_those_that_all_of_it_is_tested_with():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if ":: Python :: 3." in line]
    assert workflow["jobs"]["together"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


FORMS = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_for_issues_ask_for_doctor(path):
    """And have what a code host wants of a form."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {*form} == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input"}
    assert len({field["id"] for field in fields}) == len(fields)
    assert len({field["attributes"]["label"] for field in fields}) == len(fields)
    (doctor,) = [field for field in fields if "vitriad doctor" in field["attributes"]["label"]]
    assert doctor["attributes"]["render"] == "text"
    assert doctor.get("validations", {}).get("required", False) or path.stem == "idea"


WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}


def test_workflows_use_one_commit_of_every_action():
    """A tag can be moved to other code by whoever takes over an account."""
    used = {line for text in WORKFLOWS.values() for line in re.findall(r"uses: ([\w-]+/.*)", text)}
    used -= {line for line in used if line.startswith("OWNER/")}  # as callers write it
    commits = dict(re.fullmatch(r"([\w/-]+)@([0-9a-f]{40} # v[\d.]+)", line).groups() for line in used)
    assert len(commits) == len(used) >= 5


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_name_what_exists(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:run:|^ *\|?) *make ([\w-]+)", WORKFLOWS[name], flags=re.MULTILINE)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    files = re.findall(r"\b(?:tests|docs|vitriad)/[\w/.-]+\.py", WORKFLOWS[name])
    (core,) = re.findall(r"CORE: >-\n((?: {8}.*\n)+)", WORKFLOWS[name]) or [""]
    files += [f"tests/vit_core/test_{each}.py" for each in core.split()]
    assert [file for file in files if not (ROOT / file).exists()] == []
