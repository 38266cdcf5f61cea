"""From the tensors of a file to exactly what a model class needs.

Driven by the parameters of the class (`vit_core.parameters`): names and shapes are settled, and all problems are
reported at once, before any data is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from conversion.adapting import PIXEL_HEADS, adapted, advice, needed, said
from conversion.naming import EXCHANGEABLE, HEADS, template
from vit_core.errors import CheckpointError, SizeMismatchError
from vit_core.files.arrays import LazyArray, check_finite
from vit_core.parameters import BASE_PREFIX, Parameter
from vit_core.plain_values import name_list
from vit_core.positions import resize_table
from vit_core.tensors import FLOAT_DTYPES, Array

_BOTH = (  # what such a head reads
    "class token and mean of the patches, as Dinov2's: use_mean_pooling=True, norm_before_pooling=True and "
    "pool_class_token=True read it"
)

Grid = tuple[int, int]


class Stored(NamedTuple):
    """The tensors of a file under their canonical names.

    Attributes:
        where: the file or folder, for messages.
        arrays: canonical name, with the prefix where the file has it -> tensor in the canonical layout.
        unexplained: names that mean nothing.
        grid: (rows, columns) of patches that the position tables are for; None where nothing says so.
    """

    where: str
    arrays: Mapping[str, LazyArray]
    unexplained: Sequence[str]
    grid: Grid | None


class Wanted(NamedTuple):
    """What a model class needs of a file; the switches are those of `conversion.load_pretrained`.

    Attributes:
        model: name of the class, for messages.
        table: its parameters.
        grid: (rows, columns) of its patches.
        dtype: of every tensor; None keeps the stored ones.
    """

    model: str
    table: Mapping[str, Parameter]
    grid: Grid
    dtype: str | None = None
    strict: bool = True
    ignore_mismatched_sizes: bool = False
    position_kernel: str = "hf"
    allow_nonfinite: bool = False
    adapt: Collection[str] = ()


class Fitted(NamedTuple):
    """What happened to the tensors of a file: names of the class, and for extra tensors those in the file.

    Attributes:
        tensors: what the class gets, in table order; checked, resized and cast when read.
        missing: parameters that are not in the file.
        mismatched: parameters that are there in another shape.
        dropped: tensors of parts that the class does not have.
        unexplained: tensors that mean nothing to the class.
        resized: position tables that were brought to another grid.
        adapted: what was done to the patch projection, a line each.
    """

    tensors: dict[str, LazyArray]
    missing: list[str]
    mismatched: list[str]
    dropped: list[str]
    unexplained: list[str]
    resized: list[str]
    adapted: Sequence[str] = ()


def fit(stored: Stored, wanted: Wanted) -> Fitted:
    """Exactly the tensors that a class needs, out of those that a file holds. Nothing is ever reshaped.

    The one exception is the patch projection, where `adapt` asks for it. A head that makes pixels is then of another
    shape, even if its numbers are as many: they are of other pixels.

    Raises:
        CheckpointError: tensors are missing, mismatched (SizeMismatchError), unexplained or of no floating dtype; when
            one is read, that it is not finite or does not fit into the dtype.
    """
    table = wanted.table
    sources, dropped, strange = _match(stored.arrays, table)
    found = {name: stored.arrays[sources[name]] for name in table if name in sources}
    resized = [name for name in found if _has_other_grid(table[name], found[name], stored.grid, wanted.grid)]
    changed = [
        name for name in found if (needs := needed(table[name], found[name].shape)) and {*needs} <= {*wanted.adapt}
    ]
    of_pixels = [name for name in found if changed and name.startswith(PIXEL_HEADS)]
    fitting = {*resized, *changed, *(name for name in found if found[name].shape == table[name].shape)}
    fitting -= {*of_pixels}
    fitted = Fitted(
        tensors={},
        missing=[name for name in table if name not in found],
        mismatched=[name for name in found if name not in fitting],
        dropped=dropped,
        unexplained=[*stored.unexplained, *strange],
        resized=resized,
        adapted=[line for name in changed for line in said(found[name].shape, table[name].shape)],
    )
    _check(stored, wanted, found, fitted)
    tensors = {name: _lazy_value(name, array, stored, wanted) for name, array in found.items() if name in fitting}
    return fitted._replace(tensors=tensors)


def _match(names: Iterable[str], table: Mapping[str, Parameter]) -> tuple[dict[str, str], list[str], list[str]]:
    """Name in the class -> name in the file; names of parts that the class can do without; names it has no place for.

    The encoder's names have the prefix in classes with a head, and none in those without. No program writes a head
    beside an encoder without the prefix, so such a head is not taken.
    """
    has_prefix = any(name.startswith(BASE_PREFIX) for name in names)
    wants_prefix = any(name.startswith(BASE_PREFIX) for name in table)
    parts = {template(name.removeprefix(BASE_PREFIX)) for name in table}
    sources: dict[str, str] = {}
    dropped, strange = [], []
    for name in names:
        bare = name.removeprefix(BASE_PREFIX)
        is_head = bare.startswith(HEADS)
        wanted = BASE_PREFIX + bare if wants_prefix and not is_head else bare
        if wanted in table and (has_prefix or not is_head):
            sources[wanted] = name
        elif bare.startswith(EXCHANGEABLE) and template(bare) not in parts:
            dropped.append(name)
        else:
            strange.append(name)
    return sources, dropped, strange


def _has_other_grid(row: Parameter, array: LazyArray | Array, stored: Grid | None, wanted: Grid) -> bool:
    """Whether a tensor is a sound position table of another grid."""
    if row.kind != "positions" or stored is None or stored == wanted:
        return False
    first = row.shape[1] - wanted[0] * wanted[1]  # the class token's row, if there is one
    return bool(array.shape == (1, first + stored[0] * stored[1], row.shape[-1]))


def _check(stored: Stored, wanted: Wanted, found: Mapping[str, LazyArray], fitted: Fitted) -> None:
    """Raises one error with every problem there is."""
    table = wanted.table
    problems: dict[str, list[str]] = {
        "of no floating dtype": [f"{n} {a.dtype}" for n, a in found.items() if a.dtype.name not in FLOAT_DTYPES]
    }
    if wanted.strict:
        problems["missing"] = [name for name in fitted.missing if table[name].part == "encoder"]
        problems["unexpected"] = [
            f"{name} (beside an encoder without '{BASE_PREFIX}')" if name in table else name
            for name in fitted.unexplained
        ]
        if not wanted.ignore_mismatched_sizes:
            problems["of another shape"] = [_mismatch(table[n], found[n], stored.grid) for n in fitted.mismatched]
    if lines := [f"{len(names)} {what}: {name_list(names)}" for what, names in problems.items() if names]:
        error = SizeMismatchError if problems.get("of another shape") else CheckpointError
        what_to_do = _advice(table, found, fitted)
        raise error(f"{stored.where} does not fit {wanted.model}:\n{'; '.join(lines)}.\n{what_to_do}")


def _advice(table: Mapping[str, Parameter], found: Mapping[str, LazyArray], fitted: Fitted) -> str:
    """What to do about tensors that do not fit: nothing that would draw most of a model at random."""
    if needs := next((needs for n in fitted.mismatched if (needs := needed(table[n], found[n].shape))), ()):
        return f"If the configuration is meant so, {advice(needs)} brings the patch projection to it."
    if fitted.adapted and any(name.startswith(PIXEL_HEADS) for name in fitted.mismatched):
        return (
            "adapt= is for what reads images, not for a head that makes pixels: load a class without it, or train it "
            "anew with ignore_mismatched_sizes=True."
        )
    drawn = sum(table[name].size for name in (*fitted.missing, *fitted.mismatched))
    if 2 * drawn > sum(row.size for row in table.values()):
        return "Most of the model would have to be drawn at random: check config.json, and that this is the right file."
    return "Check config.json; ignore_mismatched_sizes=True re-initialises other shapes, strict=False all of these."


def _mismatch(row: Parameter, array: LazyArray, grid: Grid | None) -> str:
    text = f"{row.name} {array.shape} instead of {row.shape}"
    if array.shape == row.shape:
        text = f"{row.name} (for other pixels)"
    if row.kind == "positions" and grid is not None:
        text += f" (config.json says {grid[0]} x {grid[1]} patches)"
    if row.name == "classifier.weight" and array.shape[1:] == (2 * row.shape[1],):
        return f"{text} (a head of {_BOTH})"
    if row.name == "classifier.weight" and len(array.shape) == 2 and array.shape[0] != row.shape[0]:
        text += f" (the configuration has {row.shape[0]} labels, the file {array.shape[0]} classes)"
    return text


def _lazy_value(name: str, array: LazyArray, stored: Stored, wanted: Wanted) -> LazyArray:
    dtype = array.dtype if wanted.dtype is None else np.dtype(FLOAT_DTYPES[wanted.dtype])
    return LazyArray(dtype, wanted.table[name].shape, lambda: _value(name, array.read(), stored, wanted))


def _value(name: str, array: Array, stored: Stored, wanted: Wanted) -> Array:
    """The array a class gets: finite, of its grid and in its dtype; the stored one where that fits already."""
    if not wanted.allow_nonfinite:
        check_finite(stored.where, name, array)
    if stored.grid and _has_other_grid(wanted.table[name], array, stored.grid, wanted.grid):
        array = resize_table(array, stored.grid, wanted.grid, wanted.position_kernel)
    dtype = wanted.dtype or array.dtype.name
    if needed(wanted.table[name], array.shape):
        array = adapted(array, wanted.table[name].shape)
    if array.dtype.name == dtype:
        return array
    with np.errstate(over="ignore"):  # checked below
        cast = array.astype(FLOAT_DTYPES[dtype])
    if not wanted.allow_nonfinite and not np.isfinite(cast).all():
        raise CheckpointError(
            f"{stored.where}: {name}: values up to {float(np.abs(array).max()):.3g} do not fit into {dtype}.\n"
            f"Load it as it is stored: dtype={array.dtype.name!r}."
        )
    return cast
