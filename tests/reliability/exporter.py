"""The program whose exports are killed: `exporter.py FOLDER`, orders on stdin, a line of JSON each: value and moment.

Each order is an export in a child of its own, which kills itself at that change of a file or folder beside FOLDER, or
in it; `null` lets it end. The answer is its wait status, and how many changes there were, where it lived to count them.
Nothing is computed in the parent, which could not be forked then; it has only imported everything.
"""

import json
import os
import signal
import sys
from pathlib import Path

import openvino  # noqa: F401
from reliability.savers import SIZES

import vit_torch.exporting
import vitriad
from vit_core import ViTConfig

_CHANGES = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.link", "os.chmod", "ctypes.call_function")


class Moments:
    """Counts the changes near a folder, and kills this process before one of them."""

    def __init__(self, folder, fatal):
        self.near, self.fatal, self.count = str(folder.parent), fatal, 0

    def __call__(self, event, arguments):
        if event in _CHANGES and self._is_near(event, arguments):
            self.count += 1
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_near(self, event, arguments):
        if event == "ctypes.call_function":  # the swap of two folders
            return True
        if event == "open":
            path, _, flags = arguments
            is_change = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            return is_change and isinstance(path, str) and path.startswith(self.near)
        return any(str(path).startswith(self.near) for path in arguments[:2])


def export(folder, value, fatal):
    """Ends this process."""
    config = ViTConfig(**SIZES, generation=value)
    model = vit_torch.ViTModel(config, add_pooling_layer=False).eval()
    moments = Moments(folder, fatal)
    sys.addaudithook(moments)
    vitriad.export(model, folder, "openvino", force=True)
    count, moments.fatal = moments.count, None
    print(json.dumps(count), flush=True)
    os._exit(0)


def main(folder):
    """Answers orders until there are no more."""
    print("ready", flush=True)
    for line in sys.stdin:
        value, fatal = json.loads(line)
        if not (child := os.fork()):
            export(folder, value, fatal)
        print(json.dumps(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
