"""`make release-check`: everything of a release but the upload.

The words first: one version and one date everywhere, a home, a changelog that is done. Then wheel and sdist are built,
looked into, and each is installed into an environment of its own, where the tests of the core run. What is missing is
said at the end, all of it; the exit status is 1 if anything is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from argparse import ArgumentParser
from datetime import date
from email import message_from_string
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
_PYTEST = ("-q", "-n", "2", "--dist", "worksteal")
# Of the core, what takes seconds: the sdist is held to them, the wheel to all.
QUICK = [
    f"tests/vit_core/test_{name}.py" for name in ("config_files", "masking", "parameters", "checkpoint", "reference")
]


# --- words -----------------------------------------------------------------------------------------------------------


def missing_words(root: Path, today: date, tag: str = "", home: str = "") -> list[str]:
    """What the texts of a release lack, each with what to write.

    Args:
        root: of the project.
        today: a release is not dated later.
        tag: the tag that is released, such as "v0.2.0"; not compared where empty.
        home: "owner/name" of the repository that releases; not compared where empty.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    dated, missing = _missing_in_changelog((root / "CHANGELOG.md").read_text(encoding="utf-8"), version, today)
    missing += _missing_in_citation((root / "CITATION.cff").read_text(encoding="utf-8"), version, dated)
    missing += _missing_in_readme((root / "README.md").read_text(encoding="utf-8"), version)
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        missing.append(f"pyproject.toml: version {version} is no release: expected three numbers")
    if tag and tag != f"v{version}":
        missing.append(f"the tag {tag} is not that of pyproject.toml, v{version}")
    return [*missing, *_missing_home(root, project["urls"], home)]


def _missing_in_changelog(text: str, version: str, today: date) -> tuple[str, list[str]]:
    """The date of the newest section, and what is wrong with it."""
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    wanted = f"## [{version}] - {today.isoformat()}"
    if any("unreleased" in heading.lower() for heading in headings):
        return "", [f'CHANGELOG.md: a section is still called Unreleased: write "{wanted}"']
    found = re.fullmatch(r"\[(.+)\] - (\d{4}-\d\d-\d\d)", headings[0] if headings else "")
    if not found or found[1] != version:
        return "", [f'CHANGELOG.md: the first section is "{(headings or ["none"])[0]}": write "{wanted}"']
    if date.fromisoformat(found[2]) > today:
        return found[2], [f"CHANGELOG.md: {version} is dated {found[2]}, and today is {today.isoformat()}"]
    is_listed = re.search(r"^- ", notes(text), flags=re.MULTILINE)
    return found[2], [] if is_listed else [f"CHANGELOG.md: {version} lists nothing"]


def notes(changelog: str) -> str:
    """The newest section of a changelog, without its heading."""
    section = re.split(r"^## .*\n", changelog, flags=re.MULTILINE)[1:2]
    return section[0].strip() if section else ""


def _missing_in_citation(text: str, version: str, dated: str) -> list[str]:
    said = dict(re.findall(r"^(version|date-released): *['\"]?([^'\"\n]*)", text, flags=re.MULTILINE))
    wanted = {"version": version, "date-released": dated or "the date in CHANGELOG.md"}
    return [
        f"CITATION.cff: {name} is {said.get(name, 'not there')}: write {name}: {value}"
        for name, value in wanted.items()
        if said.get(name) != value
    ]


def _missing_in_readme(text: str, version: str) -> list[str]:
    minor = version.rpartition(".")[0]
    said = re.findall(r"\| vitriad (\S+) \|", text)
    return [] if said == [minor] else [f"README.md: the comparison is of vitriad {', '.join(said)}: write {minor}"]


def _missing_home(root: Path, urls: dict[str, str], home: str) -> list[str]:
    """Whether every address names the repository, and no page still says OWNER."""
    pages = [root / "pyproject.toml", *root.glob(".github/**/*.yml"), *root.glob("docs/**/*.md"), *root.glob("*.md")]
    addresses = {page: re.findall(r"\bOWNER[/.]\w", page.read_text(encoding="utf-8")) for page in pages}
    homeless = [page.relative_to(root).as_posix() for page, found in addresses.items() if found]
    if homeless:
        return [f"{', '.join(homeless)}: write the account that holds the repository where it says OWNER"]
    source = urls["Repository"]
    return (
        [] if home in ("", source.removeprefix("https://github.com/")) else [f"pyproject.toml: {source} is not {home}"]
    )


# --- files -----------------------------------------------------------------------------------------------------------


def missing_files(root: Path, wheel: Path, sdist: Path) -> list[str]:
    """Where the built files do not hold what is under version control, all of it and nothing else."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    targets = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    left_out = tuple(f"{name}/" for name in targets["sdist"]["exclude"])
    tracked = {name for name in listed.split("\0") if name and not name.startswith(left_out)}
    shipped = {name for name in tracked if name.partition("/")[0] in targets["wheel"]["packages"]}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    code = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    own = {"PKG-INFO"}  # the sdist's own
    return [
        *_differences(wheel.name, code, shipped),
        *_differences(sdist.name, packed - own, tracked),
        *(f"{wheel.name}: no {name}" for name in _absent(metadata)),
    ]


def _differences(name: str, found: set[str], wanted: set[str]) -> list[str]:
    lacks, extra = sorted(wanted - found), sorted(found - wanted)
    return [f"{name}: lacks {each}" for each in lacks] + [f"{name}: {each} is not of the project" for each in extra]


def _absent(metadata: str) -> list[str]:
    """Which headers that an index shows are not there."""
    wanted = (
        "Summary",
        "License-Expression",
        "License-File",
        "Requires-Python",
        "Project-URL",
        "Classifier",
        "Keywords",
    )
    said = message_from_string(metadata)
    return [name for name in wanted if name not in said]


# --- the run ---------------------------------------------------------------------------------------------------------


def run(what: str, *command: object, cwd: Path = ROOT) -> list[str]:
    """Runs one step, whose output is seen; what failed, if it did."""
    print(f"\n== {what}", flush=True)
    done = subprocess.run([str(word) for word in command], cwd=cwd)
    return [] if done.returncode == 0 else [f"{what}: failed with {done.returncode}, see above"]


def tested(built: Path, tests: Path, *chosen: str) -> list[str]:
    """Installs one file into a new environment, and runs the tests of a source tree on what is installed."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        python = place / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", ROOT / "constraints.txt"]
        return (
            run(f"{built.name}: pip", *pip, "--upgrade", "pip>=25.1")
            or run(f"{built.name}: install", *pip, built, "--group", f"{ROOT / 'pyproject.toml'}:test")
            or run(f"{built.name}: tests of the core", python.with_name("pytest"), *_PYTEST, *chosen, cwd=tests)
        )


def main() -> int:
    """Runs all steps."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--tag", default="", help="the tag that is released, such as v0.2.0")
    parser.add_argument("--home", default="", help="owner/name of the repository that releases")
    parser.add_argument("--notes", action="store_true", help="print what the changelog says of the newest version")
    parser.add_argument("--words", action="store_true", help="compare the texts, and build nothing")
    given = parser.parse_args()
    if given.notes:
        print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
        return 0
    missing = missing_words(ROOT, date.today(), given.tag, given.home)
    say(missing, "the words are all there")
    if not given.words:
        missing += built_and_tested()
        print()
        say(missing, "ready to release: dist/ can be uploaded")
    return 1 if missing else 0


def say(missing: list[str], otherwise: str) -> None:
    """Prints what is missing, a line each, or that nothing is."""
    print("\n".join(f"missing: {line}" for line in missing) or otherwise, flush=True)


def built_and_tested() -> list[str]:
    """What is wrong with wheel and sdist, which stay in dist/."""
    for old in (ROOT / "dist").glob("*"):
        old.unlink()
    if failed := run("build", sys.executable, "-m", "build", "-q"):
        return failed
    (wheel,), (sdist,) = ((ROOT / "dist").glob(f"*{end}") for end in (".whl", ".tar.gz"))
    missing = [*run("twine", sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)]
    missing += missing_files(ROOT, wheel, sdist)
    with TemporaryDirectory() as folder, tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        tree = Path(folder) / sdist.name.removesuffix(".tar.gz")  # its tests, so that it is seen to have them all
        return [*missing, *tested(wheel, tree), *tested(sdist, tree, *QUICK)]


if __name__ == "__main__":
    sys.exit(main())
