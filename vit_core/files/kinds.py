"""What a file that should hold weights really is, told by its first bytes: by table, never by its name.

Source: the magic bytes that each format's own specification gives; for ONNX, which has none, the first fields that
every exporter writes. PyTorch before 0.1.10 wrote a tar archive whose first member is `sys_info`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

JSON = "a JSON text"
_START = 512  # bytes that tell


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        name: with an article, as in "a gzip archive".
        advice: what to do to get weights.
        is_read: whether vitriad reads this kind of file, so that only its name or place is wrong.
    """

    name: str
    advice: str
    is_read: bool = False


_UNPACK = "Unpack it, and name the weight file in it"
_EXPORTED = "An exported program, not weights: take the checkpoint that it was made from"
_LLM = "Of llama.cpp, for language models: take the checkpoint that it was made from"
_PAGE = "A download that ended at a login or an error page: fetch the file itself"
_RENAME = "It is read under a name that says so"

# Where in the file, which bytes, what that is. Of several that fit the first counts.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"version https://git-lfs", Kind("a Git LFS pointer, not weights", "Fetch the file itself: git lfs pull")),
    (0, b"sys_info\0", Kind("a tar archive of PyTorch before 0.1.10", "Save it again with a later PyTorch")),
    (257, b"ustar", Kind("a tar archive", _UNPACK)),
    (0, b"\x1f\x8b", Kind("a gzip archive", _UNPACK)),
    (0, b"\xfd7zXZ\0", Kind("an xz archive", _UNPACK)),
    (0, b"BZh", Kind("a bzip2 archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("a Zstandard archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK)),
    (4, b"TFL3", Kind("a TFLite (LiteRT) model", _EXPORTED)),
    (0, b"GGUF", Kind("a GGUF file", _LLM)),
    *((0, magic, Kind("a GGML file", _LLM)) for magic in (b"lmgg", b"fmgg", b"tjgg")),
    (0, b"\x93NUMPY", Kind("one array of numpy.save", "Weights are many: numpy.savez writes them to one .npz file")),
    (0, b"\x89PNG\r\n", Kind("a PNG image", "Name the weights")),
    (0, b"\xff\xd8\xff", Kind("a JPEG image", "Name the weights")),
    (0, b"%PDF", Kind("a PDF document", "Name the weights")),
    (0, b"\x7fELF", Kind("a program for Linux", "Name the weights")),
    (0, b"PK\x03\x04", Kind("a zip archive, as torch.save and numpy.savez write", f"{_RENAME}: .bin or .npz", True)),
    (0, b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file", f"{_RENAME}: .h5", True)),
    *(
        (0, bytes([0x80, protocol]), Kind("a pickle, as torch.save wrote before 1.6", f"{_RENAME}: .bin", True))
        for protocol in range(2, 6)
    ),
)


def kind_of(content: Any) -> Kind | None:
    """What kind of file has these bytes; None for a safetensors file and for unknown ones."""
    start = bytes(content[:_START])
    if start[8:9] == b"{":
        return None
    for place, magic, kind in _MAGIC:
        if start[place : place + len(magic)] == magic:
            return kind
    return next((kind for is_one, kind in _LOOKS if is_one(start)), None)


def _is_onnx(start: bytes) -> bool:
    """Whether a protobuf begins with a version of a byte, and then the producer's name or a graph."""
    return len(start) > 3 and start[0] == 0x08 and 0 < start[1] < 0x20 and start[2] in (0x12, 0x1A, 0x3A, 0x42)


def _is_page(start: bytes) -> bool:
    return (
        start.lstrip(b"\xef\xbb\xbf \t\r\n")
        .lower()
        .startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<script"))
    )


def _is_json(start: bytes) -> bool:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    return text[:1] in (b"{", b"[") and text[1:].lstrip(b" \t\r\n")[:1] in (b'"', b"{", b"[", b"}", b"]")


_LOOKS: tuple[tuple[Callable[[bytes], bool], Kind], ...] = (
    (_is_onnx, Kind("an ONNX model", _EXPORTED)),
    (_is_page, Kind("an HTML or XML page", _PAGE)),
    (_is_json, Kind(JSON, "Name the weights")),
)
