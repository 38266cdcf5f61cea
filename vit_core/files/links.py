"""Symbolic links in a checkpoint: followed where they stay in it, refused where they lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

from vit_core.errors import UnsafeFileError


def followed(path: Path) -> Path:
    """Where a file of a checkpoint really is.

    Links are followed within their folder, and from a snapshot in the hub's cache to its blobs; nowhere else.

    Raises:
        UnsafeFileError: a link that leads out.
    """
    if not path.is_symlink():
        return path
    target, folder = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    # REPOSITORY/snapshots/COMMIT/…/NAME leads to REPOSITORY/blobs/…, or on to the blobs that all repositories share.
    snapshots = next((parent for parent in folder.parents if parent.name == "snapshots"), None)
    blobs = [parent / "blobs" for parent in snapshots.parents[:2]] if snapshots else []
    if target.parent == folder or any(target.is_relative_to(place) for place in blobs):
        return target
    raise UnsafeFileError(f"{path}: a symbolic link out of its folder.\nPut the file itself there.")
