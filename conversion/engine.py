"""From a dialect's names to canonical ones, and from what a file holds to exactly what a model class needs.

Both are driven by tables: the rows of a dialect (`conversion.tables`) and the parameters of a class
(`vit_core.parameters`). Names and shapes are settled, and all problems reported at once, before any data is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from conversion.layouts import to_canonical
from vit_core.checkpoint import check_finite
from vit_core.errors import CheckpointError
from vit_core.parameters import BASE_PREFIX, Parameter
from vit_core.positions import resize_table
from vit_core.tensors import FLOAT_DTYPES

Array = np.ndarray[Any, np.dtype[Any]]
Grid = tuple[int, int]

# What training tools put in front of every name; taken off only where a name means nothing with it.
WRAPPERS = ("module.", "_orig_mod.", "model.")
_NESTED = 3  # at most so many of them
# Parts that a file may lack, or have although the class does not. Heads stand beside the encoder, never inside it.
HEADS = ("classifier.", "decoder.")
EXCHANGEABLE = (*HEADS, "pooler.", "embeddings.mask_token")


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first names of a list, fit for a message whatever a file called them."""
    shown = [name if name.isprintable() and len(name) <= 160 else f"{name[:80]!r}…" for name in names[:most]]
    return (", ".join(shown) or "none") + (f" and {len(names) - most} more" if len(names) > most else "")


class Dialect(NamedTuple):
    """How one family of programs names and lays out the parameters.

    Attributes:
        name: what it is called here.
        rows: template of a canonical name -> every template the dialect has for it.
        convention: its layout, see `conversion.layouts`.
    """

    name: str
    rows: Mapping[str, Sequence[str]]
    convention: str


def canonical_names(where: str, names: Iterable[str], dialect: Dialect) -> tuple[dict[str, str], list[str]]:
    """Understands the names of a file.

    Returns:
        canonical name (with the prefix where the file has it) -> name in the file, and the names that mean nothing.

    Raises:
        CheckpointError: two names mean the same parameter.
    """
    spellings = {spelling: canonical for canonical, row in dialect.rows.items() for spelling in row}
    found: dict[str, tuple[str, str]] = {}  # keyed without the prefix
    unexplained = []
    for name in names:
        canonical = _canonical(name, spellings)
        if canonical is None:
            unexplained.append(name)
            continue
        bare = canonical.removeprefix(BASE_PREFIX)
        if bare in found:
            both = listed([found[bare][1], name])
            raise CheckpointError(f"{where}: two names for the same parameter: {both}.\nRemove one of them.")
        found[bare] = (canonical, name)
    return dict(found.values()), unexplained


def _canonical(name: str, spellings: Mapping[str, str]) -> str | None:
    """The canonical name, with the prefix where `name` has it; None if it means nothing."""
    for _ in range(1 + _NESTED):
        bare = name.removeprefix(BASE_PREFIX)
        template, number = (bare, "") if bare in spellings else _template(bare)
        canonical = spellings.get(template, "").replace("{i}", number)
        if canonical and (bare == name or not canonical.startswith(HEADS)):
            return name.removesuffix(bare) + canonical
        wrapper = next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None)
        if wrapper is None:
            break
        name = name.removeprefix(wrapper)
    return None


def _template(bare: str) -> tuple[str, str]:
    """A name with the number of its layer taken out, and that number."""
    number = next((word for word in bare.split(".") if word.isdecimal()), "")
    return bare.replace(f".{number}.", ".{i}.", 1), number


class Stored(NamedTuple):
    """The tensors of a file under their canonical names.

    Attributes:
        where: the file or folder, for messages.
        arrays: canonical name, with the prefix where the file has it -> array as stored.
        unexplained: names that mean nothing.
        grid: (rows, columns) of patches that the position tables are for; None where no configuration says so.
        convention: layout of the arrays.
    """

    where: str
    arrays: Mapping[str, Array]
    unexplained: Sequence[str]
    grid: Grid | None
    convention: str


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


class Fitted(NamedTuple):
    """What became of the tensors of a file: names of the class, those of extra tensors as in the file.

    Attributes:
        tensors: what the class gets, in table order.
        missing: parameters that are not in the file.
        mismatched: parameters that are there in another shape.
        dropped: tensors of parts that the class does not have.
        unexplained: tensors that mean nothing to the class.
        resized: position tables that were brought to another grid.
    """

    tensors: dict[str, Array]
    missing: list[str]
    mismatched: list[str]
    dropped: list[str]
    unexplained: list[str]
    resized: list[str]


def fit(stored: Stored, wanted: Wanted) -> Fitted:
    """Exactly the tensors that a class needs, out of those that a file holds. Nothing is ever reshaped.

    Raises:
        CheckpointError: tensors are missing, mismatched, unexplained, of no floating dtype or not finite.
    """
    table = wanted.table
    sources, dropped, strange = _match(stored.arrays, table)
    found = {
        name: to_canonical(stored.arrays[sources[name]], row.kind, stored.convention)
        for name, row in table.items()
        if name in sources
    }
    resized = [name for name in found if _has_other_grid(table[name], found[name], stored.grid, wanted.grid)]
    fitting = {*resized, *(name for name in found if found[name].shape == table[name].shape)}
    fitted = Fitted(
        tensors={},
        missing=[name for name in table if name not in found],
        mismatched=[name for name in found if name not in fitting],
        dropped=dropped,
        unexplained=[*stored.unexplained, *strange],
        resized=resized,
    )
    _check(stored, wanted, found, fitted)
    tensors = {name: _value(name, array, stored, wanted) for name, array in found.items() if name in fitting}
    return fitted._replace(tensors=tensors)


def _match(names: Iterable[str], table: Mapping[str, Parameter]) -> tuple[dict[str, str], list[str], list[str]]:
    """Name in the class -> name in the file; names of parts that the class does without; names it has no place for.

    The encoder's names have the prefix in classes with a head, and none in those without. No program writes a head
    beside an encoder without the prefix, so such a head is not taken.
    """
    has_prefix = any(name.startswith(BASE_PREFIX) for name in names)
    wants_prefix = any(name.startswith(BASE_PREFIX) for name in table)
    parts = {_template(name.removeprefix(BASE_PREFIX))[0] for name in table}
    sources: dict[str, str] = {}
    dropped, strange = [], []
    for name in names:
        bare = name.removeprefix(BASE_PREFIX)
        is_head = bare.startswith(HEADS)
        wanted = BASE_PREFIX + bare if wants_prefix and not is_head else bare
        if wanted in table and (has_prefix or not is_head):
            sources[wanted] = name
        elif bare.startswith(EXCHANGEABLE) and _template(bare)[0] not in parts:
            dropped.append(name)
        else:
            strange.append(name)
    return sources, dropped, strange


def _has_other_grid(row: Parameter, array: Array, stored: Grid | None, wanted: Grid) -> bool:
    """Whether a tensor is a sound position table of another grid."""
    if row.kind != "positions" or stored is None or stored == wanted:
        return False
    return bool(array.shape == (1, 1 + stored[0] * stored[1], row.shape[-1]))


def _check(stored: Stored, wanted: Wanted, found: Mapping[str, Array], fitted: Fitted) -> None:
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
    if lines := [f"{len(names)} {what}: {listed(names)}" for what, names in problems.items() if names]:
        raise CheckpointError(
            f"{stored.where} does not fit {wanted.model}:\n{'; '.join(lines)}.\n"
            "Check config.json; ignore_mismatched_sizes=True re-initialises other shapes, strict=False all of these."
        )


def _mismatch(row: Parameter, array: Array, grid: Grid | None) -> str:
    text = f"{row.name} {array.shape} instead of {row.shape}"
    if row.kind == "positions" and grid is not None:
        text += f" (config.json says 1 + {grid[0]} x {grid[1]} tokens)"
    return text


def _value(name: str, array: Array, stored: Stored, wanted: Wanted) -> Array:
    """The array a class gets: finite, of its grid and in its dtype; the stored one where that fits already."""
    if not wanted.allow_nonfinite:
        check_finite(stored.where, name, array)
    if stored.grid and _has_other_grid(wanted.table[name], array, stored.grid, wanted.grid):
        array = resize_table(array, stored.grid, wanted.grid, wanted.position_kernel)
    if wanted.dtype is None or array.dtype.name == wanted.dtype:
        return array
    with np.errstate(over="ignore"):  # looked for below
        cast = array.astype(FLOAT_DTYPES[wanted.dtype])
    if not wanted.allow_nonfinite and not np.isfinite(cast).all():
        raise CheckpointError(
            f"{stored.where}: {name}: values up to {float(np.abs(array).max()):.3g} do not fit into {wanted.dtype}.\n"
            f"Load it as it is stored: dtype={array.dtype.name!r}."
        )
    return cast
