"""Steps on the processes of torchrun beside those on one: `torchrun ... on_two_processes.py ddp|fsdp one|all`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from torch_models import make_model
from training_steps import TRAINED, check_spread

from vit_torch.training import TrainStep

HOW, WHICH = sys.argv[1:]


def make(name, dtype, recipe, on_two):
    return TrainStep(make_model(name, dtype), recipe, distributed=HOW if on_two else None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
    if WHICH == "all":
        check_spread(make, TRAINED[0], "float32", 1e-5)
    for name in TRAINED if WHICH == "all" else TRAINED[:1]:
        check_spread(make, name, "float64", 1e-12)
    dist.destroy_process_group()
