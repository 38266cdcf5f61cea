"""Data sets: named images, each of a class or of none, and which of them a model is not trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vit_core.errors import InputError
from vit_core.images.sources import ImageSource
from vit_core.tensors import Array
from vit_core.training.draws import Draws

Opened = str | bytes | Array  # the path of an image file, the bytes of one, or its levels


@dataclass(frozen=True, eq=False)
class DataSet:
    """Named images, opened one by one.

    Attributes:
        where: what it was read from, for messages.
        names: of the images; each is another one.
        opened: number of an image -> what `vit_core.images.files.open_image` takes, or its levels of light, uint8.
        labels: (images,), int64: places in `classes`. None where the data have no classes.
        classes: their names.
        stamp: changes when an image does, as far as files can be looked at.
    """

    where: str
    names: Sequence[str]
    opened: Callable[[int], Opened]
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    stamp: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """What changes when a name, a label or a file does."""
        found = hashlib.sha256(f"{self.stamp}\0{self.classes}\0".encode("utf-8", "surrogateescape"))
        found.update("\0".join(self.names).encode("utf-8", "surrogateescape"))
        found.update(b"" if self.labels is None else self.labels.astype("<i8").tobytes())
        return found.hexdigest()

    def with_classes(self, classes: Sequence[str]) -> DataSet:
        """The same images, their labels counted in the order of other classes.

        Raises:
            InputError: a class that is not among them.
        """
        if self.labels is None:
            return self
        if unknown := [name for name in self.classes if name not in classes]:
            raise InputError(
                f"{self.where}: the class {unknown[0]!r} is none of the {len(classes)} that the model is trained for.\n"
                f"Known are {_some(classes)}."
            )
        places = np.array([classes.index(name) for name in self.classes], np.int64)
        return replace(self, labels=places[self.labels], classes=tuple(classes))


def labelled(
    where: str, names: Sequence[str], opened: Callable[[int], Opened], said: Sequence[str], **more: str
) -> DataSet:
    """A data set of images whose classes are given by name, in the order of numbers or of the alphabet.

    Raises:
        InputError: there is no image.
    """
    if not names:
        raise InputError(f"{where}: there is no image.")
    numeric = all(name.isascii() and name.isdecimal() for name in said)
    classes = tuple(sorted({*said}, key=int if numeric else str))
    places = {name: place for place, name in enumerate(classes)}
    return DataSet(where, names, opened, np.array([places[name] for name in said], np.int64), classes, **more)


def stamp_of(sources: Iterable[ImageSource]) -> str:
    """What changes when a file does, as far as its size and time tell."""
    return hashlib.sha256("\n".join(source.stamp() for source in sources).encode()).hexdigest()


def split(
    labels: Array | None, count: int, share: float, seed: int, classes: Sequence[str] = ()
) -> tuple[Array, Array]:
    """Which images to learn from and which to hold out: of every class the same share, and at least one.

    Args:
        labels: (count,), integers; None where there are no classes.
        count: of images.
        share: to hold out.
        seed: which ones.
        classes: their names, for messages.

    Returns:
        the numbers of both, ascending.

    Raises:
        InputError: a share that is none, or a single image of a class.
    """
    if not 0 < share < 1:
        raise InputError(f"share held out: expected a number between 0 and 1, got {share}.")
    if labels is None:
        groups = [("", np.arange(count))]
    else:
        said = {place: classes[place] if classes else str(place) for place in np.unique(labels).tolist()}
        groups = [(name, np.flatnonzero(labels == place)) for place, name in said.items()]
    train, held_out = [], []
    for number, (name, rows) in enumerate(groups):
        if len(rows) < 2:
            what = f"the class {name!r} has" if name else "there is"
            raise InputError(f"split: {what} one image; two are needed: one to learn from, one to hold out.")
        rows = rows[Draws(seed, "split", number).order(len(rows))]
        held = min(max(1, round(share * len(rows))), len(rows) - 1)
        held_out.append(rows[:held])
        train.append(rows[held:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held_out))


def check_classes(train: DataSet, held_out: DataSet) -> None:
    """Checks that two data sets can be trained on and judged by.

    Raises:
        InputError: no labels, a single class, or classes that are in one of the two only.
    """
    for data in (train, held_out):
        if data.labels is None:
            raise InputError(f"{data.where}: its images have no classes; {LABELS_HINT}")
    if len(train.classes) < 2:
        raise InputError(
            f"{train.where}: all images are of one class, {train.classes[0]!r}.\nTwo are needed; {LABELS_HINT}"
        )
    if unknown := [name for name in held_out.classes if name not in train.classes]:
        raise InputError(
            f"{held_out.where}: the class {unknown[0]!r} is held out, but is not in {train.where}.\n"
            f"There are {_some(train.classes)}."
        )
    if untested := [name for name in train.classes if name not in held_out.classes]:
        raise InputError(
            f"{held_out.where}: no image of {untested[0]!r} ({len(untested)} such classes), which is in {train.where} "
            "only: it would never be judged.\nAdd images of it, or hold out a share of the training images."
        )


LABELS_HINT = "put each class into a folder of its own, or name them in a list of path,label."


def class_weights(labels: Array, classes: int) -> Array:
    """Weights by which every class counts the same: (classes,), float32; over all images their mean is 1."""
    counts = np.bincount(labels, minlength=classes)
    weights: Array = (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)
    return weights


def check_names(where: str, names: Sequence[str]) -> None:
    """Raises InputError where an image is named twice."""
    name, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise InputError(f"{where}: {name} is there {times} times; every image needs a name of its own.")


def _some(classes: Sequence[str]) -> str:
    more = len(classes) - 5
    return ", ".join(map(repr, classes[:5])) + (f" and {more} more" if more > 0 else "")
