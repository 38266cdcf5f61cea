"""The backends whose framework is installed here, for tests that hold for each of them."""

from importlib.util import find_spec

from vitriad.backends import BACKENDS

INSTALLED = [name for name, backend in BACKENDS.items() if find_spec(backend.framework)]
