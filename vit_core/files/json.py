"""JSON files people hand us: read with limits, written the way transformers writes them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_core.errors import MissingFileError, VitError
from vit_core.files.kinds import JSON, kind_of
from vit_core.files.links import followed
from vit_core.limits import LIMITS, Limits, check_limits
from vit_core.plain_values import short


def read_json(
    path: Path, *, limit: str, error: type[VitError], limits: Limits = LIMITS, within: bool = False
) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: a regular file; pipes and devices are refused before they can block.
        limit: the field of `limits` that bounds its size.
        error: class of the error for a file that is there but unusable.
        limits: bounds on the size and on the nesting of objects and arrays.
        within: whether the file was found in a checkpoint, by its usual name. It must then not be a link that leads out
            of the checkpoint. A file that the user named may be a link to anywhere.

    Raises:
        MissingFileError: no such file.
        UnsafeFileError: a link that leads out.
        error: not a regular file, too large, not UTF-8, not JSON, duplicate keys, too deep, or not an object.
    """
    check_limits(limits)
    return _parsed(str(path), _read_text(Path(path), limit, error, limits, within), error, limits)


def check_text(text: str, *, what: str, limit: str, error: type[VitError]) -> str:
    """`text`, if `read_json` reads it from a file with the default limits: what is saved has to load again.

    Args:
        text: what will be written.
        what: name of the file, for messages.
        limit: the field of `LIMITS` that bounds its size.
        error: class of the error.

    Raises:
        error: too large, too deep, duplicate keys (1 and "1" of a dict), or not an object.
    """
    if (found := len(text.encode("utf-8"))) > (largest := getattr(LIMITS, limit)):
        raise error(f"{what}: {found} bytes, above the limit of {largest}, so that no load would read it.")
    _parsed(what, text, error, LIMITS)
    return text


def _parsed(path: str, text: str, error: type[VitError], limits: Limits) -> dict[str, Any]:
    """The object in the text of a JSON file."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for key, value in pairs:
            if key in keys:
                raise error(f"{path}: the key {short(key)} stands there twice; which one is meant? Remove one.")
            keys[key] = value
        return keys

    too_deep = error(f"{path}: nested deeper than {limits.bound('json_depth')}.")
    try:
        value = json.loads(text, object_pairs_hook=unique)
        if _depth(value) > limits.json_depth:
            raise too_deep
    except RecursionError:
        raise too_deep from None
    except error:
        raise
    except ValueError as problem:  # JSONDecodeError, or an int of thousands of digits
        kind = kind_of(text[:512].encode())
        if kind and kind.name != JSON:
            raise error(f"{path}: not valid JSON, but {kind.name}.\n{kind.advice}.") from None
        raise error(f"{path}: not valid JSON: {problem}.") from None
    if not isinstance(value, dict):
        raise error(f"{path}: expected a JSON object, got {type(value).__name__}.")
    return value


def json_text(value: object) -> str:
    """`value` as JSON text: indented by two, keys sorted, a newline at the end (the layout of transformers)."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _read_text(path: Path, limit: str, error: type[VitError], limits: Limits, within: bool) -> str:
    largest: int = getattr(limits, limit)
    try:
        target = followed(path) if within else path
        if not stat.S_ISREG(os.stat(target).st_mode):  # opening a device can have effects
            raise error(f"{path}: expected a regular file.")
        file = open(target, "rb", opener=_open_at_once)  # noqa: SIM115  # closed below
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file.") from None
    except (OSError, ValueError) as problem:
        if isinstance(problem, VitError):
            raise
        raise error(f"{path}: cannot be opened: {getattr(problem, 'strerror', problem)}.") from None
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path}: expected a regular file.")
        if found.st_size > largest:
            raise error(f"{path}: {found.st_size} bytes, above {limits.bound(limit)}.")
        content = file.read(found.st_size + 1)  # not up to the limit: that much memory would be taken at once
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: expected UTF-8 text, got other bytes at position {problem.start}.") from None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer does not block


def _depth(value: object) -> int:
    """Levels of objects and arrays in a parsed value; the parser has bounded the recursion already."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(_depth, children), default=0)
