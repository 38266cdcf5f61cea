"""Packages whose names are imported when they are first asked for, so that importing them costs next to nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def on_first_use(package: str, public: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: public name -> the module that defines it; and its modules by name."""
    held = vars(import_module(package))

    def find(name: str) -> Any:
        if name in public:
            held[name] = getattr(import_module(public[name]), name)
            return held[name]
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted({*held, *public})
