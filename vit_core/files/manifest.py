"""The manifest of a checkpoint: the size and SHA-256 of every file that a save wrote."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_core.errors import CheckpointError
from vit_core.files.json import read_json
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import short

MANIFEST_NAME = "manifest.json"


def verify_records(contents: Mapping[Path, Any], known: Mapping[str, Any] | None) -> None:
    """Compares weight files and index with the records of the manifest that was saved beside them."""
    for path, content in contents.items() if known is not None else ():
        if known.get(path.name) != record(len(content), hashlib.sha256(content)):  # type: ignore[union-attr]
            raise CheckpointError(
                f"{path}: not as {MANIFEST_NAME} records it: the file is damaged, or another program wrote it.\n"
                f"Damaged: fetch or save it again. Another program: delete {MANIFEST_NAME}, or pass verify=False."
            )


def read_manifest(manifest: Path, limits: Limits) -> dict[str, Any] | None:
    """The records of a manifest by file name; None where there is no manifest, or it is another program's."""
    try:
        os.lstat(manifest)  # not lexists(), which takes every error for a no
    except FileNotFoundError:
        return None
    found = read_json(manifest, limit="index_bytes", error=CheckpointError, limits=limits, within=True)
    if "vitriad" not in found:
        return None
    if not isinstance(files := found.get("files"), dict):
        raise CheckpointError(f"{manifest}: files: expected records by file name, got {short(files)}.")
    return files


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
