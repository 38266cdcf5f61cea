"""The members of a zip archive as places in the file: `torch.save`, `numpy.savez` and Keras write such archives."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from vit_core.errors import CheckpointError
from vit_core.limits import Limits
from vit_core.plain_values import short

_LOCAL_HEADER = struct.Struct("<4s5HIIIHH")


class Member(NamedTuple):
    """One member of an archive.

    Units: bytes, `start` from the beginning of the file, `stored` and `size` before and after inflating.
    """

    where: str
    content: Any
    start: int
    stored: int
    size: int
    crc: int
    is_compressed: bool

    def bytes(self) -> Any:
        """What the member holds, compared with its checksum; a view of the file where it is not compressed.

        Raises:
            CheckpointError: it is damaged.
        """
        found = memoryview(self.content)[self.start : self.start + self.stored]
        if self.is_compressed:
            try:
                inflated = zlib.decompressobj(-15).decompress(found, self.size + 1)
            except zlib.error:
                inflated = b""
            found = memoryview(bytearray(inflated))  # which can be written to, as frameworks want
        if len(found) != self.size or zlib.crc32(found) != self.crc:
            raise CheckpointError(f"{self.where}: not what was written: its checksum differs. The file is damaged.")
        return found

    def check(self) -> None:
        """Raises what `bytes` raises."""
        self.bytes()


def members(path: Path, content: Any, limits: Limits) -> dict[str, Member]:
    """The members of an archive by name; no data is read.

    Raises:
        CheckpointError: a damaged archive, a name that occurs twice, or a member that would inflate far too much.
    """
    try:
        archive = zipfile.ZipFile(io.BufferedReader(RawBytes(content)))
        infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error, OSError) as bad:
        raise CheckpointError(f"{path}: not a sound zip archive: {str(bad)[:80]}.") from None
    if len(infos) > limits.tensors:
        raise CheckpointError(f"{path}: {len(infos)} members, above {limits.bound('tensors')}.")
    found: dict[str, Member] = {}
    for info in infos:
        if info.filename in found:
            raise CheckpointError(f"{path}: the member {short(info.filename)} stands there twice.")
        found[info.filename] = _member(path, content, info, limits)
    return found


def _member(path: Path, content: Any, info: zipfile.ZipInfo, limits: Limits) -> Member:
    where = f"{path}: {info.filename[:80]}"
    if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(f"{where}: encrypted, or compressed in a way that is not read here.")
    header = bytes(content[info.header_offset : info.header_offset + _LOCAL_HEADER.size])
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{where}: no such member in the file.")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    is_compressed = info.compress_type != zipfile.ZIP_STORED
    if start + info.compress_size > len(content) or (not is_compressed and info.compress_size != info.file_size):
        raise CheckpointError(f"{where}: {info.file_size} bytes, which the file does not hold.")
    if is_compressed and info.file_size > limits.inflation * max(info.compress_size, 4096):
        raise CheckpointError(
            f"{where}: inflates from {info.compress_size} to {info.file_size} bytes, above {limits.bound('inflation')}."
        )
    return Member(where, content, start, info.compress_size, info.file_size, info.CRC, is_compressed)


class RawBytes(io.RawIOBase):
    """The bytes of a file, to be read by the zip library."""

    def __init__(self, content: Any) -> None:
        self._view, self._position = memoryview(content), 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves, as every file does."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Copies what comes next."""
        piece = self._view[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
