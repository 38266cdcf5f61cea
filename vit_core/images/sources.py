"""Where the images of a long job come from: files, folders, patterns, names on stdin, and tar files of WebDataset."""

from __future__ import annotations

import glob
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_core.errors import ImageError, InputError
from vit_core.limits import LIMITS

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TAR = ".tar"


class ImageSource(NamedTuple):
    """One image: its name in the results, and what to open.

    Attributes:
        name: the path, or "archive.tar::member".
        archive: of a member the tar file; None for a file.
        offset, size: where a member's bytes are in the archive.
    """

    name: str
    archive: str | None = None
    offset: int = 0
    size: int = 0

    def open(self) -> str | bytes:
        """What `vit_core.images.files.open_image` takes: the path, or the bytes of a member.

        Raises:
            ImageError: the member is too large, or the archive was cut meanwhile.
        """
        if self.archive is None:
            return self.name
        if self.size > LIMITS.image_file_bytes:
            raise ImageError(f"{self.name}: {self.size} bytes, above {LIMITS.bound('image_file_bytes')}.")
        try:
            with open(self.archive, "rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as problem:
            raise ImageError(f"{self.name}: cannot be read: {problem.strerror}.") from None
        if len(content) < self.size:
            raise ImageError(f"{self.name}: {self.archive} is cut short.")
        return content

    def stamp(self) -> str:
        """What changes when the image does: size and time of the file, as far as it can be looked at."""
        try:
            status = os.stat(self.archive or self.name)
        except (OSError, ValueError):
            return ""
        return f"{status.st_size} {status.st_mtime_ns} {self.offset}"


def image_paths(names: Iterable[str]) -> Iterator[str]:
    """The names, each folder among them replaced by the image files in it and in its subfolders, sorted.

    Raises:
        InputError: a folder holds no image file.
    """
    for name in names:
        if not os.path.isdir(name):
            yield name
            continue
        files = [path for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not files:
            raise InputError(f"{name}: no image file in this folder; expected one of {', '.join(SUFFIXES)}.")
        yield from map(str, sorted(files))


def image_sources(names: Sequence[str]) -> list[ImageSource]:
    """The images that names stand for, in order: of a folder or a pattern sorted, of an archive as they follow there.

    Args:
        names: files, folders (with their subfolders), patterns such as "photos/**/*.jpg" where no such file is, tar
            files, and "-" for names on stdin, one on each line.

    Raises:
        InputError: a folder, pattern or archive without images, or an image that is named twice.
    """
    found = [source for name in names for source in _of(name)]
    seen: set[str] = set()
    for source in found:
        if source.name in seen:
            raise InputError(f"{source.name}: named twice; every row of the result needs a name of its own.")
        seen.add(source.name)
    return found


def source_of(name: str) -> ImageSource:
    """The image that has a name in results, as `image_sources` gave it.

    Raises:
        InputError: the archive is no sound tar file, or has no such member.
    """
    archive, is_member, _ = name.partition(f"{TAR}::")
    if not is_member:
        return ImageSource(name)
    for source in _members(f"{archive}{TAR}"):
        if source.name == name:
            return source
    raise InputError(f"{name}: no such member.")


def _of(name: str) -> Iterator[ImageSource]:
    if name == "-":
        for line in sys.stdin:
            if line.rstrip("\n"):
                yield from _of(line.rstrip("\n"))
    elif name.endswith(TAR) and os.path.isfile(name):
        yield from _members(name)
    elif glob.has_magic(name) and not os.path.lexists(name):
        paths = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
        if not paths:
            raise InputError(f"{name}: no file matches this pattern.")
        yield from map(ImageSource, paths)
    else:
        yield from map(ImageSource, image_paths([name]))


def _members(archive: str) -> Iterator[ImageSource]:
    """The images in a tar file, by their suffix."""
    found = False
    for member in tar_members(archive):
        if Path(member.name).suffix.lower() in SUFFIXES:
            found = True
            yield source_in_tar(archive, member)
    if not found:
        raise InputError(f"{archive}: no image file in this archive; expected one of {', '.join(SUFFIXES)}.")


def tar_members(archive: str) -> Iterator[tarfile.TarInfo]:
    """The regular members of a tar file, as they follow there; nothing is unpacked.

    Raises:
        InputError: not a sound, uncompressed tar file.
    """
    try:
        with tarfile.open(archive, "r:") as opened:
            yield from (member for member in opened if member.isreg() and not member.issparse())
    except (tarfile.TarError, OSError, ValueError) as problem:
        raise InputError(f"{archive}: not a sound, uncompressed tar file: {problem}.") from None


def source_in_tar(archive: str, member: tarfile.TarInfo) -> ImageSource:
    """A member of a tar file as an image."""
    return ImageSource(f"{archive}::{member.name}", archive, member.offset_data, member.size)
