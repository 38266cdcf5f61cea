"""Steps on the processes of torchrun beside the same steps on one: `torchrun ... on_two_processes.py ddp|fsdp`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import torch.distributed as dist
from sameness import check_tensors
from torch_models import make_model
from training_steps import TRAINED, make_batch

from vit_core.training import Optimisation
from vit_torch.training import TrainStep

CASES = {
    TRAINED[0]: {"clip": 0.1, "average": 0.9, "layer_decay": 0.7, "accumulate": 2, "freeze": 1},
    TRAINED[1]: {"accumulate": 2},
    TRAINED[2]: {"average": 0.5, "recompute": True},
}


def check(how, name, dtype, tolerance):
    settings = Optimisation(**CASES[name])
    alone = TrainStep(make_model(name, dtype), settings)
    spread = TrainStep(make_model(name, dtype), settings, distributed=how)
    for number, images in enumerate((5, 6, 1)):  # of which one process has more, both as many, one none
        batch = make_batch(name, number, dtype, images)
        for one, other in zip(spread(batch, 1e-2), alone(batch, 1e-2), strict=True):
            np.testing.assert_allclose(float(one), float(other), rtol=tolerance)
        if number == 1:
            found, expected = (step.evaluate(batch, averaged=settings.average is not None) for step in (spread, alone))
            for key, array in expected.items():
                np.testing.assert_allclose(found[key], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=key)
    state, expected = spread.state(), alone.state()
    assert [*state] == [*expected]
    for key, array in expected.items():  # biases of keys: their gradients are rounding
        scale = 1.0 if key.endswith("key.bias") else tolerance
        np.testing.assert_allclose(state[key], array, rtol=0, atol=10 * scale * np.abs(array).max(), err_msg=key)
    again = TrainStep(make_model(name, dtype), settings, distributed=how)
    again.restore(state)
    losses = [float(step(make_batch(name, 7, dtype), 1e-3).loss) for step in (spread, again)]
    assert losses[0] == losses[1]
    check_tensors(again.state(), spread.state())


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
    check(sys.argv[1], TRAINED[0], "float32", 1e-5)
    for name in CASES:
        check(sys.argv[1], name, "float64", 1e-12)
    dist.destroy_process_group()
