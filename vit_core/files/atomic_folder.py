"""Replacing a folder or a file as a whole: at any moment the old one or the new one is there, and complete.

The new folder is written beside the old one (`.NAME.tmp-PID`), with hard links to the files that stay, flushed to the
disk, and swapped with the old one in one step. Where the system cannot swap folders, the old one is renamed to
`.NAME.old-PID` and the new one to its place; if that is interrupted, the next load or save finishes it. A lock
(`.NAME.lock`, removed after the save) keeps a second writer out.

Some folders cannot be replaced: a mount point, the current folder, one whose parent is not writable. Their files are
replaced one by one. The new files are written inside the folder (`.vitriad.tmp-PID`); renaming that to `.vitriad.new`
commits the save; then they are moved to their places. If the moving is interrupted, the next load or save finishes it,
but until then other programs may see old files beside new ones.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vit_core.errors import CheckpointError, VitError
from vit_core.files.targets import is_writable
from vit_core.files.writers import beside, dead, inside, leftovers, locked

logger = logging.getLogger("vitriad")

_SPACE_FACTOR = 1.1  # free bytes wanted per byte to write
_PATIENCE = 1.0  # seconds that a reader waits for a save that is putting its files in place
_LOOKS = 5
_STALE = ".stale"  # in `.vitriad.new`: an empty file for each old file to be removed


@contextmanager
def replacing(
    folder: str | Path, *, size: int, is_replaced: Callable[[str], bool], folders: Collection[str] = ()
) -> Iterator[Path]:
    """A new folder to fill inside the `with` block. At its end it replaces `folder`; an error changes nothing.

    Args:
        folder: made where missing, with its parents; of a link, the folder it leads to.
        size: bytes that will be written.
        is_replaced: whether a file of the old folder, given by name, is not to be kept.
        folders: names of folders inside that are not to be kept either: new ones take their places.

    Raises:
        CheckpointError: the folder cannot be replaced, has too little space, or another process is at it.
    """
    if folder == "":
        raise CheckpointError("expected a folder to save into, got an empty name.")
    try:
        folder = _real(folder)
        _check_target(folder, size, lambda name: name not in folders and is_replaced(name))
        stays = _has_to_stay(folder)
        if stays and folders:  # only files can be put in their places one by one
            raise CheckpointError(
                f"{folder}: cannot be replaced as a whole (a mount point, or where this process runs), as "
                f"{', '.join(folders)} in it needs.\nSave into a folder inside, or elsewhere."
            )
        with locked(folder, stays):
            _tidy(folder)
            new = (inside if stays else beside)(folder, f"tmp-{os.getpid()}")
            try:
                if stays:
                    new.mkdir()
                else:
                    _keep_others(folder, new, lambda name: name in folders or is_replaced(name))
                yield new
                _keep_modes(folder, new)
                _sync(inner for inner, _, _ in os.walk(new))
                if stays:
                    _decide(new, folder, is_replaced)
                else:
                    _swap(new, folder)
            finally:
                _remove(new)  # after the swap, this is the old one
    except OSError as problem:
        if isinstance(problem, VitError):
            raise
        raise CheckpointError(
            f"{folder}: saving failed: {problem.strerror or problem}.\n"
            "The folder holds what it held before, or the new checkpoint, whole."
        ) from problem


def _real(path: str | Path) -> Path:
    """Where a path leads.

    Raises:
        OSError: no file can have this name.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as problem:
        raise OSError(f"no file can have this name ({problem})") from None


def write_file(path: str | Path, text: str, *, error: type[VitError]) -> None:
    """Puts a text into a file; the file is the old one or the new one, complete. See `replacing_file`."""
    with replacing_file(path, error=error) as new, open(new, "xb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing_file(path: str | Path, *, error: type[VitError], size: int = 0) -> Iterator[Path]:
    """A new file to write inside the `with` block. At its end it is flushed to the disk and replaces `path`.

    Args:
        path: made where missing, with its folders; of a link, the file it leads to. An old file's permissions stay.
        error: class of the error.
        size: bytes that will be written.

    Raises:
        error: the file cannot be written, or there is too little space.
    """
    try:
        path = Path(os.path.realpath(path))
        if path.parent.is_file():
            raise error(f"{path.parent}: expected a folder to save into, got a file.")
        finish_swap(path.parent)
        _make(path.parent)
        mode = os.stat(path).st_mode if _is_there(path) else None
        if mode is not None and not stat.S_ISREG(mode):
            raise error(f"{path}: expected a file to write, got a folder or a device.")
        if mode is not None and not is_writable(path):
            raise error(f"{path}: cannot be written: it is read-only.")
        if (free := shutil.disk_usage(path.parent).free) < _SPACE_FACTOR * size:
            raise error(f"{path}: {size:,} bytes to write, {free:,} are free.")
        for leftover in dead(beside(path, "tmp-")):
            leftover.unlink()
        new = beside(path, f"tmp-{os.getpid()}")
        try:
            yield new
            if mode is not None:
                os.chmod(new, stat.S_IMODE(mode))
            os.replace(new, path)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        _sync([path.parent])
    except (OSError, ValueError) as problem:  # ValueError: no file can have this name
        if isinstance(problem, VitError):
            raise
        raise error(
            f"{path}: saving failed: {getattr(problem, 'strerror', None) or problem}.\n"
            "The file is what it was before, or the new one, whole."
        ) from problem


def finish_swap(folder: str | Path) -> None:
    """Finishes a save that was interrupted while it put its files in place, so that `folder` is whole again.

    Waits a second for a save that is doing just that.

    Raises:
        CheckpointError: another process is saving there right now, or the folder cannot be written to.
    """
    try:
        folder = Path(os.path.realpath(folder))
    except ValueError:  # no file can have this name
        return
    until = time.monotonic() + _PATIENCE
    while _is_interrupted(folder):
        try:
            with locked(folder, is_decided(folder)):
                _tidy(folder)
                return
        except CheckpointError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        except OSError as problem:
            raise CheckpointError(
                f"{folder}: a save to it was interrupted, and cannot be finished: {problem.strerror or problem}.\n"
                "Load it once as a user, and on a machine, that can write to it."
            ) from problem


def finds_folder(folder: str | Path) -> bool:
    """Whether there is a folder of this name; an interrupted save is finished first.

    Looks more than once: a folder that another process replaces by renaming is missing for a moment.

    Raises:
        CheckpointError: as `finish_swap`.
    """
    for _ in range(_LOOKS):
        finish_swap(folder)
        if os.path.isdir(folder):
            return True
    return False


def _is_interrupted(folder: Path) -> bool:
    try:
        return is_decided(folder) or (_is_empty(folder) and bool(leftovers(beside(folder, "old-"))))
    except OSError:  # nothing that could be read, and so finished, is there
        return False


def is_decided(folder: Path) -> bool:
    """Whether a save is committed, but its files still wait in `.vitriad.new`: the folder may hold parts of two saves.

    False where `.vitriad.new` is a link: vitriad does not make one.
    """
    try:
        return stat.S_ISDIR(os.lstat(inside(folder, "new")).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_there(path: Path) -> bool:
    """Like path.exists(), which takes some errors, and in newer Pythons all, for a no."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_empty(folder: Path) -> bool:
    """Whether there is nothing at this name, or only a folder without content."""
    try:
        return not os.listdir(folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _check_target(folder: Path, size: int, is_replaced: Callable[[str], bool]) -> None:
    """Refuses a folder that cannot be replaced, before anything is written."""
    if not folder.name:
        raise CheckpointError(f"{folder}: the root of a file system: save into a folder inside.")
    if _is_there(folder):
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: expected a folder to save into, got a file.")
        with os.scandir(folder) as entries:
            inner = [entry.name for entry in entries if is_replaced(entry.name) and _is_folder(entry)]
        if inner:
            raise CheckpointError(f"{folder}: {inner[0]} is a folder, where a file is to be saved.")
        if not is_writable(folder):
            raise CheckpointError(f"{folder}: cannot be saved to: {folder} is read-only.")
    else:
        _make(folder.parent)
        if not is_writable(folder.parent):
            raise CheckpointError(f"{folder}: cannot be saved to: {folder.parent} is read-only.")
    place = folder if _is_there(folder) else folder.parent
    if (free := shutil.disk_usage(place).free) < _SPACE_FACTOR * size:
        raise CheckpointError(f"{folder}: {size} bytes to save, and only {free} bytes free.")


def _make(folder: Path) -> None:
    """Makes a folder where missing, with its parents, through to the disk."""
    new = [path for path in (folder, *folder.parents) if not _is_there(path)]
    folder.mkdir(parents=True, exist_ok=True)
    _sync(path.parent for path in new)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _has_to_stay(folder: Path) -> bool:
    """Whether another folder cannot take the place of this one."""
    return _is_there(folder) and (
        _runs_in(folder)
        or not is_writable(folder.parent)
        or any(os.path.ismount(inner) for inner, _, _ in os.walk(folder))
    )


def _runs_in(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:  # it is gone already
        return False


def _keep_others(old: Path, new: Path, is_replaced: Callable[[str], bool]) -> None:
    """Makes `new`, with hard links to what stays of `old`."""

    def left_out(where: str, names: list[str]) -> list[str]:
        at_top = where == str(old)
        return [name for name in names if at_top and (is_replaced(name) or name.startswith(inside(old, "").name))]

    if not _is_there(old):
        new.mkdir()
        return
    try:
        shutil.copytree(old, new, symlinks=True, ignore=left_out, copy_function=_link)
    except shutil.Error as problems:  # a list of all of them
        file, _, reason = problems.args[0][0]
        raise OSError(f"{file}: {reason}") from None


def _keep_modes(old: Path, new: Path) -> None:
    """Gives every new file the permissions of the one that it replaces."""
    with os.scandir(new) as entries:
        made_files = [*entries]
    for entry in made_files:
        with suppress(FileNotFoundError, NotADirectoryError):
            mode, made = os.lstat(old / entry.name).st_mode, entry.stat(follow_symlinks=False).st_mode
            if mode != made and stat.S_ISREG(mode) and stat.S_ISREG(made):  # what is kept has its own
                os.chmod(entry.path, stat.S_IMODE(mode))


def _remove(folder: Path) -> None:
    """Removes a folder; says so where that is not possible, as of files in folders of another user."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        logger.warning("%s: could not be removed, and is of no more use: it holds what was replaced.", folder)


def _link(file: str, link: str) -> None:
    try:
        os.link(file, link)
    except OSError as problem:  # no hard links on this file system, or to this file
        if problem.errno == errno.EXDEV:  # it is mounted from elsewhere: the old one must not be removed after the swap
            raise
        shutil.copy2(file, link)
        _sync([link])


def sync_files(folder: str | Path) -> None:
    """Brings the files of a folder, and of those inside, to the disk; `replacing` does so with the folders."""
    _sync(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)


def _sync(paths: Iterable[str | Path]) -> None:
    """Brings files, and the entries of folders, to the disk (on Windows there is no such call for folders)."""
    for path in paths if os.name == "posix" else ():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as problem:
            if problem.errno != errno.EINVAL:  # a file system that syncs files only
                raise
        finally:
            os.close(descriptor)


def _swap(new: Path, folder: Path) -> None:
    """Puts `new` in the place of `folder`; the old one ends at the name of `new`."""
    if not _is_there(folder):
        os.rename(new, folder)
    elif not _exchange(new, folder):
        aside = beside(folder, f"old-{os.getpid()}")
        os.rename(folder, aside)
        try:
            os.rename(new, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        _sync([folder.parent])  # what is called `new` may be removed by anybody
        os.rename(aside, new)
    _sync([folder.parent])


def _decide(new: Path, folder: Path, is_replaced: Callable[[str], bool]) -> None:
    """Makes `new`, inside `folder`, what is valid from now on, and then puts its files in place."""
    coming = set(os.listdir(new))
    (new / _STALE).mkdir()
    for name in os.listdir(folder):
        if is_replaced(name) and name not in coming:
            (new / _STALE / name).touch()
    _sync([new / _STALE, new])
    os.rename(new, inside(folder, "new"))
    _sync([folder])
    _move_in(folder)


def _move_in(folder: Path) -> None:
    """Puts the files of `.vitriad.new` in place; interrupted anywhere, it can be done again."""
    new = inside(folder, "new")
    for name in os.listdir(new / _STALE):
        (folder / name).unlink(missing_ok=True)
    for name in sorted({*os.listdir(new)} - {_STALE}):
        os.replace(new / name, folder / name)
    _sync([folder])
    done = inside(folder, f"tmp-{os.getpid()}")
    os.rename(new, done)
    _sync([folder])  # else a loss of power could bring it back, without what is removed now
    _remove(done)


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
    """Finishes an interrupted save and removes what dead ones left behind; called under the lock."""
    if is_decided(folder):
        _move_in(folder)
    for pid, old in leftovers(beside(folder, "old-")).items():
        new = beside(folder, f"tmp-{pid}")
        if _is_empty(folder):  # the old one is put aside only after the new one is complete
            os.rename(new if _is_there(new) else old, folder)
        elif _is_there(new):
            raise CheckpointError(
                f"{folder}: a save to it was interrupted, and something else was put there since.\n"
                f"What was saved is in {new.name}, what it was to replace in {old.name}: move or delete both."
            )
        shutil.rmtree(old, ignore_errors=True)
    for leftover in (*dead(beside(folder, "tmp-")), *dead(inside(folder, "tmp-"))):
        shutil.rmtree(leftover, ignore_errors=True)
