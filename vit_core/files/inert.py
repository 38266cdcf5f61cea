"""Objects that training programs save beside weights: recognised by name, never constructed.

A checkpoint of a training run often holds a learning rate as a NumPy number, the path of its data, or the state of a
random number generator. None of these is needed to read the weights, so each full name listed here becomes a
placeholder: nothing is called, imported or evaluated. Names must match exactly; a file with any other name is refused.

Source: what `pickle.dumps` of Python 3.11 to 3.14, NumPy 1.26 and 2.4, and torch 2.13 writes for these objects.
"""

from __future__ import annotations


def _under(modules: tuple[str, ...], *names: str) -> set[str]:
    return {f"{module}.{name}" for module in modules for name in names}


# Classes and functions whose call makes a placeholder.
CALLED = frozenset(
    {"argparse.Namespace", "random.Random", "torch.device", "_codecs.encode"}  # bytes of protocol 2 are encoded text
    | _under(("builtins", "__builtin__"), "set", "frozenset", "complex", "bytes")
    | _under(("datetime",), "datetime", "date", "time", "timedelta", "timezone")
    | _under(
        ("pathlib", "pathlib._local"),
        *("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    )
    | _under(("numpy",), "dtype", "ndarray")
    | _under(("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", "_reconstruct")
    | _under(("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer")
    | _under(("numpy.random._pickle",), "__generator_ctor", "__bit_generator_ctor", "__randomstate_ctor")
    | {f"numpy.random._{name.lower()}.{name}" for name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")}
    | _under(("numpy.random.bit_generator",), "SeedSequence", "__pyx_unpickle_SeedSequence")
)

# What a defaultdict makes its values with.
FACTORIES = frozenset(_under(("builtins", "__builtin__"), "int", "float", "bool", "str", "list", "dict", "tuple"))

# Values that are written as a name alone.
VALUES = frozenset(
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex128", "complex64", "complex32"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "quint8", "qint8", "qint32"),
        *("strided", "contiguous_format", "preserve_format", "channels_last"),
    )
)
