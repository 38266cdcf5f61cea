"""Opens a checkpoint of any program: finds its files, recognises their dialect, and maps their names to ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from conversion.dialect import Dialect, Fields, Part
from conversion.dialects import DIALECTS
from conversion.folds import LOSSY, mapped, unstacked, with_prefix
from conversion.heads import shown_heads
from conversion.inference import program_of
from conversion.layouts import to_canonical
from conversion.marks import refuse_marked
from conversion.naming import HEADS, Names, canonical_names, template
from conversion.places import Opening, Place, open_place
from conversion.recognition import dropped, recognised
from conversion.relatives import refuse_type
from vit_core.errors import CheckpointError, InputError, VitError, reading
from vit_core.files.arrays import LazyArray, WeightFile, held
from vit_core.files.atomic_folder import finds_folder
from vit_core.files.containers import CONTAINERS
from vit_core.files.folders import Weights
from vit_core.files.reading import uncollected
from vit_core.files.weight_files import KERAS_HUB, taken
from vit_core.limits import LIMITS, Limits, check_limits
from vit_core.parameters import BASE_PREFIX, MODEL_CLASSES, Kind, parameter_table
from vit_core.plain_values import name_list, short
from vit_core.tensors import Array

# What safetensors files of a layout that names decide say of themselves.
_FORMATS = ("pt", "mlx", *CONTAINERS)


class Source(NamedTuple):
    """An opened checkpoint; its data is not read yet.

    Attributes:
        where: what the caller named.
        config: the object in config.json, or None where there is none.
        weights: its tensors, as stored.
        dialect: how they are named and laid out.
        names: canonical name -> name in the file.
        arrays: canonical name, with the prefix where there is a head -> tensor in the canonical layout.
        shown: fields of the configuration that follow from the stored layout, such as num_attention_heads.
        unexplained: names in the file that the dialect does not know.
        outside: names of other modules in the file, where the model is one part of it or it holds several models.
        notes: what was done, a line each.
        commit: of a hub repository.
        beside: the path of another file of the checkpoint, by name; None where there is none.
    """

    where: str
    config: dict[str, Any] | None
    weights: Weights
    dialect: Dialect
    names: dict[str, str]
    arrays: dict[str, LazyArray]
    shown: dict[str, Any]
    unexplained: list[str]
    outside: list[str]
    notes: list[str]
    commit: str | None
    beside: Callable[[str], Path | None]

    @property
    def bare(self) -> dict[str, LazyArray]:
        """`arrays` without the prefix."""
        return {name.removeprefix(BASE_PREFIX): tensor for name, tensor in self.arrays.items()}

    @property
    def has_representation(self) -> bool:
        """Whether a layer stands between class token and head, which only programs other than transformers have."""
        return self.dialect.numerics is not None and {"pooler.dense.weight", "classifier.weight"} <= self.bare.keys()


def detect(src: str | Path, **options: Any) -> str:
    """The dialect of a checkpoint, such as "hf", "timm" or "google"; see docs/reference/conversion.md.

    Args:
        src: folder, weight file, or "owner/name" on the hub.
        **options: as for `open_source`.

    Raises:
        CheckpointError: nothing readable there, or names of no known dialect.
    """
    return open_source(src, **options).dialect.name


def open_source(
    src: str | Path,
    *,
    variant: str | None = None,
    weights: str | None = None,
    allow: Collection[str] = (),
    mmap: bool = True,
    verify: bool | str = "auto",
    wait: bool = True,
    limits: Limits = LIMITS,
    **hub: Any,
) -> Source:
    """Opens a checkpoint: its configuration and the headers of its weights.

    Args:
        src: folder, weight file, or "owner/name" on the hub, of which only the files needed are fetched.
        variant: see `vit_core.files.folders.open_weights`, also for `mmap`, `verify`, `wait` and `limits`.
        weights: which of several sets of weights in a file to take, such as "teacher": a key, or what stands in front
            of names, or both with a dot between them.
        allow: what may be left out although outputs change: "distillation", "pre_logits".
        **hub: options of `vit_core.hub.download.Repository`.

    Raises:
        MissingFileError: nothing there.
        CheckpointError: the weights are unreadable, or of no known dialect.
    """
    if not isinstance(src, str | os.PathLike):
        raise InputError(f"checkpoint: expected a folder or a hub name, got {type(src).__name__}.")
    if isinstance(allow, str) or {*allow} - LOSSY.keys():
        raise InputError(f"allow: expected some of {', '.join(map(repr, LOSSY))}, got {short(allow)}.")
    check_limits(limits)
    where = str(src)
    opening = Opening(variant, weights, mmap, verify, wait, limits)
    with uncollected(), reading(where):
        return _source(where, open_place(src, opening, **hub), allow, limits, weights)


def held_source(
    where: str, tensors: Mapping[str, Array], config: dict[str, Any] | None, allow: Collection[str] = ()
) -> Source:
    """A checkpoint whose tensors the caller holds, read like the ones of a file.

    Args:
        where: for messages.
        tensors: arrays under the names of any dialect.
        config: what config.json says, or None.
        allow: as for `open_source`.

    Raises:
        CheckpointError: names of no known dialect.
    """
    weights = Weights([WeightFile(Path(where), {}, {name: held(array) for name, array in tensors.items()}, None)])
    return _source(where, Place(weights, config, False, lambda name: None, None), allow, LIMITS)


def lone_checkpoint(folder: str | Path) -> list[str]:
    """The weight file that loading a folder would take although no standard name leads to it; [] if there is none.

    Only a checkpoint that is recognised counts: a save into the folder leaves other programs' files alone.
    """
    try:
        chosen, suffix = taken({*os.listdir(folder)}) if finds_folder(folder) else ([], None)
        if suffix or len(chosen) != 1 or chosen[0] in KERAS_HUB:
            return []
        open_source(Path(folder) / chosen[0], verify=False)
    except (VitError, OSError):
        return []
    return chosen


# --- names -----------------------------------------------------------------------------------------------------------


def _source(where: str, place: Place, allow: Collection[str], limits: Limits, asked: str | None = None) -> Source:
    weights = place.weights
    if not place.is_aside:
        refuse_type(where, place.config)
    tensors = dict(weights.infos)
    for mark, single in ((mark, single) for dialect in DIALECTS for mark, single in dialect.stacked.items()):
        tensors = unstacked(tensors, mark, single, limits.layers)
    dialect, inside, outside = recognised(where, tensors, _prefix_of(weights, asked), asked)
    for file in weights.files:
        layout = file.metadata.get("format", "pt")
        if layout not in _FORMATS and layout != dialect.layout_name:
            raise CheckpointError(
                f"{file.path}: its layout is said to be {layout!r}, its names are those of {dialect.name!r}."
            )
        _refuse_others(file, dialect)
    names, unexplained = canonical_names(where, inside, dialect)
    left = {name: reason for name in (*unexplained, *outside) if (reason := dropped(name, dialect))}
    unexplained, outside = ([name for name in some if name not in left] for some in (unexplained, outside))
    refuse_marked(where, unexplained, dialect.prefix)
    shown = shown_heads(where, tensors, names, kinds()) if dialect.convention == "heads" else {}
    arrays = {name: _canonical(where, tensors, name, cell, dialect.convention) for name, cell in names.items()}
    config, notes = _config_of(place, dialect)
    notes += _left_out(dialect, inside, outside, left)
    notes += [
        f"weights: {file.metadata['weights']!r} of {file.path.name}"
        for file in weights.files
        if "weights" in file.metadata and file.metadata.get("format") == "torch"
    ]
    for fold in dialect.folds:
        notes += fold(where, arrays, allow)
    if not dialect.is_canonical:
        arrays = with_prefix(arrays, HEADS)
    return Source(
        *(where, config, weights, dialect, _stored_names(names, arrays), arrays),
        *(shown, unexplained, outside, notes, place.commit, place.beside),
    )


def _left_out(dialect: Dialect, inside: Collection[str], outside: Sequence[str], left: Mapping[str, str]) -> list[str]:
    """Notes on the prefix that was removed and on tensors that were left out, one line each; `left`: name -> reason."""
    notes = [f"prefix taken off: {name_list([dialect.prefix])} of {len(inside)} names"] if dialect.prefix else []
    notes += [f"left out, of other modules: {name_list(outside, 3)}"] if outside else []
    for reason in dict.fromkeys(left.values()):
        notes.append(f"left out, {reason}: {name_list([name for name in left if left[name] == reason], 3)}")
    return notes


def _prefix_of(weights: Weights, asked: str | None) -> str | None:
    """The prefix of names that the caller asked for, without the key that already chose a part of the container."""
    said = weights.files[0].metadata if weights.files else {}
    key = said.get("weights") if said.get("format") == "torch" else None
    if asked is None or asked == key:
        return None
    return asked.removeprefix(f"{key}.") if key else asked


def _refuse_others(file: WeightFile, dialect: Dialect) -> None:
    """Raises if the name of a parameter holds something other than a tensor: it is wrong, not missing."""
    understood = canonical_names(str(file.path), file.others, dialect)[0].values()
    if wrong := list(dict.fromkeys(cell.name if isinstance(cell, Part) else cell for cell in understood)):
        raise CheckpointError(
            f"{file.path}: {name_list(wrong[:1])}: expected a tensor, got {file.others[wrong[0]]} "
            f"({len(wrong)} such parameter{'s' if len(wrong) > 1 else ''}).\n"
            "Save the tensors alone, with the program that wrote it."
        )


def _config_of(place: Place, dialect: Dialect) -> tuple[dict[str, Any] | None, list[str]]:
    """The configuration beside the weights, and a note if it belongs to something else.

    A dialect that says enough by itself ignores config.json in two cases: no known program wrote it; or another
    program did, for the file that loading the folder would take, while the caller named a different file.
    """
    if place.config is None or dialect.numerics is None:
        return place.config, []
    program = program_of(place.config)
    if program is None:
        return None, ["config.json: of no known program, so not used"]
    if place.is_aside and program != dialect.name:
        return None, [f"config.json: of {program}, as other weights beside it, so not used for these"]
    return place.config, []


def _canonical(where: str, tensors: dict[str, LazyArray], name: str, cell: str | Part, convention: str) -> LazyArray:
    """A stored tensor, or its part, in the canonical layout."""
    tensor, third = (tensors[cell.name], cell.third) if isinstance(cell, Part) else (tensors[cell], None)
    kind = kinds().get(template(name.removeprefix(BASE_PREFIX)))
    if third is not None:
        rows, rest = divmod(tensor.shape[0] if tensor.shape else 1, 3)
        if rest:
            raise CheckpointError(f"{where}: {name}: {tensor.shape} is not queries, keys and values in a row.")
        tensor = mapped(tensor, lambda array: array[third * rows : (third + 1) * rows])
    if kind is None or (convention == "torch" and len(tensor.shape) != 2):
        return tensor
    try:
        return mapped(tensor, lambda array: to_canonical(array, kind, convention))
    except ValueError:
        raise CheckpointError(f"{where}: {name}: no sense can be made of the shape {tensor.shape}.") from None


@cache
def kinds() -> dict[str, Kind]:
    """Template of a canonical name -> kind of the tensor."""
    found: dict[str, Kind] = {}
    options: Fields = {"num_register_tokens": 1, "layerscale_value": 1.0}
    for cls, config in MODEL_CLASSES.items():
        for asked in [{}, options, {"use_mean_pooling": True}][: 1 if cls.startswith("ViTMAE") else 3]:
            if asked.get("use_mean_pooling") and cls == "ViTForMaskedImageModeling":  # which has no mean
                continue
            made = config.from_dict({"num_hidden_layers": 1, **asked})
            rows = parameter_table(made, cls, use_mask_token=True).values()
            found |= {template(row.name.removeprefix(BASE_PREFIX)): row.kind for row in rows}
    return found


def _stored_names(names: Names, arrays: Iterable[str]) -> dict[str, str]:
    """Name of a tensor, as it is called now -> in the file."""
    plain = {name: cell.name if isinstance(cell, Part) else cell for name, cell in names.items()}
    return {name: plain[bare] for name in arrays for bare in (name, name.removeprefix(BASE_PREFIX)) if bare in plain}
