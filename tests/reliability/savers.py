"""The program whose saves are interrupted: it forks a child for every save that it is told to make.

A line of JSON names a save, a value, a folder, and whether the child waits to be traced. The answers are the child's
process id, and how it ended: its wait status and what its save raised. The value is in everything a save writes, so
that whatever is found later says which save it comes from.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors.numpy

from vit_core import ViTConfig, ViTImageProcessor
from vit_core.checkpoint import open_weights, save_folder
from vit_core.errors import VitError
from vit_core.parameters import parameter_table

SAVED, REFUSED, CRASHED = 0, 1, 2  # exit codes


def make_config(value):
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 14}
    return ViTConfig(**sizes, image_size=8, patch_size=4, architectures=["ViTModel"], generation=value)


def make_tensors(value):
    table = parameter_table(make_config(value), "ViTModel", add_pooling_layer=True)
    return {name: np.full(row.shape, value, np.float32) for name, row in table.items()}


def save_single(folder, value, **options):
    files = {"config.json": make_config(value).to_json_string()}
    save_folder(folder, files=files, tensors=make_tensors(value), **options)


def save_sharded(folder, value):
    save_single(folder, value, max_shard_size=5000)


def save_torch(folder, value):
    import vit_torch

    vit_torch.ViTModel.from_tensors(make_config(value), make_tensors(value)).save_pretrained(folder)


def save_config(folder, value):
    make_config(value).save_pretrained(folder)


def save_processor(folder, value):
    ViTImageProcessor(rescale_factor=1 / (value + 1)).save_pretrained(folder)


def save_naively(folder, value):
    """What not to do: files written in place, and errors that nobody hears of."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        (folder / "config.json").write_text(make_config(value).to_json_string())
        (folder / "model.safetensors").write_bytes(safetensors.numpy.save(make_tensors(value)))


SAVES = {
    "single": save_single,
    "sharded": save_sharded,
    "in place": save_sharded,
    "torch": save_torch,
    "config": save_config,
    "processor": save_processor,
    "naive": save_naively,
}


def attempt(save, folder, value):
    """The exit code of a child, and the text of its error."""
    try:
        save(folder, value)
    except VitError as error:
        return REFUSED, str(error)
    except BaseException as error:
        return CRASHED, repr(error)
    return SAVED, ""


def answer(order):
    """Forks a child for one save, says its process id, and, when it is gone, how it ended."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        if order["is_traced"]:
            signal.sigwait({signal.SIGUSR1})
        if order["save"] == "in place" and os.path.isdir(order["folder"]):
            os.chdir(order["folder"])  # which then has to stay
        os.getppid()  # no save makes this call: it marks where one begins, and where it ends
        code, text = attempt(SAVES[order["save"]], Path(order["folder"]), order["value"])
        os.getppid()
        os.write(theirs, text.encode())
        os._exit(code)
    print(child, flush=True)
    os.close(theirs)
    with open(ours) as pipe:
        text = pipe.read()
    print(json.dumps([os.waitpid(child, 0)[1], text]), flush=True)


def once(save, folder, value):
    """One save, and what a reader finds then: for a process in a world of its own (mounts)."""
    code, text = attempt(SAVES[save], folder, value)
    found = sorted({float(x) for a in open_weights(folder, verify=True).values() for x in a.flat}) if not code else []
    print(json.dumps({"code": code, "text": text, "found": found, "names": sorted(os.listdir(folder.parent))}))


if __name__ == "__main__" and sys.argv[1] == "once":
    once(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
elif __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    SAVES[sys.argv[1]](Path(sys.argv[2]), 0)  # so that the children find everything imported
    for line in sys.stdin:
        answer(json.loads(line))
