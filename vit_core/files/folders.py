"""Reading a folder of weights: one file, or shards that an index lists, checked against the manifest beside them.

Names that come from data (an index, a manifest) never lead out of their folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vit_core.errors import CheckpointError, InputError, MissingFileError, UnsafeFileError
from vit_core.files.arrays import WeightFile, bytes_of, release
from vit_core.files.json import read_json
from vit_core.files.manifest import MANIFEST_NAME, read_manifest, verify_records
from vit_core.files.safetensors import open_file
from vit_core.files.weight_files import SUFFIX, weight_names
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import short
from vit_core.tensors import Array


class Weights(Mapping[str, Array]):
    """The tensors of a checkpoint by their stored names; data is read when a tensor is asked for.

    Attributes:
        files: the opened files.
        infos: name -> dtype, shape and data, known without touching the data.
        check: waits until the files are compared with their manifest, and raises what was found.
    """

    def __init__(self, files: Sequence[WeightFile], check: Callable[[], object] = lambda: None) -> None:
        self.files = files
        self.check = check
        self.infos = {name: info for file in files for name, info in file.tensors.items()}

    def release(self) -> None:
        """Gives the memory back that files are mapped into, see `vit_core.files.arrays.release`."""
        for file in self.files:
            release(file.content)

    def __getitem__(self, name: str) -> Array:
        return self.infos[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def open_weights(
    path: Path,
    *,
    variant: str | None = None,
    mmap: bool = True,
    verify: bool | str = "auto",
    wait: bool = True,
    limits: Limits = LIMITS,
) -> Weights:
    """Opens the weights of a folder (one file, or shards and their index), or one file.

    Args:
        path: folder or file.
        variant: infix of the file names, as in model.fp16.safetensors.
        mmap: map the files; False copies them into memory.
        verify: compare sizes and digests with manifest.json: "auto" where there is one, True always, False never.
        wait: until the digests are compared. With False a thread compares them meanwhile, and the caller calls
            `check()` of the result before it uses or saves anything made from the weights.
        limits: bounds on headers, index and shards.

    Raises:
        MissingFileError: no weights there, or a shard is missing.
        UnsafeFileError: a name or a link leads out of the folder.
        CheckpointError: anything else that is wrong with the files.
    """
    if verify not in (True, False, "auto"):
        raise InputError(f'verify: expected "auto", True or False, got {verify!r}.')
    single, index, _ = weight_names(variant)
    extra: dict[Path, Any] = {}
    if not path.is_dir():
        path = Path(os.path.realpath(path))  # the user named this very link
        files = [open_file(path, mmap=mmap, limits=limits)]
    elif os.path.lexists(path / single):
        files = [open_file(path / single, mmap=mmap, limits=limits)]
    elif os.path.lexists(path / index):
        files, extra = open_shards(path / index, limits, mmap=mmap)
    else:
        raise MissingFileError(f"{path}: no weights here: neither {single} nor {index}.")
    return verified(files, extra, verify=verify, wait=wait, limits=limits)


def verified(
    files: Sequence[WeightFile],
    extra: Mapping[Path, Any],
    *,
    verify: bool | str,
    wait: bool = True,
    limits: Limits = LIMITS,
    is_named: bool = False,
) -> Weights:
    """Opened files as weights, compared with the manifest beside them; see `open_weights`.

    Args:
        extra: path -> content of what the manifest covers beside the weights.
        is_named: whether the user named this very file. It may then have any name, and a manifest beside it that does
            not list it is only an error with `verify=True`.
    """
    if not verify:
        return Weights(files)
    contents = {file.path: file.content for file in files} | dict(extra)
    manifest = files[0].path.parent / MANIFEST_NAME
    known = read_manifest(manifest, limits)
    if known is None and verify is True:
        raise MissingFileError(f"{manifest}: verify=True needs the one that vitriad saves, and there is none.")
    records = known.records if known else {}
    if is_named and verify == "auto" and not _is_expected([path.name for path in contents], records):
        return Weights(files)
    digester = ThreadPoolExecutor(1)
    weights = Weights(files, digester.submit(verify_records, contents, known).result)
    digester.shutdown(wait=False)
    if wait:
        weights.check()
    return weights


def _is_expected(names: Sequence[str], known: Mapping[str, Any]) -> bool:
    """Whether a manifest covers these files: it lists one, or one has a name that a save would give it."""
    return any(name in known or name in weight_names() for name in names)


def open_shards(
    index: Path,
    limits: Limits = LIMITS,
    *,
    mmap: bool = True,
    opener: Callable[..., WeightFile] | None = None,
    suffix: str = SUFFIX,
    renamed: Callable[[str], str] = str,
) -> tuple[list[WeightFile], dict[Path, Any]]:
    """The files that an index names, opened and compared with it, and path -> content of the index.

    Args:
        opener: opens one file, as `open_file` does.
        suffix: of their names.
        renamed: a name in the index -> in the file.

    Raises:
        MissingFileError, UnsafeFileError, CheckpointError: as `open_weights`.
    """
    files = []
    for shard, names in sorted(read_index(index, limits, suffix).items()):
        file = (opener or open_file)(index.parent / shard, mmap=mmap, limits=limits)
        promised = set(map(renamed, names))
        if absent := sorted(promised - file.tensors.keys()):
            raise CheckpointError(f"{index}: {shard} does not hold {short(absent[0])} ({len(absent)} such names).")
        if extra := sorted(file.tensors.keys() - promised):
            raise CheckpointError(f"{index}: {shard} also holds {short(extra[0])} ({len(extra)} such names).")
        files.append(file)
    return files, {index: bytes_of(index, mmap=False)}


def read_index(index: Path, limits: Limits = LIMITS, suffix: str = SUFFIX) -> dict[str, set[str]]:
    """Where an index says that tensors are: shard -> names of its tensors.

    Raises:
        UnsafeFileError: the name of a shard leads out of the folder.
        CheckpointError: not an index, or too many shards.
    """
    said = read_json(index, limit="index_bytes", error=CheckpointError, limits=limits, within=True)
    weight_map = said.get("weight_map")
    if not (
        isinstance(weight_map, dict) and weight_map and all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise CheckpointError(f"{index}: weight_map: expected file names by tensor name, got {short(weight_map)}.")
    promised: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        promised.setdefault(shard, set()).add(name)
    for shard in promised:
        if shard.startswith(".") or not shard.endswith(suffix) or {*shard} & {*"/\\:\0"}:
            raise UnsafeFileError(f"{index}: expected the plain name of a {suffix} file, got {short(shard)}.")
    if len(promised) > limits.shards:
        raise CheckpointError(f"{index}: {len(promised)} shards, above {limits.bound('shards')}.")
    return promised
