"""Judges from the system calls of a save whether all that it puts in place is on the disk by then.

What a program writes, a loss of power can still take, until the file has been synced; what it does to a folder (a new
name, another file under a name, a name less), until the folder has been. So, in this order: the new files and folders
are on the disk; they are put in place; that is on the disk; what was there before goes.
"""

import re
from pathlib import PurePosixPath as Path

_WRITES = ("write", "pwrite64", "writev", "pwritev", "sendfile", "ftruncate", "fallocate")
_SYNCS = ("fsync", "fdatasync")
_OTHERS = (
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "symlink",
    "unlink",
    "unlinkat",
    "rmdir",
)
DECIDED = ".vitriad.new"  # the name under which files wait that are to be put in place one by one
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>")


class Disk:
    """Follows the calls of a save in `root` and below.

    Attributes:
        pending: what is not on the disk: a file (with nothing), a folder with the names in it that have changed.
        complaints: what was done too early.
    """

    def __init__(self, root):
        self.root, self.pending, self.complaints = Path(root), {}, []

    def follow(self, calls):
        """Takes in the calls of a save, and complains of what is still pending at their end."""
        for call in calls:
            result = call.text.rpartition(" = ")[2]
            if not result.startswith("-1") and (found := paths(call)) and found[-1].is_relative_to(self.root):
                self._take(call, *found)
        if self.pending:
            self.complaints.append(f"in the end not on the disk: {self._listed(self.pending)}")
        return self

    def _take(self, call, path, other=None):
        if call.name in _WRITES or "O_TRUNC" in call.text:  # of an empty new file nothing but its name has to be there
            self.pending[path] = None
        if call.name == "mmap":
            self.complaints.append(f"{path.name} is written through memory, where nobody can follow")
        if call.name in _SYNCS:
            self.pending.pop(path, None)
        if "O_CREAT" in call.text or call.name.startswith(("mkdir", "link", "symlink")):
            self._change(other or path)
        if call.name.startswith("rename"):
            self._rename(path, other, is_swap="RENAME_EXCHANGE" in call.text)
        if call.name in ("unlink", "unlinkat", "rmdir"):
            self._remove(path)

    def _change(self, path):
        """Something has happened to a name in a folder. Locks and trash do no harm if they come back."""
        if path.name.endswith(".lock"):
            self.pending.pop(path, None)
        elif not is_trash(path):
            self.pending.setdefault(path.parent, set()).add(path.name)

    def _rename(self, old, new, is_swap):
        early = {path: names for path, names in self.pending.items() if path.is_relative_to(old)}
        if early and not is_trash(new):
            self.complaints.append(f"{new.name} is put in place before the disk has {self._listed(early)}")
        if is_trash(new) and (late := self.pending.get(old.parent)):
            self.complaints.append(f"{old.name} is thrown away before the disk has {sorted(late)}")
        if old.parent != new.parent and old.parent.name in self.pending.get(old.parent.parent, ()):
            self.complaints.append(f"{new.name} is put in place before the disk has {old.parent.name}")
        moved = {path: self.pending.pop(path) for path in early}
        back = {path: self.pending.pop(path) for path in [*self.pending] if path.is_relative_to(new)}
        self.pending |= {new / path.relative_to(old): names for path, names in moved.items()}
        self.pending |= {old / path.relative_to(new): names for path, names in back.items()} if is_swap else {}
        self._change(old)
        self._change(new)

    def _remove(self, path):
        """What is old goes when the new is in place for good; in a folder that stays, when that is decided for good."""
        trash = next((above for above in path.parents if is_trash(above)), None)
        late = self.pending.get(trash.parent if trash else path.parent, set())
        if late and (trash or DECIDED in late):
            self.complaints.append(f"{path.name} is removed before the disk has {sorted(late)}")
        for gone in [each for each in self.pending if each.is_relative_to(path)]:
            del self.pending[gone]
        self._change(path)

    def _listed(self, found):
        return ", ".join(f"{path.relative_to(self.root)} {sorted(names or ())}" for path, names in found.items())


def is_trash(path):
    """Whether it has the name of something unfinished, or to be thrown away: `.NAME.tmp-PID`."""
    return re.fullmatch(r"\..*\.tmp-\d+", path.name) is not None


def paths(call):
    """The paths that a call changes, whole; of a call that changes none, nothing."""
    text = call.text.rpartition(" = ")[0]
    descriptors = [Path(found.removesuffix(" (deleted)")) for found in _DESCRIPTOR.findall(text)]
    names = [
        descriptors[i] / name if i < len(descriptors) else Path(name) for i, name in enumerate(_TEXT.findall(text))
    ]
    if call.name in (*_WRITES, *_SYNCS) or (call.name == "mmap" and "PROT_WRITE" in text and "MAP_SHARED" in text):
        return descriptors[:1]
    if call.name == "openat":
        return names if re.search("O_(WRONLY|RDWR|CREAT)", text) else []
    return names[call.name == "symlink" :] if call.name in _OTHERS else []
