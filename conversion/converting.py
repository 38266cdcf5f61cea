"""Converts a checkpoint into another dialect, tensor by tensor, so that neither is in memory as a whole."""

from __future__ import annotations

import os
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.detecting import Source, lone_checkpoint
from conversion.dialect import Target, Tensors
from conversion.dialects import targets, written
from conversion.families import Form, form_of
from conversion.loading import plan
from conversion.processors import PREPROCESSOR_NAME, Found, find_processor
from conversion.report import Report, report_of
from conversion.saving import written_config
from conversion.writing import WRITERS, expressed
from vit_core.config import CONFIG_NAME, PretrainedConfig
from vit_core.errors import CheckpointError, ConfigError, InputError, reading
from vit_core.files.atomic_folder import replacing_file
from vit_core.files.json import check_text, json_text
from vit_core.files.saving import progress, replace_folder, replaced_weights, save_folder
from vit_core.files.targets import check_target
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import name_list


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    to: str = "hf",
    cls: str | type | None = None,
    force: bool = False,
    dry_run: bool = False,
    max_shard_size: int | str = "5GB",
    allow: Collection[str] = (),
    **options: Any,
) -> Report:
    """Writes a checkpoint in another dialect. Nothing is lost silently, and no framework is needed.

    Args:
        src: folder, "owner/name" on the hub, or a weight file of any dialect.
        dst: folder, or for the dialects "google", "torchvision" and "mae" a file; replaced as a whole.
        to: "hf", "hf_tf", "hf_flax", "timm", "google", "torchvision" or "mae".
        cls: class to read it for; None for the one whose weights it holds.
        force: replace what is there; of a folder, the weights that a load could take for the new ones, whoever wrote
            them. Its other files are kept.
        dry_run: do everything but write.
        max_shard_size: largest weight file, of the dialect "hf".
        allow: what may be left out although outputs change: "numerics", "pre_logits", "distillation".
        **options: as for `conversion.load`, `adapt` too: a patch projection for other images.

    Returns:
        what was done, or would be.

    Raises:
        CheckpointError: the dialect cannot express the model, or something is there already.
        InputError, ConfigError: as `conversion.load`.
    """
    if to not in targets():
        raise InputError(f"to: expected one of {', '.join(targets())}, got {to!r}.")
    dialect, target, dst = written()[to], targets()[to], Path(dst)
    _check_destination(dst, to, target, force)
    source, config, model, fitted = plan(src, cls=cls, allow=allow, **options)
    tensors, notes = expressed(dialect, target, model, config, fitted.tensors, allow)
    also = [] if target.file is None else lone_checkpoint(dst)
    old = [] if target.file is None else replaced_weights(dst, also=also)
    notes += [f"{'to be ' * dry_run}replaced in {dst}: {name_list(old)}"] if old else []
    found = _processor(source, config, options.get("limits") or LIMITS)
    notes += _said_of_images(found, target, dst)
    done = "nothing written" if dry_run else f"written as {to!r}: {dst}"
    report = report_of(source, config, model, fitted)
    report = replace(report, notes=(*report.notes, *notes, done))
    if dry_run:
        return report
    released = {name: _releasing(tensor, source) for name, tensor in tensors.items()}
    if target.file is None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        with replacing_file(dst, error=CheckpointError, size=size) as new, progress(size) as advance:
            WRITERS[target.container](new, released, target.scopes.get(model, ""), advance)
        return report
    origin = f"{config.name_or_path}@{config.hub_commit}" if config.hub_commit else None
    form = form_of(config, model, fitted.tensors) if dialect.is_canonical else None
    files = _files(target, config, model, tensors, found, form)
    folder: dict[str, Any] = {"files": files, "also": also, "source": origin}
    if dialect.is_canonical:
        save_folder(dst, tensors=released, max_shard_size=max_shard_size, **folder)
    else:
        _write_folder(dst, target, released, model, **folder)
    return report


def _processor(source: Source, config: Any, limits: Limits) -> Found:
    """The image processor to carry: none that makes other channels than the model has, after `adapt="channels"`."""
    found = find_processor(source, config, limits)
    mean = found.processor.image_mean if found.processor else None
    if not isinstance(mean, list) or len(mean) in (1, config.num_channels):
        return found
    return Found(None, f"the one of {source.where} is for {len(mean)} channels")


def _said_of_images(found: Found, target: Target, dst: Path) -> list[str]:
    """What the report says of the image processor."""
    if target.file is None:
        return ["image processor: none, the file has no place for one"] if found.processor else []
    if found.processor:
        return [f"image processor: by {found.said}"] if found.said else []
    stays = f"; {PREPROCESSOR_NAME} of what was there stays" if os.path.lexists(dst / PREPROCESSOR_NAME) else ""
    return [
        f"image processor: none, {found.said}{stays}; ViTImageProcessor(image_mean=..., image_std=...)"
        f".save_pretrained({str(dst)!r}) adds one"
    ]


def _check_destination(dst: Path, to: str, target: Target, force: bool) -> None:
    if target.file is None and dst.suffix != target.suffix:
        raise InputError(f"{dst}: expected the name of a {target.suffix} file, as {to!r} has it.")
    check_target(dst, is_folder=target.file is not None, error=CheckpointError)
    with reading(dst):
        is_taken = any(dst.iterdir()) if target.file is not None and dst.is_dir() else os.path.lexists(dst)
    if is_taken and not force:
        raise CheckpointError(f"{dst}: something is there already.\nforce=True (--force) replaces it.")


def _releasing(tensor: Any, source: Source) -> Any:
    """A tensor that first releases the pages of the mapped source read so far: each is read once."""

    def read() -> Any:
        source.weights.release()
        return tensor.read()

    return replace(tensor, read=read)


def _write_folder(dst: Path, target: Target, tensors: Tensors, model: str, **options: Any) -> None:
    file = str(target.file)
    size = sum(tensor.nbytes for tensor in tensors.values())

    def write(new: Path) -> dict[str, Any]:
        with progress(size) as advance:
            return {file: WRITERS[target.container](new / file, tensors, target.scopes.get(model, ""), advance)}

    replace_folder(dst, write, size=size, **options)


def _files(
    target: Target, config: PretrainedConfig, model: str, tensors: Tensors, found: Found, form: Form | None
) -> dict[str, str]:
    """The JSON files of a folder."""
    processor = {PREPROCESSOR_NAME: found.processor.to_json_string()} if found.processor else {}
    if target.config is not None:
        text = json_text(target.config(config, model, found.processor))
        return {CONFIG_NAME: check_text(text, what=CONFIG_NAME, limit="config_bytes", error=ConfigError), **processor}
    said, dtype = deepcopy(config), next(iter(tensors.values())).dtype.name
    if target.activations is not None:
        said.hidden_act = target.activations[config.hidden_act]
    return {CONFIG_NAME: written_config(said, model, dtype, form), **processor}
