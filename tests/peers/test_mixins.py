"""transformers' own common tests of models, over the models of each backend: what does not pass has a reason in a list.

The tests are taken from the source archive of a release, which pip fetches; nothing of them is kept here. What they run
on are the classes of mixins/, in an environment that has that release.
"""

import os
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from peers.mixins.departures import DEPARTURES, FAILS, SKIPPED

ROOT = Path(__file__).parent.parent.parent
CLASSES = Path(__file__).parent / "mixins"
RELEASES = {"torch": ("hf4", "4.57.6"), "flax": ("hf452", "4.52.4"), "tf": ("hf452", "4.52.4")}

Outcomes = dict[str, tuple[str, str]]  # test -> (FAILS, SKIPPED or "passes", what pytest says of it)


def archive(python: Path, release: str, folder: Path) -> Path:
    """The folder of an unpacked source archive of transformers."""
    command = [python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", ":all:", f"transformers=={release}", "-d", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with tarfile.open(folder / f"transformers-{release}.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return folder / f"transformers-{release}"


def outcomes(report: Path) -> Outcomes:
    """What pytest's own report says of each test; the parts of a test are one."""
    found: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').split('.')[-1]}.{case.get('name')}"
        outcome, said = found.get(test, ("passes", ""))
        for part in case:
            if part.tag in ("failure", "error", "skipped"):
                said += (part.get("message") or "") + "\n"
                outcome = SKIPPED if part.tag == "skipped" and outcome != FAILS else FAILS
        found[test] = (outcome, said)
    return found


def run(framework: str, folder: Path) -> Outcomes:
    environment, release = RELEASES[framework]
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    paths = [ROOT, CLASSES, archive(python, release, folder)]
    variables = {
        **{"PYTHONPATH": os.pathsep.join(map(str, paths)), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        **{"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "RUN_SLOW": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    }
    command = [python, "-m", "pytest", "-q", "-p", "stubs", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["-W", "ignore", "--noconftest", f"--rootdir={CLASSES}", f"--junitxml={folder / 'report.xml'}"]
    done = subprocess.run(
        [*command, CLASSES / f"{framework}_models.py"], capture_output=True, text=True, env=variables, cwd=folder
    )
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr[-2000:]  # 1: some tests fail
    return outcomes(folder / "report.xml")


def differences(framework: str, found: Outcomes) -> list[str]:
    """Where outcomes are not those of the list."""
    wrong = []
    listed = DEPARTURES[framework]
    for test, (outcome, said) in found.items():
        rows = [row for row in listed if row.covers(test)]
        if len(rows) > 1:
            wrong.append(f"{test}: listed {len(rows)} times")
        elif outcome != (rows[0].outcome if rows else "passes"):
            wrong.append(f"{test}: {outcome}, listed is: {rows[0].outcome if rows else 'passes'}\n{said}")
        elif rows and rows[0].said not in said:
            wrong.append(f"{test}: {outcome}, not for the reason that is listed\n{said}")
    rows = [row._replace(tests=(name,)) for row in listed for name in row.tests]
    idle = [row.tests[0] for row in rows if not any(map(row.covers, found))]
    return [*wrong, *(f"{name}: listed, and there is no such test" for name in idle)]


@pytest.mark.peers
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("framework", RELEASES)
def test_common_tests_of_transformers(framework, tmp_path):
    found = run(framework, tmp_path)
    assert {test.split(".")[0] for test in found} == {"ViT", "ViTMAE"} and len(found) > 40
    assert sum(outcome == "passes" for outcome, _ in found.values()) > len(found) / 2
    different = differences(framework, found)
    assert not different, "\n".join(different)


def as_listed(framework: str) -> Outcomes:
    """Outcomes that are those of the list, beside one test that passes."""
    found = {"ViT.test_that_passes": ("passes", "")}
    for row in DEPARTURES[framework]:
        for name in row.tests:
            cls, _, test = name.rpartition(".")
            found |= {f"{c}.test_{test}": (row.outcome, row.said) for c in ([cls] if cls else ["ViT", "ViTMAE"])}
    return found


@pytest.mark.parametrize("framework", RELEASES)
def test_every_kind_of_difference_is_found(framework):
    found, row = as_listed(framework), DEPARTURES[framework][0]
    name = next(test for test in found if row.covers(test))
    assert differences(framework, found) == []
    for changed, text in (
        ({"ViT.test_that_passes": (FAILS, "a new text")}, "fails, listed is: passes\na new text"),
        ({"ViT.test_that_passes": (SKIPPED, "why not")}, "is skipped, listed is: passes\nwhy not"),
        ({name: ("passes", "")}, f"passes, listed is: {row.outcome}"),
        ({name: (row.outcome, "another text")}, "not for the reason that is listed\nanother text"),
    ):
        (said,) = differences(framework, {**found, **changed})
        assert text in said
    without = {test: outcome for test, outcome in found.items() if not row.covers(test)}
    assert len(differences(framework, without)) == len(row.tests)


def test_the_page_of_migration_shows_what_fails():
    page = (ROOT / "docs" / "guides" / "migration.md").read_text(encoding="utf-8")
    for framework, rows in DEPARTURES.items():
        for row in rows:
            if row.outcome == FAILS:
                names = ", ".join(f"`{name}`" for name in row.tests)
                assert f"| {framework} | {names} | {row.reason} |" in page
