"""Short runs of `vitriad finetune` and `vitriad pretrain`: their data, their command lines, what they leave behind."""

import numpy as np
from backends import INSTALLED
from sklearn.datasets import load_digits

from vitriad.training import run as training_run

BACKENDS = INSTALLED
DIGITS = load_digits()
LEVELS = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)
QUIET = ["mirror=0", "mixup=0", "cutmix=0", "operations=0", "erase=0", "area=[0.7,1]"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SMALL |= {"image_size": 16, "patch_size": 4, "num_channels": 1, "initializer_range": 0.1}


def asked(command, data, out, *options, backend=None, fields=()):
    """A command line of a short run."""
    lists = [each for field in (*QUIET, *fields) for each in ("--set", field)]
    common = ["--out", str(out), "--backend", backend or BACKENDS[0], "--batch-size", "16", "--epochs", "2", *lists]
    start = [] if {"--model", "--config"} & {*options} else ["--model", "digits-vit"]
    if command == "pretrain":
        objective = options[options.index("--objective") + 1]
        start = ["--config", str(data / ("mae.json" if objective == "mae" else "vit.json"))]
    return [command, str(data / "digits.npz"), *start, *common, *map(str, options)]


def contents(out):
    """The checkpoints of a run, to the byte."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for name in ("best", "last")
        for file in sorted((out / name).rglob("*"))
        if file.is_file()
    }


def stopping(monkeypatch, at, what):
    """Lets something happen before a step."""
    inner, calls = training_run.new_step, []

    def new_step(*given):
        step = inner(*given)

        class Counting:
            def __getattr__(self, name):
                return getattr(step, name)

            def __call__(self, batch, rate):
                calls.append(rate)
                if len(calls) == at:
                    what()
                return step(batch, rate)

        return Counting()

    monkeypatch.setattr(training_run, "new_step", new_step)
