"""What `torch.save` wrote, as tensors and plain values. Nothing is executed, and no framework is needed.

The format (pickle) is a program for a small stack machine. The machine here knows the instructions that build numbers,
text, lists, tuples, dictionaries and tensors. "Call this function" works only for the names in `_REBUILD`, which are
implemented below; names in `vit_core.files.inert` become placeholders; any other name is an error. Tensors stay where
they are in the file: nothing is copied.

Source: Python's own documentation of the instructions (protocols 2 to 5); torch 2.13, layout of its two containers, a
zip archive and, before 1.6, five such programs in a row with the numbers behind them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from vit_core.errors import CheckpointError, UnsafeFileError
from vit_core.files import inert
from vit_core.files.arrays import LazyArray, array_in_file
from vit_core.files.zip import Member, members
from vit_core.limits import Limits
from vit_core.plain_values import short

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02"  # of a file before torch 1.6

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Opaque(NamedTuple):
    """An object that means nothing here, such as the command line of a training run: its name, and no more."""

    name: str


class _Function(NamedTuple):
    name: str


class _Storage(NamedTuple):
    """Numbers in a row, of which tensors are views."""

    dtype: np.dtype[Any]
    key: str
    numbers: int


class _View(NamedTuple):
    """A tensor: counts of elements within its storage."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_zip(path: Path, content: Any, limits: Limits) -> Any:
    """What a zip archive of `torch.save` holds: dictionaries, lists and plain values with `LazyArray` tensors in them.

    Raises:
        UnsafeFileError: it wants a function called that is not known here.
        CheckpointError: it is not such an archive, or not a sound one.
    """
    found = members(path, content, limits)
    program = next((name for name in found if name.endswith("/data.pkl") and name.count("/") == 1), None)
    if program is None:
        raise CheckpointError(f"{path}: no data.pkl in this archive.")
    root = program.removesuffix("data.pkl")
    for name, member in found.items():
        if member.is_compressed:
            raise CheckpointError(f"{path}: {name}: compressed, which torch never does.")
    if (order := found.get(f"{root}byteorder")) and bytes(order.bytes()) != b"little":
        raise CheckpointError(f"{path}: of a big-endian machine. Save it again on a little-endian one.")
    if found[program].size > limits.header_bytes:
        raise CheckpointError(f"{path}: {program}: {found[program].size} bytes, above {limits.bound('header_bytes')}.")

    def place(storage: _Storage) -> tuple[Any, int, Callable[[], object]]:
        member: Member | None = found.get(f"{root}data/{storage.key}")
        size = storage.numbers * storage.dtype.itemsize
        if member is None or member.size != size:
            have = "nothing" if member is None else f"{member.size} bytes"
            raise CheckpointError(f"{path}: storage {short(storage.key)}: expected {size} bytes, found {have}.")
        return content, member.start, member.check

    machine = _Machine(path, bytes(found[program].bytes()), limits)
    return _resolved(path, machine.run(), place, limits)


def read_legacy(path: Path, content: Any, limits: Limits) -> Any:
    """What a file of `torch.save` before torch 1.6 holds, see `read_zip`."""
    program = bytes(content[: limits.header_bytes])  # numbers follow; the machine stops at the end of each program
    machine = _Machine(path, program, limits)
    _, protocol, system, tree, keys = (machine.run() for _ in range(5))
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"{path}: expected the layout 1001 of a little-endian machine.")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"{path}: expected the keys of its storages.")
    starts: dict[str, tuple[int, int]] = {}
    position = machine.position
    for key in keys:
        if position + 8 > len(content) or key not in machine.storages:
            raise CheckpointError(f"{path}: storage {short(key)}: not there, or of no known type.")
        count = int.from_bytes(bytes(content[position : position + 8]), "little")
        starts[key] = (position + 8, count)
        position += 8 + count * machine.storages[key].itemsize
    if position != len(content):
        raise CheckpointError(f"{path}: {len(content)} bytes, expected {position}: the file was cut, or added to.")

    def place(storage: _Storage) -> tuple[Any, int, Callable[[], object]]:
        start, count = starts.get(storage.key, (0, -1))
        if count != storage.numbers or machine.storages[storage.key] != storage.dtype:
            raise CheckpointError(f"{path}: storage {short(storage.key)}: expected {storage.numbers} numbers.")
        return content, start, lambda: None

    return _resolved(path, tree, place, limits)


def _resolved(path: Path, tree: Any, place: Callable[[_Storage], Any], limits: Limits) -> Any:
    """The same tree with every view placed in the file; shared parts stay shared."""
    done: dict[int, Any] = {}

    def walk(value: Any, depth: int, name: str) -> Any:
        if depth > limits.json_depth:
            raise CheckpointError(f"{path}: nested deeper than {limits.bound('json_depth')}.")
        if isinstance(value, _View):
            return _tensor_of(f"{path}: {short(name)}", value, *place(value.storage))
        if isinstance(value, _Function):
            return Opaque(value.name)
        if not isinstance(value, dict | list):
            return value  # no state dict keeps its tensors in tuples
        if id(value) not in done:
            done[id(value)] = None
            items = value.items() if isinstance(value, dict) else enumerate(value)
            before = f"{name}." if name else ""
            done[id(value)] = {key: walk(item, depth + 1, f"{before}{key}") for key, item in items}
        if done[id(value)] is None:
            raise CheckpointError(f"{path}: a value that contains itself.")
        return done[id(value)]

    return walk(tree, 0, "")


def _tensor_of(where: str, view: _View, content: Any, start: int, check: Callable[[], object]) -> LazyArray:
    dtype, count = view.storage.dtype, view.storage.numbers
    size = math.prod(view.shape)
    last = view.start + sum((side - 1) * stride for side, stride in zip(view.shape, view.strides, strict=True))
    if size and not (last < count and size <= count):  # no stride of 0 makes more numbers than there are
        repeated = any(stride == 0 and side > 1 for side, stride in zip(view.shape, view.strides, strict=True))
        how = " by a stride of 0 (expand); save it with .contiguous()" if repeated and last < count else ""
        raise CheckpointError(f"{where}: a tensor {view.shape} in a storage of {count} numbers{how}.")
    strides = tuple(stride * dtype.itemsize for stride in view.strides)
    tensor = array_in_file(content, dtype, view.shape, start + view.start * dtype.itemsize if size else 0, strides)

    def read() -> np.ndarray[Any, np.dtype[Any]]:
        check()
        return tensor.read()

    return LazyArray(dtype, view.shape, read)


# --- the machine -----------------------------------------------------------------------------------------------------


class _Machine:
    """Runs the programs in `code` one after another."""

    def __init__(self, path: Path, code: bytes, limits: Limits) -> None:
        self.path, self.code, self.limits = path, code, limits
        self.position = self.steps = 0
        self.storages: dict[str, np.dtype[Any]] = {}  # key -> dtype, as met
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the next program builds."""
        self.stack, self.marks, self.memo = [], [], {}
        try:
            while (opcode := self._take(1)) != b".":
                self.steps += 1
                if self.steps > self.limits.program_steps:
                    raise self._bad(f"more than {self.limits.bound('program_steps')} instructions")
                if opcode not in _INSTRUCTIONS:
                    raise self._bad(f"the instruction {opcode!r} is not known here")
                _INSTRUCTIONS[opcode](self)
            (value,) = self.stack
            return value
        except (IndexError, KeyError, TypeError, ValueError, UnicodeDecodeError) as problem:
            if isinstance(problem, CheckpointError):
                raise
            raise self._bad(f"not a sound program ({type(problem).__name__})") from None

    def _bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: at byte {self.position}: {what}.")

    def _take(self, size: int) -> bytes:
        if size < 0 or self.position + size > len(self.code):
            raise self._bad("it ends in the middle")
        self.position += size
        return self.code[self.position - size : self.position]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        end = self.code.index(b"\n", self.position)
        return self._take(end + 1 - self.position)[:-1].decode("utf-8")

    def _text(self, layout: str, encoding: str = "utf-8") -> None:
        self.stack.append(self._take(self._number(layout)).decode(encoding))

    def _bytes(self, layout: str) -> None:
        self.stack.append(self._take(self._number(layout)))

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _tuple(self, size: int) -> None:
        if size > len(self.stack):
            raise IndexError
        self.stack[len(self.stack) - size :] = [tuple(self.stack[len(self.stack) - size :])]

    def _set_items(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise TypeError
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int | float | bool | bytes | None):  # a tuple can take ages to hash
                raise TypeError
            self.stack[-1][key] = value

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        self.stack[-1].extend(values)

    def _add(self, values: list[Any]) -> None:
        if self.stack[-1] != _SET:
            raise TypeError

    def _frozen(self) -> None:
        self._since_mark()
        self.stack.append(Opaque("builtins.frozenset"))

    def _find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full in inert.VALUES:
            self.stack.append(Opaque(full))
            return
        if full not in _KNOWN:
            raise UnsafeFileError(
                f"{self.path}: it wants {short(full)} called, which makes no tensor or plain value; nothing was run.\n"
                "Save the tensors alone, with the program that wrote it: safetensors.torch.save_file(state_dict, path)."
            )
        self.stack.append(_Function(full))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError
        self._find(module, name)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not (isinstance(function, _Function) and isinstance(arguments, tuple)):
            raise TypeError
        if function.name in inert.CALLED or function.name in inert.FACTORIES:
            self.stack.append(Opaque(function.name))
        else:
            self.stack.append(_REBUILD[function.name](*arguments))

    def _build(self) -> None:
        self.stack.pop()  # what a tensor, a dictionary or an opaque object has beside its values
        if not isinstance(self.stack[-1], dict | Opaque | _View):
            raise TypeError

    def _storage(self) -> None:
        kind, function, key, _, count, *view = self.stack.pop()
        if kind != "storage" or not isinstance(function, _Function) or not isinstance(key, str):
            raise TypeError
        if type(count) is not int or not 0 <= count < 2**63 or any(view):
            raise ValueError
        dtype = np.dtype(_STORAGES[function.name.removeprefix("torch.")])
        if self.storages.setdefault(key, dtype) != dtype:
            raise self._bad(f"storage {short(key)} of two types")
        self.stack.append(_Storage(dtype, key, count))

    def _long(self, layout: str) -> None:
        self.stack.append(int.from_bytes(self._take(self._number(layout)), "little", signed=True))

    def _memoize(self, key: int) -> None:
        self.memo[key] = self.stack[-1]


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _View:
    if not (isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise TypeError
    if not all(type(count) is int and 0 <= count < 2**63 for count in (start, *shape, *strides)):
        raise ValueError
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError
    return _View(storage, start, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, _View):
        raise TypeError
    return tensor


def _mapping(*pairs: Any) -> dict[Any, Any]:
    if pairs not in ((), ([],)):
        raise ValueError
    return {}


def _counts(*values: Any) -> dict[Any, Any]:
    """A Counter, as the dictionary of its counts."""
    found = values[0] if values else {}
    if len(values) > 1 or not isinstance(found, dict):
        raise TypeError
    return found


def _with_factory(*values: Any) -> dict[Any, Any]:
    """A defaultdict, whose items follow; what would make its missing values is not called."""
    if len(values) > 1 or not isinstance((*values, None)[0], _Function | None):
        raise TypeError
    return {}


_REBUILD: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _counts,
    "collections.defaultdict": _with_factory,
    "torch.Size": lambda sides: tuple(sides),
}
_KNOWN = {*_REBUILD, *(f"torch.{name}" for name in _STORAGES), *inert.CALLED, *inert.FACTORIES}
_SET = Opaque("builtins.set")

_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m._take(1),  # protocol
    b"\x95": lambda m: m._take(8),  # frame
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m._since_mark(),
    b"2": lambda m: m.stack.append(m.stack[-1]),
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"J": lambda m: m.stack.append(m._number("<i")),
    b"K": lambda m: m.stack.append(m._number("<B")),
    b"M": lambda m: m.stack.append(m._number("<H")),
    b"\x8a": lambda m: m._long("<B"),
    b"G": lambda m: m.stack.append(m._number(">d")),
    b"X": lambda m: m._text("<I"),
    b"\x8c": lambda m: m._text("<B"),
    b"\x8d": lambda m: m._text("<Q"),
    b"T": lambda m: m._text("<i", "latin-1"),  # of Python 2
    b"U": lambda m: m._text("<B", "latin-1"),
    b"\x8e": lambda m: m._bytes("<Q"),
    b"B": lambda m: m._bytes("<I"),
    b"C": lambda m: m._bytes("<B"),
    b"]": lambda m: m.stack.append([]),
    b"}": lambda m: m.stack.append({}),
    b")": lambda m: m.stack.append(()),
    b"t": lambda m: m.stack.append(tuple(m._since_mark())),
    b"l": lambda m: m.stack.append(m._since_mark()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"\x8f": lambda m: m.stack.append(_SET),
    b"\x90": lambda m: m._add(m._since_mark()),
    b"\x91": lambda m: m._frozen(),
    b"a": lambda m: m._extend([m.stack.pop()]),
    b"e": lambda m: m._extend(m._since_mark()),
    b"s": lambda m: m._set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m._set_items(m._since_mark()),
    b"q": lambda m: m._memoize(m._number("<B")),
    b"r": lambda m: m._memoize(m._number("<I")),
    b"\x94": lambda m: m._memoize(len(m.memo)),
    b"h": lambda m: m.stack.append(m.memo[m._number("<B")]),
    b"j": lambda m: m.stack.append(m.memo[m._number("<I")]),
    b"c": lambda m: m._find(m._line(), m._line()),
    b"\x93": lambda m: m._stack_global(),
    b"R": lambda m: m._call(),
    b"\x81": lambda m: m._call(),  # a new object: calls the class
    b"b": lambda m: m._build(),
    b"Q": lambda m: m._storage(),
}
