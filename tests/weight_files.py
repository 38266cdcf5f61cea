"""Weight files made byte by byte, for tests of what is wrong with them."""

import pickle
import struct
import zipfile

import numpy as np


def torch_zip(path, program, storages=None, byteorder=b"little", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/byteorder", byteorder)
        for key, data in (storages or {}).items():
            archive.writestr(f"x/data/{key}", data)
    return path


def tensor(kind="FloatStorage", count=4, start=0, shape=(2, 2), strides=(2, 1), key="0", rebuild="_rebuild_tensor_v2"):
    """The program of {"a": tensor}."""
    numbers = [b"J" + struct.pack("<i", n) if n < 2**31 else b"\x8a\x08" + struct.pack("<q", n) for n in (start, count)]
    tuples = [b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in sides) + b"t" for sides in (shape, strides)]
    text = b"".join(b"X" + struct.pack("<I", len(t)) + t.encode() for t in ("storage",))
    identity = b"(" + text + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu") + numbers[1] + b"tQ"
    rebuilt = f"ctorch._utils\n{rebuild}\n".encode() + b"(" + identity + numbers[0] + tuples[0] + tuples[1] + b"\x89}tR"
    return b"\x80\x02}" + _text("a") + rebuilt + b"s."


class Program(bytes):
    """Instructions that leave one value."""


def called(name, arguments=b")", how=b"R"):
    """The program of a call of a function, given by its full name; with no arguments unless a program makes some."""
    return Program(named(name) + arguments + how)


def named(name):
    """The program of a function or value that is given by its full name."""
    module, _, attribute = name.rpartition(".")
    return Program(f"c{module}\n{attribute}\n".encode())


def torch_tree(path, tree):
    """What torch.save writes of nested dictionaries with arrays of float32 as tensors, and plain values, in them.

    Any other value is pickled as it is, and a `Program` stands for what it makes.
    """
    storages = {}

    def program(value):
        if isinstance(value, dict):
            return b"}" + b"".join(_text(key) + program(inner) + b"s" for key, inner in value.items())
        if isinstance(value, Program):
            return value
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            return pickle.dumps(value, 2)[2:-1]
        key = str(len(storages))
        storages[key] = value.tobytes()
        strides = tuple(stride // 4 for stride in np.ascontiguousarray(value).strides)
        return tensor(count=value.size, shape=value.shape, strides=strides, key=key)[
            len(b"\x80\x02}" + _text("a")) : -2
        ]

    return torch_zip(path, b"\x80\x02" + program(tree) + b".", storages)


def _text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def packed(shape=(2,), dtype="float32", data=bytes(8), extension=1, extra=b""):
    text = dtype.encode()
    inner = b"\x93" + bytes([0x90 | len(shape), *shape]) + bytes([0xA0 | len(text)]) + text
    inner += b"\xc4" + bytes([len(data)]) + data
    return b"\xc7" + bytes([len(inner), extension]) + inner + extra
