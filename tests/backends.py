"""The backends whose framework is installed here, for tests that hold for each of them."""

from importlib import import_module
from importlib.util import find_spec

from conversion.layouts import to_canonical
from vit_core.tensors import to_numpy
from vitriad.backends import BACKENDS

INSTALLED = [name for name, backend in BACKENDS.items() if find_spec(backend.framework)]


def canonical(backend, model):
    """Canonical name -> values, in the canonical layout."""
    if backend == "flax":
        return model.canonical_tensors()
    if backend == "torch":
        return {name: to_numpy(tensor) for name, tensor in model.state_dict().items()}
    table = model.parameter_table()
    return {
        name: to_canonical(to_numpy(weight.value), table[name].kind, "keras")
        for name, weight in model.named_weights().items()
    }


def adapters():
    """A `small_models.Backend` for each."""
    return [import_module(f"{name}_models").BACKEND for name in INSTALLED]
