"""What `flax.serialization.to_bytes` wrote: nested maps, and arrays of a type that Flax adds to MessagePack.

The usual library copies every array while it reads; here an array stays where it is in the file. Of plain values and
lists, as in a training state, only name and kind are kept. The state of an optimiser is skipped: its moments have the
same names as the parameters.

Source: the MessagePack specification; flax 0.12.8, extension types 1: (shape, dtype name, data), 2: a complex number,
3: a NumPy number; optax 0.2.8, names of states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_core.errors import CheckpointError
from vit_core.files.arrays import DTYPES, LazyArray, array_in_file, raw_bytes
from vit_core.limits import Limits
from vit_core.plain_values import short

_DTYPES = {dtype.name: dtype for dtype in DTYPES.values()}
_ARRAY, _NUMBERS = 1, (2, 3)  # Flax's extension types
_STATES = ("opt_state", "optimizer_state", "mu", "nu", "trace")  # keys of an optimiser's state, and of moments in it
_MOST = 3  # values for each tensor that there may be

# First byte -> kind of value, and bytes of the length (or of the number) that follows it.
_SIZED = {
    **dict.fromkeys(range(0xD4, 0xD9), ("ext", 0)),
    **{0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)},
    **{0xDE: ("map", 2), 0xDF: ("map", 4), 0xDC: ("list", 2), 0xDD: ("list", 4)},
    **{0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4)},
    **{0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4)},
    **{0xCC: ("number", 1), 0xCD: ("number", 2), 0xCE: ("number", 4), 0xCF: ("number", 8)},
}
# First byte of other plain values -> kind, and bytes of the value.
_PLAIN = {
    **{0xC0: ("None", 0), 0xC2: ("bool", 0), 0xC3: ("bool", 0), 0xCA: ("float", 4), 0xCB: ("float", 8)},
    **{0xD0: ("int", 1), 0xD1: ("int", 2), 0xD2: ("int", 4), 0xD3: ("int", 8)},
    **dict.fromkeys(range(0xE0, 0x100), ("int", 0)),
}


def is_one(start: bytes, size: int) -> bool:
    """Whether a file is MessagePack, by its first bytes; not so if they can be the length of a safetensors header."""
    first = start[0]
    return (0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF) and int.from_bytes(start[:8], "little") > size - 8


def read(path: Path, content: Any, limits: Limits) -> tuple[dict[str, LazyArray], dict[str, str]]:
    """The arrays of a file by name, the keys on the way to each joined by dots; and what other values are, by name.

    Raises:
        CheckpointError: anything but nested maps with arrays in them, or damaged.
    """
    walker = _Walker(path, content, limits)
    walker.collect("", 0)
    if walker.position != len(content):
        raise CheckpointError(f"{path}: {len(content) - walker.position} bytes behind the end of the weights.")
    if not walker.found:
        raise CheckpointError(f"{path}: no arrays in it.")
    return walker.found, walker.others


class _Head(NamedTuple):
    kind: str
    length: int


class _Walker:
    """Reads values one after another."""

    def __init__(self, path: Path, content: Any, limits: Limits) -> None:
        self.path, self.content, self.limits, self.position = path, content, limits, 0
        self.name = ""  # of the value at hand
        self.values = 0  # seen so far
        self.found: dict[str, LazyArray] = {}
        self.others: dict[str, str] = {}

    def collect(self, name: str, depth: int) -> None:
        """Adds what the value at hand is, or holds."""
        self.name = name
        self._count()
        head = self._head()
        if head.kind == "map" and depth <= self.limits.json_depth:
            self._collect_map(name, head.length, depth)
        elif depth == 0 or head.kind == "map":
            raise self._bad(f"{short(name)}: expected nested maps of arrays, as Flax saves parameters, got {head.kind}")
        elif name in self.found or name in self.others:
            raise self._bad(f"{short(name)} is there under two keys")
        elif head.kind == "ext" and self._code() not in _NUMBERS:
            self.found[name] = self._array(name, head.length)
        else:
            self.others[name] = "a NumPy number" if head.kind == "ext" else head.kind
            self._pass(head)
        if len(self.found) > self.limits.tensors:
            raise self._bad(f"more tensors than {self.limits.bound('tensors')}")

    def _collect_map(self, name: str, length: int, depth: int) -> None:
        keys = set()
        for _ in range(length):
            key = self._value("text")
            if key in keys or "__msgpack_chunked_array__" in key:
                raise self._bad(f"{short(name)}: the key {short(key)} is there twice, or marks an array in pieces")
            keys.add(key)
            if key in _STATES:
                self._pass(self._head())
            else:
                self.collect(f"{name}.{key}" if name else key, depth + 1)

    def _pass(self, head: _Head) -> None:
        """Passes over what follows the beginning of a value, with all that is in it."""
        waiting = 1
        while True:
            waiting += {"map": 2, "list": 1}.get(head.kind, 0) * head.length - 1
            if head.kind in ("text", "bytes", "ext"):
                self._move(head.length + (head.kind == "ext"))
            if not waiting:
                return
            self._count()
            head = self._head()

    def _count(self) -> None:
        self.values += 1
        if self.values > _MOST * self.limits.tensors:
            raise self._bad(f"more values than {self.limits.bound('tensors')} would need")

    def _code(self) -> int:
        """The type of the extension at hand."""
        return int.from_bytes(bytes(self.content[self.position : self.position + 1]), "little")

    def _array(self, name: str, length: int) -> LazyArray:
        code = self._take(1)[0]
        end = self.position + length
        parts = self._head()
        if code != _ARRAY or parts != _Head("list", 3):
            raise self._bad(f"{short(name)}: expected an array of Flax, got extension type {code}")
        sides = self._head()
        if sides.kind != "list" or sides.length > self.limits.rank:
            raise self._bad(f"{short(name)}: shape: expected at most {self.limits.bound('rank')}")
        shape = tuple(self._value("number") for _ in range(sides.length))
        dtype = _DTYPES.get(text := self._value("text"))
        data = self._head()
        if dtype is None:
            raise self._bad(f"{short(name)}: dtype: expected one of {', '.join(_DTYPES)}, got {short(text)}")
        size = math.prod(shape) * dtype.itemsize
        start = self.position
        if data == _Head("bytes", size) and end == start + size > len(self.content):
            raise self._cut(size)
        if data != _Head("bytes", size) or start + size != end:
            raise self._bad(f"{short(name)}: {shape} {dtype} takes {size} bytes, there are {data.length}")
        self.position = end
        return array_in_file(self.content, dtype, shape, start)

    def _value(self, kind: str) -> Any:
        head = self._head()
        if head.kind != kind:
            raise self._bad(f"expected {kind}, got {head.kind}")
        if kind == "number":
            return head.length
        try:
            return self._take(head.length).decode("utf-8")
        except UnicodeDecodeError:
            raise self._bad("a name that is not UTF-8") from None

    def _head(self) -> _Head:
        byte = self._take(1)[0]
        if byte < 0x80:
            return _Head("number", byte)
        for low, high, kind in ((0x80, 0x8F, "map"), (0x90, 0x9F, "list"), (0xA0, 0xBF, "text")):
            if low <= byte <= high:
                return _Head(kind, byte - low)
        if byte in _PLAIN:
            kind, size = _PLAIN[byte]
            self._move(size)
            return _Head(kind, 0)
        if byte not in _SIZED:
            raise self._bad(f"a value of the kind {byte:#x}, which weights do not have")
        kind, size = _SIZED[byte]
        return _Head(kind, int.from_bytes(self._take(size), "big") if size else 1 << (byte - 0xD4))

    def _take(self, size: int) -> bytes:
        self._move(size)
        return bytes(self.content[self.position - size : self.position])

    def _move(self, size: int) -> None:
        if self.position + size > len(self.content):
            raise self._cut(size)
        self.position += size

    def _cut(self, size: int) -> CheckpointError:
        there = len(self.content) - self.position
        at = f"in {short(self.name)}" if self.name else "before the first tensor"
        return self._bad(
            f"the file ends {at}: {size} bytes expected, {there} there. It was cut: fetch or save it again"
        )

    def _bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: at byte {self.position}: {what}.")


def serialised(tensors: Mapping[str, LazyArray], advance: Callable[[int], Any]) -> Iterator[Any]:
    """The bytes that `flax.serialization.to_bytes` makes of tensors, piece by piece; dots in names make nested maps.

    Args:
        advance: called with the bytes of every tensor that is done with.
    """
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *keys, last = name.split(".")
        branch = tree
        for key in keys:
            branch = branch.setdefault(key, {})
        branch[last] = tensor
    yield from _pieces(tree, advance)


def _pieces(node: Any, advance: Callable[[int], Any]) -> Iterator[Any]:
    """The bytes of a map or an array."""
    if isinstance(node, LazyArray):
        shape = _packed(0x90, 0xDC, len(node.shape)) + b"".join(map(_packed_number, node.shape))
        inner = b"\x93" + shape + _packed_text(node.dtype.name) + _sized(0xC4, node.nbytes)
        size = len(inner) + node.nbytes
        fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}  # sizes that the first byte says
        yield (bytes([fixed[size]]) if size in fixed else _sized(0xC7, size)) + b"\x01" + inner
        yield raw_bytes(node)
        advance(node.nbytes)
        return
    yield _packed(0x80, 0xDE, len(node))
    for key, value in node.items():
        yield _packed_text(key)
        yield from _pieces(value, advance)


def _sized(first: int, size: int) -> bytes:
    """A size of one, two or four bytes, behind a byte that says how many."""
    return next(bytes([first + i]) + size.to_bytes(1 << i, "big") for i in range(3) if size < 1 << (8 << i))


def _packed(small: int, large: int, count: int) -> bytes:
    return bytes([small | count]) if count < 16 else bytes([large]) + count.to_bytes(2, "big")


def _packed_number(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else _sized(0xCC, number)


def _packed_text(text: str) -> bytes:
    data = text.encode("ascii")
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else _sized(0xD9, len(data))) + data
