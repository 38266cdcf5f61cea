"""What cannot be fetched, or is not what was meant, is said in one line; nothing here needs a network."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from real import fetching
from real.fetching import NotFetchedError, Wheel, cache, fetched

ROOT = Path(__file__).parent.parent.parent
CONTENT = b"weights"
MADE = Wheel("made-up", "0.1", {"made_up/a.bin": hashlib.sha256(CONTENT).hexdigest()})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRIAD_REAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A folder of wheels that pip finds instead of an index."""
    with ZipFile(tmp_path / "made_up-0.1-py3-none-any.whl", "w") as archive:
        archive.writestr("made_up/a.bin", CONTENT)
        archive.writestr("made_up-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 0.1\n")
        archive.writestr("made_up-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("made_up-0.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path / "made_up-0.1-py3-none-any.whl"


def test_a_wheel_is_fetched_once(offered):
    (path,) = fetched(MADE)
    assert path == cache() / "made-up-0.1" / "a.bin" and path.read_bytes() == CONTENT
    assert [*path.parent.iterdir()] == [path]
    offered.unlink()
    assert fetched(MADE) == [path]
    path.write_bytes(b"damaged")
    with pytest.raises(NotFetchedError, match=r"made-up==0\.1 could not be fetched by pip: "):
        fetched(MADE)


@pytest.mark.parametrize(
    ("wheel", "message"),
    [
        (MADE._replace(size=5), r"expected a wheel of 5 bytes, got \d+"),
        (MADE._replace(files={"made_up/a.bin": "0" * 64}), "a.bin: expected SHA-256 000"),
        (MADE._replace(files={"made_up/b.bin": "0" * 64}), "not the wheel that is meant"),
    ],
)
def test_another_wheel_is_refused(wheel, message, offered):
    with pytest.raises(NotFetchedError, match=message):
        fetched(wheel)
    assert not [*cache().rglob("*.bin")]


def test_the_cache_is_the_user_s_unless_told(monkeypatch):
    monkeypatch.delenv("VITRIAD_REAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache() == Path("/somewhere/vitriad/real")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache() == Path.home() / ".cache" / "vitriad" / "real"


@pytest.mark.long
def test_without_a_network_the_run_fails_and_says_what_is_missing():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "real", "tests/real"]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    wheel = f"{fetching.WEIGHTS.name}=={fetching.WEIGHTS.version}"
    lines = [line for line in done.stdout.splitlines() if wheel in line]
    assert len(lines) == 1 and f"real weights were NOT tested: {wheel} could not be fetched by pip" in lines[0]
