"""`vitriad embed`: features of many images in one file, made shard by shard, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from vit_core.config import patch_grid
from vit_core.errors import ImageError, InputError, VitError
from vit_core.files.atomic_folder import write_file
from vit_core.files.json import read_json
from vit_core.files.targets import check_target
from vit_core.images.decoding import decoded
from vit_core.images.sources import ImageSource, image_sources
from vit_core.tensors import Array
from vitriad.feature_files import NAMES, check_format, read_shard, write_features, write_shard
from vitriad.features import Embedder
from vitriad.identity import Origin
from vitriad.option_groups import running_options
from vitriad.printing import shown
from vitriad.ray_pool import pooled, ray_module

_SHARD_BYTES, _SHARD_IMAGES = 64_000_000, 512  # of features, in memory at once
_BATCHES = (1, 2, 4, 8, 16, 32)  # that are tried
_UNTRIED = 8  # the batch where trying would take longer than it saves
_TRIED_SHARE = 0.05  # at most so many of the images' number are computed to try batches
_WORTH = 0.95  # a larger batch has to take at most so much of the time of a smaller one, for each image
_WORKERS = 2  # actors of Ray, unless said
_SLOW = 2.0  # seconds of a batch at which none larger is tried


Todo = Sequence[tuple[int, Sequence[ImageSource]]]  # number of a shard, and its images
Made = Generator[tuple[int, "Shard"], None, None]


def run(arguments: Namespace) -> int:
    """Writes the file of features; 3 if some images could not be used."""
    out = Path(arguments.out)
    check_target(out, is_folder=False, error=InputError)
    if arguments.engine == "ray":
        ray_module()
    elif arguments.workers:
        raise InputError("embed: --workers is how many actors of Ray there are; give --engine ray with it.")
    sources = image_sources(arguments.images)
    embedder = Embedder(
        arguments.model,
        arguments.backend,
        features=arguments.features,
        layers=arguments.layers,
        processor=arguments.processor,
        dtype=arguments.dtype,
        **running_options(arguments),
    )
    check_format(out, embedder.names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked before decoding
        asked = {"batch_size": arguments.batch_size, "force": arguments.force}
        workers = arguments.workers or _WORKERS if arguments.engine == "ray" else None
        skipped, rows, rate = embed(embedder, sources, out, workers=workers, **asked)
    print(f"{rows} images, {', '.join(embedder.names)}: {shown(str(out))} ({rate:.1f} images/s)")
    if skipped:
        print(f"{skipped} images could not be used: {shown(str(_skipped_file(out)))}", file=sys.stderr)
    return 3 if skipped else 0


def embed(
    embedder: Embedder,
    sources: Sequence[ImageSource],
    out: Path,
    *,
    batch_size: int | None = None,
    force: bool = False,
    workers: int | None = None,
) -> tuple[int, int, float]:
    """Computes the features of images and writes them to a file that `vitriad.feature_files` can read.

    Shards are kept in a folder beside the file until all are there. The same call finds them and goes on; what comes
    out is the same to the byte, however often it was stopped.

    Args:
        out: .npz, .npy or .parquet. Images that cannot be used stand in OUT.skipped.jsonl, with the reason.
        batch_size: images at a time; None for what is fastest here.
        force: replace what is there, and begin anew where an interrupted run had other settings.
        workers: actors in Ray Data that share the work, on this machine or on the cluster that RAY_ADDRESS names; None
            for this process. The file is the same.

    Returns:
        how many images were skipped, how many rows were written, and images per second of this call.

    Raises:
        InputError: something is there already, an interrupted run had other settings, or nothing can be used.
    """
    parts = out.with_name(f"{out.name}.parts")
    origin = embedder.origin()
    asked = _settings(embedder, origin, sources, batch_size)
    found = _begun(parts, asked, force)
    if found is None and os.path.lexists(out) and not force:
        raise InputError(f"{out}: something is there already.\n--force replaces it.")
    plan = found or {**asked, "called": origin.model, **_sizes(embedder, batch_size, len(sources))}
    origin = origin._replace(model=plan["called"])  # one model has several names, and the file is the same to the byte
    if found is None:
        write_file(parts / "run.json", json.dumps(plan, indent=1) + "\n", error=InputError)
    firsts = range(0, len(sources), plan["shard"])
    shards = [parts / f"{number:05}.npz" for number in range(len(firsts))]
    todo = [
        (number, sources[first : first + plan["shard"]])
        for number, first in enumerate(firsts)
        if not shards[number].exists()
    ]
    start, count = time.monotonic(), sum(len(some) for _, some in todo)
    with tqdm(
        total=len(sources),
        initial=len(sources) - count,
        **{"unit": "image", "disable": not sys.stderr.isatty(), "file": sys.stderr},
    ) as progress:
        _make(embedder, shards, todo, plan["batch"], progress, workers)
    rate = count / max(time.monotonic() - start, 1e-9)
    return (*_finished(out, parts, shards, origin), rate)


# --- what a run is ---------------------------------------------------------------------------------------------------


def _settings(
    embedder: Embedder, origin: Origin, sources: Sequence[ImageSource], batch_size: int | None
) -> dict[str, Any]:
    """What the result depends on; an interrupted run goes on only under the same."""
    images = hashlib.sha256()
    for source in sources:
        images.update(f"{source.name}\0{source.stamp()}\0".encode("utf-8", "surrogateescape"))
    artefact = getattr(embedder.model, "artefact", None)
    return {
        "images": images.hexdigest(),
        "count": len(sources),
        "model": origin.encoder,
        "program": artefact and artefact.files,
        "engine": artefact.to if artefact else embedder.model.framework,
        "processor": origin.processor,
        "columns": [*embedder.names],
        "dtype": embedder.dtype,
        "optimize": embedder.optimize,
        **({} if batch_size is None else {"batch": batch_size}),
    }


def _begun(parts: Path, asked: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """The plan of an interrupted run that this one can go on with; None if there is none."""
    if not (parts / "run.json").is_file():
        return None
    try:
        found = read_json(parts / "run.json", limit="config_bytes", error=InputError)
    except VitError:
        found = {}
    differing = [name for name, value in json.loads(json.dumps(asked)).items() if found.get(name) != value]
    if not differing and {"batch", "called", "shard"} <= found.keys():
        return found
    if not force:
        what = ", ".join(differing) or "run.json"
        raise InputError(f"{parts}: an interrupted run that differs in: {what}.\n--force begins anew; or delete it.")
    shutil.rmtree(parts)
    return None


def _sizes(embedder: Embedder, batch_size: int | None, count: int) -> dict[str, int]:
    """Images of a batch and of a shard."""
    batch = batch_size or _batch_for(embedder, count)
    patches = prod(patch_grid(embedder.config, embedder.size))
    rows = sum(patches if name.endswith("patch_tokens") else 1 for name in embedder.names)
    size = rows * embedder.config.hidden_size * np.dtype(embedder.dtype).itemsize
    return {"batch": batch, "shard": max(1, min(_SHARD_IMAGES, _SHARD_BYTES // max(size, 1)) // batch) * batch}


def _batch_for(embedder: Embedder, count: int) -> int:
    """Images at a time: the fastest, where so many images repay trying; evened out, so that little is filled up."""
    tried = [batch for batch in _BATCHES if 2 * (2 * batch - 1) <= _TRIED_SHARE * count]  # two calls of each up to it
    batch = fastest_batch(embedder, tried) if _UNTRIED in tried else _UNTRIED
    calls = max(1, -(-count // batch))
    return max(1, -(-count // calls))


def fastest_batch(embedder: Embedder, batches: Sequence[int] = _BATCHES) -> int:
    """How many images at a time take the least time for each, by trying; the smaller one where it hardly matters."""
    best, least = 1, np.inf
    for batch in batches:
        pixels = np.zeros((batch, embedder.config.num_channels, *embedder.size), embedder.pixel_dtype)
        try:
            embedder({"pixel_values": pixels})  # the first call of a size may compile
            start = time.perf_counter()
            embedder({"pixel_values": pixels})
        except MemoryError:
            break
        spent = time.perf_counter() - start
        if spent / batch < _WORTH * least:
            best, least = batch, spent / batch
        if spent > _SLOW:
            break
    return best


# --- one shard -------------------------------------------------------------------------------------------------------


class Shard(NamedTuple):
    """The features of some images.

    Attributes:
        columns: the names of those that could be used, and their features.
        skipped: name and reason of the others.
    """

    columns: dict[str, Array]
    skipped: list[dict[str, str]]


def shard_of(
    embedder: Embedder, sources: Sequence[ImageSource], batch: int, tell: Callable[[str | None], object]
) -> Shard:
    """Computes one shard.

    Args:
        tell: called after each image, with the reason where it cannot be used.
    """
    names, skipped, waiting, pieces = [], [], [], []
    for source, pixels in decoded(sources, embedder.read, 2 * batch):
        name = source.name.encode("utf-8", "backslashreplace").decode()  # bytes that are no text are escaped
        if isinstance(pixels, ImageError):
            skipped.append({"name": name, "error": str(pixels)})
        else:
            names.append(name)
            waiting.append(pixels)
        if len(waiting) == batch:
            pieces.append(_features(embedder, waiting, batch))
            waiting.clear()
        tell(str(pixels) if isinstance(pixels, ImageError) else None)
    if waiting:
        pieces.append(_features(embedder, waiting, batch))
    columns = {column: np.concatenate([piece[column] for piece in pieces]) for column in embedder.names if pieces}
    return Shard({NAMES: np.array(names, str), **columns}, skipped)


def _features(embedder: Embedder, pixels: Sequence[Array], batch: int) -> dict[str, Array]:
    """The features of at most one batch. It is filled up: one shape is one program, and rounds alike in every run."""
    full = np.stack([*pixels, *[pixels[-1]] * (batch - len(pixels))])
    return {name: array[: len(pixels)] for name, array in embedder({"pixel_values": full}).items()}


def _make(
    embedder: Embedder, shards: Sequence[Path], todo: Todo, batch: int, progress: Any, workers: int | None
) -> None:
    """Computes shards, here or by Ray, and writes each after the list of what it leaves out."""
    made = _here(embedder, todo, batch, progress)
    if workers is not None:
        made = _by_ray(embedder, todo, batch, progress, workers)
    with closing(made):
        for number, shard in made:
            skipped = shards[number].with_suffix(".skipped.json")
            write_file(skipped, json.dumps(shard.skipped), error=InputError)
            write_shard(shards[number], shard.columns)


def _here(embedder: Embedder, todo: Todo, batch: int, progress: Any) -> Made:
    """The shards, computed in this process one after the other."""
    for number, sources in todo:
        yield number, shard_of(embedder, sources, batch, partial(_show, progress))


def _by_ray(embedder: Embedder, todo: Todo, batch: int, progress: Any, workers: int) -> Made:
    """The shards as the actors of Ray Data finish them."""
    for number, shard in pooled(partial(shard_of, batch=batch), embedder, todo, workers):
        for record in shard.skipped:
            _show(progress, record["error"])
        progress.update(len(shard.columns[NAMES]))
        yield number, shard


def _show(progress: Any, problem: str | None) -> None:
    """Moves the bar on by an image, and says above it why one cannot be used."""
    if problem is not None:
        tqdm.write(f"vitriad: skipped: {problem}", file=sys.stderr)
    progress.update()


# --- all shards ------------------------------------------------------------------------------------------------------


def _finished(out: Path, parts: Path, shards: Sequence[Path], origin: Origin) -> tuple[int, int]:
    """Puts the shards together and removes them; returns how many images were skipped, and how many rows there are."""
    skipped = [record for shard in shards for record in json.loads(shard.with_suffix(".skipped.json").read_text())]
    records = "".join(f"{json.dumps(record)}\n" for record in skipped)
    if skipped:
        write_file(_skipped_file(out), records, error=InputError)
    else:
        _skipped_file(out).unlink(missing_ok=True)
    counts = {shard: len(read_shard(shard, [NAMES])[NAMES]) for shard in shards}
    filled = [shard for shard in shards if counts[shard]]
    if not filled:
        shutil.rmtree(parts)
        raise InputError(f"no image that can be used; {_skipped_file(out)} says why.")
    write_features(out, filled, origin)
    rows = sum(counts.values())
    for shard in shards:  # the plan last: a run that is stopped here makes again what is gone, and finishes
        shard.unlink()
        shard.with_suffix(".skipped.json").unlink()
    shutil.rmtree(parts)
    return len(skipped), rows


def _skipped_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.skipped.jsonl")
