"""Replacing a folder as a whole: whoever looks finds the old one or the new one, complete, whatever happens meanwhile.

The new folder is completed beside the old one (`.NAME.tmp-PID`), with hard links to the files that stay, brought to the
disk, and swapped with the old one in one step. Where the system cannot swap folders, the old one is renamed aside
(`.NAME.old-PID`) and the new one into its place; if that is interrupted, the next load or save finishes it. A lock
(`.NAME.lock`, gone after the save) keeps a second writer out.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from vit_core.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two writers apart there
    fcntl = None  # type: ignore[assignment]

_SPACE_FACTOR = 1.1  # free bytes wanted per byte to write


@contextmanager
def replacing(folder: str | Path, *, size: int, is_replaced: Callable[[str], bool]) -> Iterator[Path]:
    """A new folder to fill inside the block; at its end it takes the place of `folder`, or nothing has changed.

    Args:
        folder: made where missing, with its parents; of a link, the folder it leads to.
        size: bytes that will be written.
        is_replaced: whether a file of the old folder, given by name, is not to be kept.

    Raises:
        CheckpointError: the folder cannot be replaced, has too little space, or another process is at it.
    """
    try:
        folder = Path(os.path.realpath(folder))
        _check_target(folder, size)
        with _locked(folder):
            _tidy(folder)
            new = _beside(folder, "tmp", os.getpid())
            try:
                _keep_others(folder, new, is_replaced)
                yield new
                _sync(inner for inner, _, _ in os.walk(new))
                _swap(new, folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)  # after the swap, this is the old one
    except CheckpointError:
        raise
    except OSError as problem:
        raise CheckpointError(
            f"{folder}: saving failed: {problem.strerror or problem}.\n"
            "The folder holds what it held before, or the new checkpoint, whole."
        ) from problem


def finish_swap(folder: str | Path) -> None:
    """Finishes a save that was interrupted between its two renames, so that `folder` is there again.

    Nothing to do where folders are swapped in one step, and where `folder` exists or never did.

    Raises:
        CheckpointError: another process is saving there right now.
    """
    try:
        folder = Path(os.path.realpath(folder))
    except ValueError:  # no file can have this name
        return
    if not folder.exists() and _leftovers(folder, "old"):
        with _locked(folder):
            _tidy(folder)


def _check_target(folder: Path, size: int) -> None:
    """Refuses a folder that cannot be replaced, before anything is written."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder to save into, got a file.")
    for what, is_so in (("a mount point", os.path.ismount(folder)), ("where this process runs", _runs_in(folder))):
        if is_so:
            raise CheckpointError(f"{folder}: {what}, so it cannot be replaced as a whole: save into a folder inside.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for needed in (folder.parent, folder):
        if needed.exists() and not os.access(needed, os.W_OK):
            raise CheckpointError(f"{folder}: cannot be saved to: {needed} is read-only.")
    if (free := shutil.disk_usage(folder.parent).free) < _SPACE_FACTOR * size:
        raise CheckpointError(f"{folder}: {size} bytes to save, and only {free} bytes free.")


def _runs_in(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:  # it is gone already
        return False


def _keep_others(old: Path, new: Path, is_replaced: Callable[[str], bool]) -> None:
    """Makes `new`, with hard links to what stays of `old`."""

    def left_out(where: str, names: list[str]) -> list[str]:
        return [name for name in names if where == str(old) and is_replaced(name)]

    if not old.exists():
        new.mkdir()
        return
    try:
        shutil.copytree(old, new, symlinks=True, ignore=left_out, copy_function=_link)
    except shutil.Error as problems:  # a list of all of them
        file, _, reason = problems.args[0][0]
        raise OSError(f"{file}: {reason}") from None


def _link(file: str, link: str) -> None:
    try:
        os.link(file, link)
    except OSError:  # no hard links on this file system, or to this file
        shutil.copy2(file, link)


def _sync(folders: Iterable[str | Path]) -> None:
    """Brings the entries of folders to the disk (on Windows there is no such call)."""
    for folder in folders if os.name == "posix" else ():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as problem:
            if problem.errno != errno.EINVAL:  # a file system that syncs files only
                raise
        finally:
            os.close(descriptor)


def _swap(new: Path, folder: Path) -> None:
    """Puts `new` in the place of `folder`; the old one ends at the name of `new`."""
    if not folder.exists():
        os.rename(new, folder)
    elif not _exchange(new, folder):
        aside = _beside(folder, "old", os.getpid())
        os.rename(folder, aside)
        try:
            os.rename(new, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        os.rename(aside, new)
    _sync([folder.parent])


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number))


def _tidy(folder: Path) -> None:
    """Finishes an interrupted swap and removes what dead saves left behind; called under the lock."""
    for pid in _leftovers(folder, "old"):
        old, new = _beside(folder, "old", pid), _beside(folder, "tmp", pid)
        if not folder.exists():  # the old one is put aside only after the new one is complete
            os.rename(new if new.exists() else old, folder)
        shutil.rmtree(old, ignore_errors=True)
    for pid in _leftovers(folder, "tmp"):
        if pid == os.getpid() or not _is_alive(pid):
            shutil.rmtree(_beside(folder, "tmp", pid), ignore_errors=True)


def _beside(folder: Path, kind: str, pid: int) -> Path:
    return folder.with_name(f".{folder.name}.{kind}-{pid}")


def _leftovers(folder: Path, kind: str) -> list[int]:
    """The process ids in the names of the folders of one kind beside `folder`."""
    prefix = f".{folder.name}.{kind}-"
    try:
        tails = [name.removeprefix(prefix) for name in os.listdir(folder.parent) if name.startswith(prefix)]
    except OSError:  # nothing can be beside it
        return []
    return [int(tail) for tail in tails if tail.isdecimal()]


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
def _locked(folder: Path) -> Iterator[None]:
    """Holds the one right to replace `folder`; a second writer fails at once."""
    if fcntl is None:
        yield
        return
    path = folder.with_name(f".{folder.name}.lock")
    while True:
        with open(
            path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        ) as file:
            _take(file, folder)
            # Its owner removes the file in the end, so the one opened may be gone by the time it is locked.
            if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))):
                continue
            try:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _take(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = file.read(20) or "another"
        raise CheckpointError(f"{folder}: process {owner} is saving to it right now.") from None
