"""Who writes to a folder: the temporary names that a save uses, and the lock that keeps a second writer out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from vit_core.errors import CheckpointError
from vit_core.files.targets import is_writable

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two writers apart there
    fcntl = None  # type: ignore[assignment]

_GLANCE = 0.2  # seconds that a writer waits for a reader that is looking for something to finish


def beside(folder: Path, kind: str) -> Path:
    """The path of something that belongs to saves of a folder, beside it."""
    return folder.with_name(f".{folder.name}.{kind}")


def inside(folder: Path, kind: str) -> Path:
    """The path of something that belongs to saves of a folder, in it."""
    return folder / f".vitriad.{kind}"


def leftovers(prefix: Path) -> dict[int, Path]:
    """What is there under names of a prefix and a process id, by that id."""
    try:
        names = [name for name in os.listdir(prefix.parent) if name.startswith(prefix.name)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    tails = {name.removeprefix(prefix.name): prefix.with_name(name) for name in names}
    return {int(tail): path for tail, path in tails.items() if tail.isdecimal()}


def dead(prefix: Path) -> list[Path]:
    """The leftovers of processes that are no more, and of this one, which has none in use."""
    return [path for pid, path in leftovers(prefix).items() if pid == os.getpid() or not _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # os.kill would not ask there, it would kill
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def locked(folder: Path, stays: bool) -> Iterator[None]:
    """Holds the one right to save to `folder`; a second writer fails at once.

    A folder that cannot be replaced as a whole (a mount point) is locked by a file inside it, since other machines that
    mount it see nothing else; and where possible also by the usual file beside it.

    Raises:
        CheckpointError: another process is saving there right now.
    """
    with ExitStack() as locks:
        if not stays or is_writable(folder.parent):
            locks.enter_context(_lock(beside(folder, "lock"), folder))
        if stays:
            locks.enter_context(_lock(inside(folder, "lock"), folder))
        yield


@contextmanager
def _lock(path: Path, folder: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    while True:
        with open(
            path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        ) as file:
            _take(file, folder)
            # Its owner removes the file in the end, so the one opened may be gone by the time it is locked.
            if not _is_same(file, path):
                continue
            try:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at a path, which may go away at any moment."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _take(file: TextIO, folder: Path) -> None:
    until = time.monotonic() + _GLANCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                owner = file.read(20) or "another"
                raise CheckpointError(f"{folder}: process {owner} is saving to it right now.") from None
            time.sleep(0.005)
