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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from vit_core.errors import ImageError, InputError, VitError
from vit_core.files.atomic_folder import write_file
from vit_core.files.json import read_json
from vit_core.files.targets import check_target
from vit_core.tensors import Array
from vitriad.cli import running_options
from vitriad.decoding import decoded
from vitriad.feature_files import NAMES, check_format, read_shard, write_features, write_shard
from vitriad.features import Embedder
from vitriad.identity import Origin
from vitriad.image_sources import ImageSource, image_sources
from vitriad.printing import shown

_SHARD_BYTES, _SHARD_IMAGES = 64_000_000, 512  # of features, in memory at once
_BATCHES = (1, 2, 4, 8, 16, 32)  # that are tried
_WORTH = 0.95  # a larger batch has to take at most so much of the time of a smaller one, for each image
_SLOW = 2.0  # seconds of a batch at which none larger is tried


def run(arguments: Namespace) -> int:
    """Writes the file of features; 3 if some images could not be used."""
    out = Path(arguments.out)
    check_target(out, is_folder=False, error=InputError)
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
        skipped, rows, rate = embed(embedder, sources, out, batch_size=arguments.batch_size, force=arguments.force)
    print(f"{rows} images, {', '.join(embedder.names)}: {shown(str(out))} ({rate:.1f} images/s)")
    if skipped:
        print(f"{skipped} images could not be used: {shown(str(_skipped_file(out)))}", file=sys.stderr)
    return 3 if skipped else 0


def embed(
    embedder: Embedder, sources: Sequence[ImageSource], out: Path, *, batch_size: int | None = None, force: bool = False
) -> tuple[int, int, float]:
    """Computes the features of images and writes them to a file that `vitriad.feature_files` can read.

    Shards are kept in a folder beside the file until all are there. The same call finds them and goes on; what comes
    out is the same to the byte, however often it was stopped.

    Args:
        out: .npz, .npy or .parquet. Images that cannot be used stand in OUT.skipped.jsonl, with the reason.
        batch_size: images at a time; None for what is fastest here.
        force: replace what is there, and begin anew where an interrupted run had other settings.

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
    plan = found or {**asked, "called": origin.model, **_sizes(embedder, batch_size)}
    origin = origin._replace(model=plan["called"])  # one model has several names, and the file is the same to the byte
    if found is None:
        write_file(parts / "run.json", json.dumps(plan, indent=1) + "\n", error=InputError)
    start, before = time.monotonic(), 0
    starts = range(0, len(sources), plan["shard"])
    shards = [parts / f"{number:05}.npz" for number in range(len(starts))]
    with tqdm(total=len(sources), unit="image", disable=not sys.stderr.isatty(), file=sys.stderr) as progress:
        for first, shard in zip(starts, shards, strict=True):
            some = sources[first : first + plan["shard"]]
            if shard.exists():
                before += len(some)
                progress.update(len(some))
            else:
                _make_shard(embedder, some, shard, plan["batch"], progress)
    rate = (len(sources) - before) / max(time.monotonic() - start, 1e-9)
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


def _sizes(embedder: Embedder, batch_size: int | None) -> dict[str, int]:
    """Images of a batch and of a shard."""
    batch = batch_size or fastest_batch(embedder)
    one = embedder({"pixel_values": _zeros(embedder, batch)})
    size = sum(array.nbytes for array in one.values()) // batch
    return {"batch": batch, "shard": max(1, min(_SHARD_IMAGES, _SHARD_BYTES // max(size, 1)) // batch) * batch}


def fastest_batch(embedder: Embedder) -> int:
    """How many images at a time take the least time for each, by trying; the smaller one where it hardly matters."""
    best, least = 1, np.inf
    for batch in _BATCHES:
        pixels = _zeros(embedder, batch)
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


def _zeros(embedder: Embedder, batch: int) -> Array:
    return np.zeros((batch, embedder.config.num_channels, *embedder.size), embedder.pixel_dtype)


# --- one shard -------------------------------------------------------------------------------------------------------


def _make_shard(embedder: Embedder, sources: Sequence[ImageSource], shard: Path, batch: int, progress: Any) -> None:
    """Computes one shard and writes it, after the list of what it leaves out."""
    names, skipped, waiting, pieces = [], [], [], []
    for source, pixels in decoded(sources, embedder.read, 2 * batch):
        name = source.name.encode("utf-8", "backslashreplace").decode()  # bytes that are no text are escaped
        if isinstance(pixels, ImageError):
            skipped.append({"name": name, "error": str(pixels)})
            tqdm.write(f"vitriad: skipped: {pixels}", file=sys.stderr)
        else:
            names.append(name)
            waiting.append(pixels)
        if len(waiting) == batch:
            pieces.append(_features(embedder, waiting, batch))
            waiting.clear()
        progress.update()
    if waiting:
        pieces.append(_features(embedder, waiting, batch))
    columns = {column: np.concatenate([piece[column] for piece in pieces]) for column in embedder.names if pieces}
    write_file(shard.with_suffix(".skipped.json"), json.dumps(skipped), error=InputError)
    write_shard(shard, {NAMES: np.array(names, str), **columns})


def _features(embedder: Embedder, pixels: Sequence[Array], batch: int) -> dict[str, Array]:
    """The features of at most one batch. It is filled up: one shape is one program, and rounds alike in every run."""
    full = np.stack([*pixels, *[pixels[-1]] * (batch - len(pixels))])
    return {name: array[: len(pixels)] for name, array in embedder({"pixel_values": full}).items()}


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
