"""Files of features: shards while they are made, then .npz, .npy with files beside it, or Parquet; each says its model.

Beside features and names a file holds what made them (`vitriad.identity.Origin`): an .npz file as the array "origin",
a Parquet file in its metadata, an .npy file in a JSON file beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from vit_core.errors import BackendError, InputError, MissingFileError
from vit_core.files.atomic_folder import replacing_file, write_file
from vit_core.files.npz import save_arrays
from vit_core.installing import install_command
from vit_core.tensors import Array
from vitriad.identity import Origin

SUFFIXES = (".npz", ".npy", ".parquet")
NAMES = "name"  # the column that says which image a row is of
ORIGIN = "origin"  # the array, or the key of metadata, that says what made the features

Columns = dict[str, Array]


def names_file(path: str | Path) -> Path:
    """Where the names of the rows of an .npy file stand, one on each line."""
    return Path(path).with_suffix(".names.txt")


def origin_file(path: str | Path) -> Path:
    """Where it stands what made the features in an .npy file."""
    return Path(path).with_suffix(".origin.json")


def check_format(path: str | Path, columns: Sequence[str]) -> None:
    """Checks that a file can hold these columns.

    Raises:
        InputError: another suffix, or several features for .npy.
        BackendError: Parquet without pyarrow.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: expected the name of a file that ends in {', '.join(SUFFIXES)}.")
    if suffix == ".npy" and len(columns) > 1:
        raise InputError(f"{path}: .npy holds one array, and {', '.join(columns)} are asked for; write .npz.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise BackendError(
            f"{path}: needs pyarrow, which is not installed.\nInstall it with: {install_command('data')}"
        )


def write_features(path: str | Path, shards: Sequence[Path], origin: Origin) -> None:
    """Puts shards together into one file, a shard at a time. The file is the old one or the new one at any moment.

    Raises:
        InputError: the file cannot be written.
    """
    writer: Callable[[Path, Sequence[Path], Origin], None]
    writer = {".npz": _write_npz, ".npy": _write_npy, ".parquet": _write_parquet}[Path(path).suffix]
    size = sum(shard.stat().st_size for shard in shards)
    with ExitStack() as files:
        if Path(path).suffix == ".npy":
            text = "".join(
                f"{_line(name)}\n" for shard in shards for name in read_shard(shard, [NAMES])[NAMES].tolist()
            )
            listing = files.enter_context(replacing_file(names_file(path), error=InputError))
            listing.write_text(text, encoding="utf-8")
            write_file(origin_file(path), f"{origin.text()}\n", error=InputError)
        new = files.enter_context(replacing_file(path, error=InputError, size=size))
        writer(new, shards, origin)
        with open(new, "rb") as written:
            os.fsync(written.fileno())


def _line(name: str) -> str:
    """A name on one line; one that has several, or begins with a quotation mark, as JSON writes it."""
    return json.dumps(name) if name.splitlines() != [name] or name.startswith('"') else name


def write_shard(path: Path, columns: Mapping[str, Array]) -> None:
    """Writes a shard: it is there as a whole, or not at all."""
    with replacing_file(path, error=InputError) as new, open(new, "wb") as file:
        save_arrays(file, columns)
        file.flush()
        os.fsync(file.fileno())


def read_shard(path: Path, columns: Sequence[str] | None = None) -> Columns:
    """Some columns of a shard, or all."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:  # of damaged ones NumPy closes nothing
        return {name: stored[name] for name in columns or stored.files}


def read_features(path: str | Path) -> tuple[list[str], Columns]:
    """The names of images and their features, from a file that `vitriad embed` wrote.

    Returns:
        names; column -> array whose first axis is the images.

    Raises:
        MissingFileError, InputError: no such file, or another kind of file.
    """
    suffix = Path(path).suffix
    with _reading(path):
        if suffix == ".npy":
            lines = names_file(path).read_text(encoding="utf-8").splitlines()
            names = [json.loads(line) if line.startswith('"') else line for line in lines]
            origin = _origin(path)
            columns = {origin.columns[0] if origin else "features": np.load(path, allow_pickle=False)}
        elif suffix == ".npz":
            columns = {name: array for name, array in read_shard(Path(path)).items() if name != ORIGIN}
            names = columns.pop(NAMES).tolist()
        else:
            names, columns = _read_parquet(path)
    if wrong := [name for name, array in columns.items() if array.ndim < 2 or len(array) != len(names)]:
        raise InputError(f"{path}: {wrong[0]}: expected a row for each of {len(names)} names.")
    return names, columns


def read_origin(path: str | Path) -> Origin | None:
    """What made the features in a file; None where it does not say, as one of another program's.

    Raises:
        MissingFileError, InputError: no such file, or another kind of file.
    """
    with _reading(path):
        return _origin(path)


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Raises what is wrong with a file of features, whatever its reader raises."""
    if not os.path.isfile(path):
        raise MissingFileError(f"{path}: no such file.")
    check_format(path, [])
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as problem:
        raise InputError(f"{path}: no features of images as vitriad embed writes them: {problem}.") from None


def _origin(path: str | Path) -> Origin | None:
    suffix, text = Path(path).suffix, None
    if suffix == ".npz":
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            text = str(stored[ORIGIN]) if ORIGIN in stored.files else None
    elif suffix == ".npy":
        text = origin_file(path).read_text(encoding="utf-8") if origin_file(path).is_file() else None
    else:
        from pyarrow import parquet

        text = (parquet.read_schema(path).metadata or {}).get(ORIGIN.encode())
    return None if text is None else Origin.of_text(text)


def _shape(shards: Sequence[Path], column: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape of a column of all shards, and its dtype."""
    arrays = [read_shard(shard, [column])[column] for shard in shards[:1]]
    count = sum(len(read_shard(shard, [NAMES])[NAMES]) for shard in shards)
    return (count, *arrays[0].shape[1:]), arrays[0].dtype


def _pieces(shards: Sequence[Path], column: str) -> Iterator[Array]:
    for shard in shards:
        yield read_shard(shard, [column])[column]


def _write_npy(path: Path, shards: Sequence[Path], origin: Origin) -> None:
    with open(path, "wb") as file:
        _write_array(file, shards, origin.columns[0])


def _write_npz(path: Path, shards: Sequence[Path], origin: Origin) -> None:
    names = np.array([name for piece in _pieces(shards, NAMES) for name in piece.tolist()])
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for name, array in ((NAMES, names), (ORIGIN, np.array(origin.text()))):
            with archive.open(ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for column in origin.columns:
            with archive.open(ZipInfo(f"{column}.npy"), "w", force_zip64=True) as member:
                _write_array(member, shards, column)


def _write_array(file: Any, shards: Sequence[Path], column: str) -> None:
    """One array in the format of .npy, a shard at a time."""
    shape, dtype = _shape(shards, column)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    for piece in _pieces(shards, column):
        file.write(np.ascontiguousarray(piece).data)


def _write_parquet(path: Path, shards: Sequence[Path], origin: Origin) -> None:
    """A row group for each shard; features are lists of numbers of fixed size, their shape stands in the metadata."""
    import pyarrow
    from pyarrow import parquet

    shapes = {column: _shape(shards, column) for column in origin.columns}
    fields = [pyarrow.field(NAMES, pyarrow.string())]
    for column, (shape, dtype) in shapes.items():
        kind = pyarrow.list_(pyarrow.from_numpy_dtype(dtype), int(np.prod(shape[1:])))
        fields.append(pyarrow.field(column, kind, metadata={"shape": json.dumps(shape[1:])}))
    schema = pyarrow.schema(fields, metadata={ORIGIN: origin.text()})
    with parquet.ParquetWriter(path, schema) as writer:
        for shard in shards:
            held = read_shard(shard)
            arrays = [pyarrow.array(held[NAMES].tolist(), pyarrow.string())]
            for column in origin.columns:
                flat = pyarrow.array(held[column].reshape(-1))
                arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, int(np.prod(shapes[column][0][1:]))))
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _read_parquet(path: str | Path) -> tuple[list[str], Columns]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    columns = {}
    for field in table.schema:
        if field.name != NAMES:
            shape = json.loads((field.metadata or {}).get(b"shape", b"[-1]"))
            flat = table[field.name].combine_chunks()
            columns[field.name] = flat.flatten().to_numpy().reshape(len(table), *shape)
    return table[NAMES].to_pylist(), columns
