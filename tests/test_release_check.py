"""`make release-check` sees what a release lacks, and says what to write."""

import subprocess
import tarfile
import zipfile
from datetime import date
from pathlib import Path

import pytest
from release_check import QUICK, missing_files, missing_words, notes

ROOT = Path(__file__).parent.parent
TODAY = date(2031, 5, 6)
READY = {
    "pyproject.toml": '[project]\nversion = "1.2.3"\n[project.urls]\nRepository = "https://github.com/us/vitriad"\n'
    '[tool.hatch.build.targets.wheel]\npackages = ["core"]\n'
    '[tool.hatch.build.targets.sdist]\nexclude = [".ci"]\n',
    "CHANGELOG.md": "# Changelog\n\n## [1.2.3] - 2031-05-06\n\n- All.\n\n## [1.2.2] - 2030-01-01\n\n- Less.\n",
    "CITATION.cff": "cff-version: 1.2.0\nversion: 1.2.3\ndate-released: '2031-05-06'\n",
    "README.md": "| | vitriad 1.2 | others |\n",
}


@pytest.fixture
def ready(tmp_path):
    for name, text in READY.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_nothing_is_missing_where_all_is_there(ready):
    assert missing_words(ready, TODAY, "v1.2.3", "us/vitriad") == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("CHANGELOG.md", "## [1.2.3] - 2031-05-06", "## [Unreleased]", 'Unreleased: write "## [1.2.3] - 2031-05-06"'),
        ("CHANGELOG.md", "## [1.2.2]", "## [Unreleased]\n\n## [1.2.2]", "a section is still called Unreleased"),
        ("CHANGELOG.md", " - 2031-05-06", "", 'the first section is "[1.2.3]": write "## [1.2.3] - 2031-05-06"'),
        ("CHANGELOG.md", "[1.2.3]", "[1.2.4]", 'the first section is "[1.2.4] - 2031-05-06"'),
        ("CHANGELOG.md", "2031-05-06", "2031-05-07", "1.2.3 is dated 2031-05-07, and today is 2031-05-06"),
        ("CHANGELOG.md", "- All.", "", "1.2.3 lists nothing"),
        ("CITATION.cff", "version: 1.2.3", "version: 1.2.2", "version is 1.2.2: write version: 1.2.3"),
        ("CITATION.cff", "'2031-05-06'", "2031-05-05", "write date-released: 2031-05-06"),
        ("CITATION.cff", "date-released: '2031-05-06'", "", "date-released is not there"),
        ("README.md", "vitriad 1.2", "vitriad 1.1", "of vitriad 1.1: write 1.2"),
        ("README.md", "others", "OWNER/vitriad", "README.md: write the account"),
        ("pyproject.toml", "github.com/us/", "github.com/you/", "https://github.com/you/vitriad is not us/vitriad"),
        ("pyproject.toml", "1.2.3", "1.2.3.dev0", "version 1.2.3.dev0 is no release"),
        ("pyproject.toml", "1.2.3", "1.2.4", "the tag v1.2.3 is not that of pyproject.toml, v1.2.4"),
    ],
)
def test_what_is_missing_is_said(ready, name, old, new, said):
    assert old in READY[name]
    (ready / name).write_text(READY[name].replace(old, new), encoding="utf-8")
    assert [line for line in missing_words(ready, TODAY, "v1.2.3", "us/vitriad") if said in line] != []


def test_notes_are_those_of_the_newest_version():
    assert notes(READY["CHANGELOG.md"]) == "- All."


def test_the_project_lacks_nothing_but_what_a_release_settles():
    later = ("CHANGELOG.md: a section is still called Unreleased", "CITATION.cff: date-released")
    missing = missing_words(ROOT, date.today())
    assert [line for line in missing if not line.startswith(later) and not line.endswith("says OWNER")] == []


def test_what_the_sdist_is_held_to_needs_no_framework():
    ignored = (ROOT / "tests/conftest.py").read_text(encoding="utf-8")
    assert [file for file in QUICK if not (ROOT / file).exists()] == []
    assert [file for file in QUICK if f'"{file.removeprefix("tests/")}"' in ignored] == []


METADATA = (
    "Name: x\nSummary: s\nLicense-Expression: x\nLicense-File: x\nRequires-Python: x\nProject-URL: x\nKeywords: x\n"
)


def test_built_files_are_held_to_what_is_under_version_control(ready):
    for name in ("core/a.py", "core/b.py", "tests/test_a.py", ".ci/run"):
        (ready / name).parent.mkdir(exist_ok=True)
        (ready / name).touch()
    subprocess.run(["git", "init", "-q", ready], check=True)
    subprocess.run(["git", "add", "."], cwd=ready, check=True)
    wheel, sdist = ready / "x.whl", ready / "x.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("core/a.py", "")
        archive.writestr("stray.py", "")
        archive.writestr("x-1.dist-info/METADATA", METADATA)
    with tarfile.open(sdist, "w:gz") as archive:
        for name in (*READY, "core/a.py", "core/b.py"):
            archive.add(ready / name, f"x-1/{name}")
        archive.add(ready / "README.md", "x-1/PKG-INFO")
    assert missing_files(ready, wheel, sdist) == [
        "x.whl: lacks core/b.py",
        "x.whl: stray.py is not of the project",
        "x.tar.gz: lacks tests/test_a.py",
        "x.whl: no Classifier",
    ]
