"""Whether a file or folder can be written: found out before long work begins, without writing anything."""

from __future__ import annotations

import os
from pathlib import Path

from vit_core.errors import VitError, reading


def check_target(path: str | Path, *, is_folder: bool, error: type[VitError]) -> None:
    """Checks that a file or folder can be written.

    Args:
        path: a file or folder, there already or not.
        is_folder: which of them it is to be.
        error: class of the error.

    Raises:
        error: a folder where a file is to be or the other way round, a file where a folder would be on the way, no name
            of a file, or a place that may not be written to.
    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as problem:
        raise error(f"{str(path)!r}: cannot be written: no file can have this name ({problem}).") from None
    with reading(path, error):
        nearest = next(place for place in (path, *path.parents) if _is_there(place))
        is_one = nearest.is_dir()
        if nearest == path and is_folder != is_one:
            there = "a folder" if is_one else "a file"
            raise error(f"{path}: expected a {'folder' if is_folder else 'file'} to write, {there} is there.")
        if nearest != path and not is_one:
            raise error(f"{nearest}: expected a folder to write into, a file is there.")
        # A file is replaced by another one in its folder; a folder may also get its files one by one.
        places = {nearest, *([] if is_folder or nearest != path else [path.parent])}
        if barred := [place for place in places if not is_writable(place)]:
            raise error(f"{path}: cannot be written: {barred[0]} is read-only.")


def is_writable(path: str | Path) -> bool:
    """Whether this process may write to a file or folder, by the rights it has now."""
    if os.name == "posix" and os.geteuid() != os.getuid():  # os.access() asks for the user who started it otherwise
        return os.access(path, os.W_OK, effective_ids=True)
    return os.access(path, os.W_OK)


def _is_there(path: Path) -> bool:
    """Like path.exists(), but a folder that may not be looked into is an error."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
