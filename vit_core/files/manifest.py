"""The manifest of a checkpoint: the size and SHA-256 of every file that a save wrote, and of pieces of large ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_core.errors import CheckpointError
from vit_core.files.arrays import release
from vit_core.files.json import read_json
from vit_core.files.reading import readers
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import short

MANIFEST_NAME = "manifest.json"

PIECE = 2**24  # bytes that have a digest of their own; a whole number of pages


class Manifest(NamedTuple):
    """What was recorded of files when they were saved.

    Attributes:
        records: file name -> its size and digest.
        pieces: name of a large file -> digests of its pieces of `PIECE` bytes, the last one of what is left. Threads
            compute these side by side; the digest of a whole file only one can.
    """

    records: dict[str, Any]
    pieces: dict[str, Any]

    def digests(self, name: str) -> Any:
        """What the parts of a file have to have, one digest for each."""
        return self.pieces.get(name) or [self._of(name).get("sha256")]

    def size(self, name: str) -> Any:
        """What the size of a file has to be."""
        return self._of(name).get("size")

    def _of(self, name: str) -> dict[str, Any]:
        record = self.records.get(name)
        return record if isinstance(record, dict) else {}


def verify_records(contents: Mapping[Path, Any], known: Manifest | None) -> None:
    """Compares weight files and index with the manifest that was saved beside them. Maps of them are given back."""
    if known is None:
        return
    pool = readers()
    try:
        waiting = {
            path: [pool.submit(_digest, content, *part) for part in _parts(content, path.name in known.pieces)]
            for path, content in contents.items()
            if known.size(path.name) == len(content)
        }
        for path in contents:
            if path not in waiting or known.digests(path.name) != [each.result() for each in waiting[path]]:
                raise CheckpointError(
                    f"{path}: not as {MANIFEST_NAME} records it: the file is damaged, or another program wrote it.\n"
                    f"Damaged: fetch or save it again. Another program: delete {MANIFEST_NAME}, or pass verify=False."
                )
    finally:
        pool.shutdown(cancel_futures=True)


def _parts(content: Any, has_pieces: bool) -> Iterator[tuple[int, int]]:
    """Where the parts of a file start that have digests, and how long they are."""
    step = PIECE if has_pieces else len(content)
    for start in range(0, len(content), step):
        yield start, min(step, len(content) - start)


def _digest(content: Any, start: int, nbytes: int) -> str:
    digest = hashlib.sha256()
    with memoryview(content) as whole:
        for place in range(start, start + nbytes, PIECE):
            with whole[place : min(place + PIECE, start + nbytes)] as part:
                digest.update(part)
                release(content, place, len(part))
    return digest.hexdigest()


class PieceDigests:
    """The digests of the pieces of a file, of bytes that come one after the other."""

    def __init__(self) -> None:
        self._digests, self._room = [hashlib.sha256()], PIECE

    def update(self, chunk: memoryview) -> None:
        """Takes the next bytes."""
        while chunk:
            if not self._room:
                self._digests.append(hashlib.sha256())
                self._room = PIECE
            taken, chunk = chunk[: self._room], chunk[self._room :]
            self._digests[-1].update(taken)
            self._room -= len(taken)

    @property
    def are_several(self) -> bool:
        """Whether the file is larger than one piece."""
        return len(self._digests) > 1

    def hexdigests(self) -> list[str]:
        """One for each piece."""
        return [digest.hexdigest() for digest in self._digests]


def read_manifest(manifest: Path, limits: Limits) -> Manifest | None:
    """What a manifest says; None where there is no manifest, or it is another program's."""
    try:
        os.lstat(manifest)  # not lexists(), which takes every error for a no
    except FileNotFoundError:
        return None
    found = read_json(manifest, limit="index_bytes", error=CheckpointError, limits=limits, within=True)
    if "vitriad" not in found:
        return None
    parts = {"files": found.get("files"), "pieces": found.get("pieces", {})}
    for key, said in parts.items():
        if not isinstance(said, dict):
            raise CheckpointError(f"{manifest}: {key}: expected records by file name, got {short(said)}.")
    return Manifest(parts["files"], parts["pieces"])


def is_saved_here(manifest: Path, limits: Limits = LIMITS) -> bool:
    """Whether a manifest is one of vitriad's.

    Raises:
        CheckpointError: it is there, and damaged.
    """
    return read_manifest(manifest, limits) is not None


def record(size: int, digest: Any) -> dict[str, Any]:
    """What a manifest says of a file of that size and SHA-256."""
    return {"sha256": digest.hexdigest(), "size": size}


def record_of(path: Path) -> dict[str, Any]:
    """The record of a file that something else has written."""
    with open(path, "rb") as file:
        return record(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256"))
