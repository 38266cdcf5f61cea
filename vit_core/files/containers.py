"""Weight files of every container people have, recognised by their first bytes and read without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vit_core.errors import CheckpointError, on_command_line
from vit_core.files import h5, msgpack, npz, torch
from vit_core.files.arrays import LazyArray, WeightFile, content_of
from vit_core.files.safetensors import open_file
from vit_core.files.zip import members
from vit_core.limits import LIMITS, Limits
from vit_core.plain_values import name_list, short

CONTAINERS = ("torch", "npz", "h5", "msgpack")  # what is no safetensors file, as `metadata["format"]` has it

# Where training programs put the weights beside the rest, and weights beside weights.
WRAPPERS = (
    *("state_dict", "model", "model_state", "model_state_dict", "net_state_dict", "model_weights", "weights", "params"),
    *("module", "network", "net", "backbone", "encoder"),
)
SETS = ("state_dict_ema", "model_ema", "ema", "teacher", "student", "target_encoder")


def open_any(path: Path, *, weights: str | None = None, mmap: bool = True, limits: Limits = LIMITS) -> WeightFile:
    """Opens a weight file of any container.

    Args:
        path: the file; its name says nothing about what is in it.
        weights: which of several sets of weights in it to take, such as "teacher". A word that is no key of the file is
            kept for later: it may be what the names of one set begin with.
        mmap: map the file; False copies it into memory.
        limits: bounds on headers and counts.

    Raises:
        MissingFileError: no such file.
        UnsafeFileError: it refers to other files, or asks for code to be run.
        CheckpointError: it is of no known kind, damaged, or holds several sets of weights and `weights` names none.
    """
    content = content_of(path, mmap)
    start = bytes(content[:64])
    if start.startswith(b"PK\x03\x04"):
        return _archive(path, content, weights, limits)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return WeightFile(path, {"format": "h5"}, h5.read(path, content, limits), content)
    if start.startswith(torch.MAGIC[:16]):
        return _taken(path, torch.read_legacy(path, content, limits), weights, content)
    if start[8:9] == b"{":
        return open_file(path, mmap=mmap, limits=limits)
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        raise CheckpointError(f"{path}: a pickle, but not of torch.save.\nSave it with the program that wrote it.")
    if msgpack.is_one(start, len(content)):
        tensors, others = msgpack.read(path, content, limits)
        return WeightFile(path, {"format": "msgpack"}, tensors, content, others)
    return open_file(path, mmap=mmap, limits=limits)  # which says what is wrong with it


def _archive(path: Path, content: Any, weights: str | None, limits: Limits) -> WeightFile:
    names = members(path, content, limits)
    if program := next((name for name in names if name.endswith("/constants.pkl") or "/code/" in name), None):
        raise CheckpointError(
            f"{path}: a TorchScript archive, which holds a program ({short(program)}).\n"
            "Save its weights alone: torch.save(torch.jit.load(path).state_dict(), new_path)."
        )
    if any(name.endswith("/data.pkl") for name in names):
        return _taken(path, torch.read_zip(path, content, limits), weights, content)
    if inner := names.get("model.weights.h5"):
        config = names.get("config.json")
        said = (
            {"keras": str(config.bytes(), "utf-8", "replace")} if config and config.size < limits.config_bytes else {}
        )
        return WeightFile(path, {"format": "h5", **said}, h5.read(path, inner.bytes(), limits), content)
    return WeightFile(path, {"format": "npz"}, npz.read(path, content, limits), content)


def _taken(path: Path, tree: Any, weights: str | None, content: Any) -> WeightFile:
    """The one set of weights in what a training program wrote."""
    sets = dict(_sets(tree, ""))
    if weights is not None:
        key = _key_in(tree, sets, weights)
        weights = next(iter(sets)) if key is None and len(sets) == 1 else key or weights
    if not sets:
        raise CheckpointError(f"{path}: no weights in it, only {_keys(tree)}.{_elsewhere(tree)}")
    if weights is None and len(sets) > 1:
        raise CheckpointError(
            f"{path}: several sets of weights: {', '.join(map(repr, sets))}.\n"
            f"Say which one: weights={next(iter(sets))!r} {on_command_line('--weights')}."
        )
    name = next(iter(sets)) if weights is None else weights
    if name not in sets:
        raise CheckpointError(f"{path}: no set of weights {name!r}; there are {', '.join(map(repr, sets))}.")
    return _file(path, name, sets[name], content)


def _file(path: Path, name: str, found: dict[Any, Any], content: Any) -> WeightFile:
    """One set of weights. Only tensors may be in it: no objects that are known by their name alone (`inert`)."""
    if inside := _opaque_in(found):
        key = next(key for key, value in found.items() if _opaque_in(value))
        raise CheckpointError(
            f"{path}: {name_list([str(key)])}: expected a tensor, got {inside.name}, among the weights"
            f"{f' {name!r}' if name else ''}.\nSave the weights alone, or under a key of their own: "
            "torch.save({'state_dict': model.state_dict(), …}, path)."
        )
    metadata = {"format": "torch", **({"weights": name} if name else {})}
    tensors = {key: value for key, value in found.items() if isinstance(value, LazyArray)}
    others = {key: _kind(value) for key, value in found.items() if key not in tensors and isinstance(key, str)}
    return WeightFile(path, metadata, tensors, content, others)


def _sets(tree: Any, path: str) -> list[tuple[str, dict[Any, Any]]]:
    """Every dictionary of tensors under keys that stand for weights, with the keys that lead to it."""
    if not isinstance(tree, dict):
        return []
    found = []
    for key in (*WRAPPERS, *SETS):
        if isinstance(tree.get(key), dict) and path.count(".") < 3:
            found += _sets(tree[key], f"{path}.{key}" if path else key)
    return found or ([(path, tree)] if _has_tensors(tree) else [])


def _key_in(tree: Any, sets: dict[str, dict[Any, Any]], weights: str) -> str | None:
    """The key of a set of weights that was named, or the beginning of the name that is one; a new set is added."""
    while weights:
        if weights in sets:
            return weights
        if (named := _at(tree, weights)) is not None:
            sets[weights] = named
            return weights
        weights = weights.rpartition(".")[0]
    return None


def _has_tensors(tree: Any) -> bool:
    """Whether something is a dictionary with tensors under names."""
    if not isinstance(tree, dict):
        return False
    return any(isinstance(key, str) and isinstance(value, LazyArray) for key, value in tree.items())


def _at(tree: Any, path: str) -> dict[Any, Any] | None:
    """The dictionary of tensors that a path of keys leads to; keys may have dots in them."""
    if not path:
        return tree if _has_tensors(tree) else None
    for key in [key for key in tree if isinstance(key, str)] if isinstance(tree, dict) else ():
        is_on_the_way = key and f"{path}.".startswith(f"{key}.")
        if is_on_the_way and (found := _at(tree[key], path[len(key) + 1 :])) is not None:
            return found
    return None


def _elsewhere(tree: Any) -> str:
    """Advice on `weights=`, where weights lie under keys that no known program uses."""
    items = tree.items() if isinstance(tree, dict) else ()
    found = [key for key, value in items if isinstance(key, str) and _has_tensors(value)]
    return f"\nSay where they are: weights={short(found[0])} {on_command_line('--weights')}." if found else ""


def _opaque_in(value: Any) -> torch.Opaque | None:
    """Something that is only known by name, in a value or anywhere inside it."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, torch.Opaque):
            return item
        if isinstance(item, dict | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item
    return None


def _kind(value: Any) -> str:
    """What a value is that is no tensor, with the value itself where it is short."""
    if isinstance(value, torch.Opaque):
        return value.name
    said = f" {value!r}" if isinstance(value, str | int | float) and len(repr(value)) <= 40 else ""
    return "None" if value is None else f"{type(value).__name__}{said}"


def _keys(tree: Any) -> str:
    return ", ".join(repr(key)[:40] for key in list(tree)[:10]) if isinstance(tree, dict) else type(tree).__name__
