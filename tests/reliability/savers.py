"""The program whose saves are interrupted: it forks a child for every save that it is told to make.

A line of JSON names a save, a value, a folder, and whether the child waits to be traced. The answers are the child's
process id, and how it ended: its wait status and what its save raised. The value is in everything a save writes, so
that whatever is found later says which save it comes from.

A save is prepared first (a model is made, or a checkpoint to convert), and what is traced begins after that.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors.numpy

import conversion
from conversion.dialects import targets
from vit_core import ViTConfig, ViTImageProcessor, ViTMAEConfig
from vit_core.errors import VitError
from vit_core.files.folders import open_weights
from vit_core.files.saving import save_folder
from vit_core.parameters import parameter_table
from vitriad.auto import model_class
from vitriad.backends import BACKENDS

TARGETS = targets()

SAVED, REFUSED, CRASHED = 0, 1, 2  # exit codes
SIZES = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 14}
SIZES |= {"image_size": 8, "patch_size": 4}
DECODER = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
DECODER |= {"decoder_intermediate_size": 10}


def make_config(value):
    return ViTConfig(**SIZES, architectures=["ViTModel"], generation=value)


def make_tensors(value):
    table = parameter_table(make_config(value), "ViTModel", add_pooling_layer=True)
    return {name: np.full(row.shape, value, np.float32) for name, row in table.items()}


def write(folder, value, **options):
    files = {"config.json": make_config(value).to_json_string()}
    save_folder(folder, files=files, tensors=make_tensors(value), **options)


# Each prepares a save of a value to a folder (or file), in a folder for itself, and returns what then saves.


def single(folder, value, scratch):
    return lambda: write(folder, value)


def sharded(folder, value, scratch):
    return lambda: write(folder, value, max_shard_size=5000)


def in_place(folder, value, scratch):
    if folder.is_dir():
        os.chdir(folder)  # which then has to stay
    return sharded(folder, value, scratch)


def of_model(backend):
    def prepare(folder, value, scratch):
        model = model_class("ViTModel", backend).from_tensors(make_config(value), make_tensors(value))
        return lambda: model.save_pretrained(folder)

    return prepare


def config(folder, value, scratch):
    return lambda: make_config(value).save_pretrained(folder)


def processor(folder, value, scratch):
    return lambda: ViTImageProcessor(rescale_factor=1 / (value + 1)).save_pretrained(folder)


def conversion_to(dialect, stays=False):
    """Every dialect can say a label, and what its programs compute with; see `told` for what its files do not tell."""
    mae = dialect == "mae"
    model = "ViTMAEForPreTraining" if mae else "ViTForImageClassification"
    activation = "gelu_pytorch_tanh" if dialect == "google" else "gelu"

    def prepare(folder, value, scratch):
        fields = {**SIZES, "layer_norm_eps": 1e-6, "hidden_act": activation, "architectures": [model]}
        labels = {0: f"generation {value}", 1: "other"}
        made = ViTMAEConfig(**fields, **DECODER) if mae else ViTConfig(**fields, id2label=labels)
        tensors = {name: np.full(row.shape, value, np.float32) for name, row in parameter_table(made, model).items()}
        source = scratch / "source"
        save_folder(source, files={"config.json": made.to_json_string()}, tensors=tensors)
        if stays and folder.is_dir():
            os.chdir(folder)
        return lambda: conversion.convert(source, folder, to=dialect, force=True)

    return prepare


def naively(folder, value, scratch):
    """What not to do: files written in place, and errors that nobody hears of."""

    def save():
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            (folder / "config.json").write_text(make_config(value).to_json_string())
            (folder / "model.safetensors").write_bytes(safetensors.numpy.save(make_tensors(value)))

    return save


CONVERSIONS = {f"convert to {dialect}": dialect for dialect in TARGETS}
IN_PLACE = {f"{name} in place": dialect for name, dialect in CONVERSIONS.items() if TARGETS[dialect].file is not None}
NEUTRAL = {
    "single": single,
    "sharded": sharded,
    "in place": in_place,
    "config": config,
    "processor": processor,
    "naive": naively,
    **{name: conversion_to(dialect) for name, dialect in CONVERSIONS.items()},
    **{name: conversion_to(dialect, stays=True) for name, dialect in IN_PLACE.items()},
}
SAVES = {**NEUTRAL, **{name: of_model(name) for name in BACKENDS}}


def told(dialect):
    """The keywords that a reader of a converted checkpoint has to give."""
    if dialect not in ("mae", "torchvision"):
        return {}
    fields = {"num_attention_heads": SIZES["num_attention_heads"]}
    decoder = {"decoder_num_attention_heads": DECODER["decoder_num_attention_heads"], "norm_pix_loss": False}
    return fields | (decoder if dialect == "mae" else {})


def attempt(save):
    """The exit code of a child, and the text of its error."""
    try:
        save()
    except VitError as error:
        return REFUSED, str(error)
    except BaseException as error:
        return CRASHED, repr(error)
    return SAVED, ""


def answer(order, scratch):
    """Forks a child for one save, says its process id when it is ready, and, when it is gone, how it ended."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        save = SAVES[order["save"]](Path(order["folder"]), order["value"], scratch)
        os.write(theirs, b"\n")
        if order["is_traced"]:
            signal.sigwait({signal.SIGUSR1})
        os.getppid()  # no save makes this call: it marks where one begins, and where it ends
        code, text = attempt(save)
        os.getppid()
        os.write(theirs, text.encode())
        os._exit(code)
    os.close(theirs)
    with open(ours) as pipe:
        pipe.readline()
        print(child, flush=True)
        text = pipe.read()
    print(json.dumps([os.waitpid(child, 0)[1], text]), flush=True)


def once(save, folder, value):
    """One save, and what a reader finds then: for a process in a world of its own (mounts)."""
    code, text = attempt(SAVES[save](folder, value, None))
    found = sorted({float(x) for a in open_weights(folder, verify=True).values() for x in a.flat}) if not code else []
    print(json.dumps({"code": code, "text": text, "found": found, "names": sorted(os.listdir(folder.parent))}))


def serve(saves, scratch):
    """Answers orders until there are no more. Of a backend nothing runs in the parent: it could not be forked then."""
    for save in {"single": None, **dict.fromkeys(saves)}:
        if save in BACKENDS:
            model_class("ViTModel", save)
        else:
            SAVES[save](scratch / save / f"model{suffix(save)}", 0, scratch)()  # so that the children import nothing
    for line in sys.stdin:
        answer(json.loads(line), scratch)


def suffix(save):
    """Of what a save writes: that of a file, or none."""
    target = TARGETS.get(CONVERSIONS.get(save))
    return "" if target is None or target.file is not None else target.suffix


if __name__ == "__main__" and sys.argv[1] == "once":
    once(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
elif __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    serve(sys.argv[2:], Path(sys.argv[1]))
