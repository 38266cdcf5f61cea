"""What data sets are read from: folders of classes, lists, tar files of WebDataset, Parquet and arrays."""

from __future__ import annotations

import csv
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vit_core.errors import BackendError, InputError, MissingFileError, reading
from vit_core.images.sources import SUFFIXES, ImageSource, image_paths, source_in_tar, tar_members
from vit_core.installing import install_command
from vit_core.tensors import Array
from vit_core.training.data import DataSet, check_names, labelled, stamp_of

_PARTS = ({"train"}, {"val", "valid", "validation", "test"})  # folders that are no classes


def read_data(path: str | Path, *, with_labels: bool = True) -> DataSet:
    """The data set at a path.

    Args:
        path: one of

            a folder: the folders in it are the classes, with all image files in them and in their subfolders;
            a .csv file with the columns path and label, paths as seen from the file;
            a .tar file, or a folder of them, as of WebDataset: NAME.jpg beside NAME.cls, which holds the class, or
            NAME.json with "label";
            a .parquet file, or a folder of them, with the columns image (the bytes, or bytes and path) and label;
            a .npz file with images, (images, height, width) or (images, height, width, channels), uint8, and labels,
            (images,), numbers or text; its array classes may name what numbers stand for.
        with_labels: False for images without classes: labels, where they are there, are not looked at.

    Raises:
        MissingFileError: nothing is there.
        InputError: it is none of these, or an image has no label.
        BackendError: Parquet without pyarrow.
    """
    path = str(path)
    if not os.path.exists(path):
        raise MissingFileError(f"{path}: no such file or folder.")
    inner = sorted(map(str, Path(path).iterdir())) if os.path.isdir(path) else [path]
    for suffix, reader in _READERS.items():
        if files := [file for file in inner if file.lower().endswith(suffix) and os.path.isfile(file)]:
            with reading(path, InputError):
                found = reader(path, files, with_labels)
            break
    else:
        found = _of_folder(path, with_labels)
    check_names(path, found.names)
    return found


def _of_folder(path: str, with_labels: bool) -> DataSet:
    if not os.path.isdir(path):
        raise InputError(f"{path}: expected a folder of images, or a file that ends in {', '.join(_READERS)}.")
    files = [*image_paths([path])]
    sources = [ImageSource(file) for file in files]
    stamp = stamp_of(sources)
    if not with_labels:
        return DataSet(path, files, lambda row: sources[row].open(), stamp=stamp)
    classes = [Path(file).relative_to(path).parts[0] for file in files]
    if loose := [file for file in files if Path(file).parent == Path(path)]:
        raise InputError(f"{path}: {Path(loose[0]).name} is in no folder of a class ({len(loose)} such images).")
    if all({name.lower() for name in {*classes}} & part for part in _PARTS) and len({*classes}) <= 3:
        names = sorted({*classes})
        raise InputError(
            f"{path}: its folders are {', '.join(names)}, which are no classes.\n"
            f"Give {Path(path) / names[0]} as the data and the other one to hold out, or the one that is to be split."
        )
    return labelled(path, files, lambda row: sources[row].open(), classes, stamp=stamp)


def _of_list(path: str, files: Sequence[str], with_labels: bool) -> DataSet:
    wanted = ("path", "label") if with_labels else ("path",)
    names, labels = [], []
    for file in files:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            if missing := [column for column in wanted if column not in (rows.fieldnames or ())]:
                raise InputError(f"{file}: no column {missing[0]}; its first line has to be: path,label")
            for row in rows:
                if not all(row[column] for column in wanted):
                    raise InputError(f"{file}: line {rows.line_num}: expected {' and '.join(wanted)}, got {row}.")
                names.append(str(Path(file).parent / row["path"]))
                labels.append(row.get("label") or "")
    return _sources(path, [*map(ImageSource, names)], labels if with_labels else None)


def _sources(path: str, sources: Sequence[ImageSource], labels: Sequence[str] | None) -> DataSet:
    """Images in files, or in archives."""
    names, stamp = [source.name for source in sources], stamp_of(sources)
    if labels is None:
        return DataSet(path, names, lambda row: sources[row].open(), stamp=stamp)
    return labelled(path, names, lambda row: sources[row].open(), labels, stamp=stamp)


def _of_tars(path: str, files: Sequence[str], with_labels: bool) -> DataSet:
    sources: list[ImageSource] = []
    labels: list[str] = []
    for archive in files:
        images, said = {}, {}
        for member in tar_members(archive):
            folder, _, base = member.name.rpartition("/")
            key, _, kind = base.partition(".")
            if f".{kind.lower()}" in SUFFIXES:
                images[folder, key] = source_in_tar(archive, member)
            elif kind in ("cls", "json") and with_labels:
                source = source_in_tar(archive, member)
                said[folder, key] = _label(source, kind)
        if missing := [images[key].name for key in images if with_labels and key not in said]:
            raise InputError(f"{missing[0]}: no .cls or .json beside it ({len(missing)} such images).")
        sources += images.values()
        labels += [said.get(key, "") for key in images]
    return _sources(path, sources, labels if with_labels else None)


def _label(source: ImageSource, kind: str) -> str:
    content = source.open()
    try:
        text = content.decode("utf-8").strip() if isinstance(content, bytes) else ""
        return text if kind == "cls" else str(json.loads(text)["label"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{source.name}: no label in it; expected text, or a JSON object with label.") from None


# --- arrays ----------------------------------------------------------------------------------------------------------


def _of_arrays(path: str, files: Sequence[str], with_labels: bool) -> DataSet:
    if len(files) > 1:
        raise InputError(f"{path}: {len(files)} files of arrays; give one of them.")
    try:
        with (
            open(files[0], "rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):  # of damaged ones NumPy closes none
            arrays = {name: stored[name] for name in ("images", "labels", "classes") if name in stored.files}
    except (ValueError, EOFError, KeyError, BadZipFile) as problem:
        raise InputError(f"{files[0]}: not a sound .npz file of plain arrays: {problem}.") from None
    images = arrays.get("images", np.empty(0))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        raise InputError(
            f"{path}: images: expected (images, height, width) or (images, height, width, 3), uint8, got "
            f"{images.dtype} {images.shape}."
        )
    names = [f"{path}::{row}" for row in range(len(images))]
    opened, stamp = images.__getitem__, stamp_of(map(ImageSource, files))
    if not with_labels:
        return DataSet(path, names, opened, stamp=stamp)
    labels = arrays.get("labels", np.empty(0))
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{path}: labels: expected ({len(images)},), numbers or text, got {labels.dtype} {labels.shape}."
        )
    return _named(path, names, opened, labels, arrays["classes"].tolist() if "classes" in arrays else None, stamp)


def _named(
    path: str,
    names: Sequence[str],
    opened: Callable[[int], Any],
    labels: Array,
    classes: Sequence[str] | None,
    stamp: str,
) -> DataSet:
    """Images whose labels are numbers that a table may name, or text."""
    if classes is None or labels.dtype.kind == "U":
        return labelled(path, names, opened, [str(label) for label in labels.tolist()], stamp=stamp)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise InputError(f"{path}: labels: expected 0 to {len(classes) - 1}, got {labels.min()} to {labels.max()}.")
    present = np.unique(labels)
    places = np.searchsorted(present, labels).astype(np.int64)
    return DataSet(path, names, opened, places, tuple(str(classes[i]) for i in present.tolist()), stamp)


# --- Parquet ---------------------------------------------------------------------------------------------------------


class _Spool:
    """Pieces of bytes in a file without a name, any of which can be read at once; it is gone with this object."""

    def __init__(self) -> None:
        self._file, path = tempfile.mkstemp()
        os.unlink(path)
        weakref.finalize(self, os.close, self._file)
        self._places: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, content: bytes) -> None:
        start = sum(self._places[-1]) if self._places else 0
        self._places.append((start, len(content)))
        while content:
            content = content[os.write(self._file, content) :]

    def read(self, number: int) -> bytes:
        start, size = self._places[number]
        return os.pread(self._file, size, start)


def _of_parquet(path: str, files: Sequence[str], with_labels: bool) -> DataSet:
    if find_spec("pyarrow") is None:
        raise BackendError(
            f"{path}: needs pyarrow, which is not installed.\nInstall it with: {install_command('train')}"
        )
    spool, names, classes = _Spool(), [], None
    labels: list[Any] = []
    for file in files:
        with _parquet(file, with_labels) as opened:
            classes = _class_names(opened.schema_arrow.metadata) or classes
            for batch in opened.iter_batches(64, columns=["image", "label"] if with_labels else ["image"]):
                names += [f"{file}::{len(spool) + row}" for row in range(len(batch))]
                for image in batch["image"].to_pylist():
                    spool.add((image.get("bytes") if isinstance(image, dict) else image) or b"")
                labels += batch["label"].to_pylist() if with_labels else []
    stamp = stamp_of(map(ImageSource, files))
    if not with_labels:
        return DataSet(path, names, spool.read, stamp=stamp)
    if None in labels:
        raise InputError(f"{names[labels.index(None)]}: no label.")
    return _named(path, names, spool.read, np.array(labels), classes, stamp)


def _parquet(file: str, with_labels: bool) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        opened = parquet.ParquetFile(file)
    except ArrowException as problem:
        raise InputError(f"{file}: not a sound Parquet file: {problem}.") from None
    wanted = ("image", "label") if with_labels else ("image",)
    if missing := [column for column in wanted if column not in opened.schema_arrow.names]:
        there = ", ".join(opened.schema_arrow.names)
        opened.close()
        raise InputError(f"{file}: no column {missing[0]}; there are {there}.")
    return opened


def _class_names(metadata: dict[bytes, bytes] | None) -> list[str] | None:
    """What numbers of the column label stand for, as the hub's data sets say it in the metadata of their schema."""
    try:
        said = json.loads((metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in said] if isinstance(said, list) else None


_READERS = {".csv": _of_list, ".tar": _of_tars, ".parquet": _of_parquet, ".npz": _of_arrays}
