"""How many bytes of tensors live at once while something runs."""

import weakref
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Watch(TorchDispatchMode):
    """Counts the storages of everything that operations return, from their birth to their end."""

    def __init__(self):
        super().__init__()
        self.known, self.live, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        for each in torch.utils._pytree.tree_leaves(found):
            if isinstance(each, torch.Tensor) and each.device.type != "meta":
                self._see(each.untyped_storage())
        return found

    def _see(self, storage):
        place, count = storage._cdata, storage.nbytes()
        if place in self.known:
            return
        self.known.add(place)
        self.live += count
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, place, count)

    def _forget(self, place, count):
        self.known.discard(place)
        self.live -= count


@contextmanager
def peak_of():
    """Yields a list that holds the peak at the end of the block."""
    peak = []
    with _Watch() as watch:
        yield peak
    peak.append(watch.peak)
