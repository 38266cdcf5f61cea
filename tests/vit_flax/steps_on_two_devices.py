"""Steps of training on two devices beside those on one: `... copies|shares one|all FOLDER [RANK PORT]`.

With RANK and PORT the two devices are those of two processes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from flax_models import BACKEND, make_model
from sameness import check_tensors
from training_steps import TRAINED, make_batch, part_of

from vit_core.training import Optimisation
from vit_flax.sharding import data_mesh
from vit_flax.training import TrainStep

CASES = {
    TRAINED[0]: {"clip": 0.1, "average": 0.9, "layer_decay": 0.7, "accumulate": 2, "freeze": 1},
    TRAINED[1]: {"accumulate": 2},
    TRAINED[2]: {"average": 0.5, "recompute": True},
}
HOW, WHICH, FOLDER, *PROCESS = sys.argv[1:]
SHARDED = HOW == "shares"
SIZES = (5, 8, 1) if WHICH == "all" else (5,)  # of which one is left over, none, and all


def on_mesh(name, dtype, settings):
    return TrainStep(make_model(name, dtype), settings, mesh=data_mesh(2), sharded=SHARDED)


def check(name, dtype, tolerance):
    settings = Optimisation(**CASES[name])
    alone, spread = TrainStep(make_model(name, dtype), settings), on_mesh(name, dtype, settings)
    for number, images in enumerate(SIZES):
        batch = make_batch(name, number, dtype, images)
        for one, other in zip(spread(batch, 1e-2), alone(batch, 1e-2), strict=True):
            np.testing.assert_allclose(float(one), float(other), rtol=tolerance)
        found, expected = (step.evaluate(batch, averaged=settings.average is not None) for step in (spread, alone))
        for key, array in expected.items():
            np.testing.assert_allclose(found[key], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=key)
    state, expected = spread.state(), alone.state()
    assert [*state] == [*expected]
    for key, array in expected.items():  # biases of keys: their gradients are rounding
        scale = 1.0 if key.endswith("key.bias") else tolerance
        np.testing.assert_allclose(state[key], array, rtol=0, atol=10 * scale * np.abs(array).max(), err_msg=key)
    again = on_mesh(name, dtype, settings)
    again.restore(state)
    losses = [float(step(make_batch(name, 7, dtype), 1e-3).loss) for step in (spread, again)]
    assert losses[0] == losses[1]
    check_tensors(again.state(), spread.state())
    return spread


def check_places(step):
    """Each device holds half of a state, or all of it; the batch is split, and a sum over the devices is computed."""
    adam = step.current.optimizer[0]
    name = "vit.encoder.layer.1.intermediate.dense.weight"
    for leaf in (step.current.weights[name], adam.mu[name], adam.nu[name], step.current.average[name]):
        assert leaf.addressable_shards[0].data.size * (2 if SHARDED else 1) == leaf.size, leaf.shape
    batch = step._on_devices(make_batch(TRAINED[0], images=8))
    assert {shard.data.shape[0] for shard in batch.pixel_values.addressable_shards} == {4}
    assert "all-reduce" in step._step.lower(step.current, batch, 1e-3).compile().as_text()


def check_folder(step):
    """What is saved is one ordinary folder."""
    step.model.save_pretrained(FOLDER)
    again = type(step.model).from_pretrained(FOLDER, dtype="float64")
    check_tensors(again.canonical_tensors(), part_of(step.state(), "model"))


if __name__ == "__main__":
    if PROCESS:
        jax.distributed.initialize(f"127.0.0.1:{PROCESS[1]}", 2, int(PROCESS[0]))
    assert len(jax.devices()) == 2 and jax.process_count() == (2 if PROCESS else 1)
    if WHICH == "all":
        check(TRAINED[0], "float32", 1e-5)
    with BACKEND.doubles():
        for name in CASES if WHICH == "all" else TRAINED[:1]:
            step = check(name, "float64", 1e-12)
            if name == TRAINED[0] and not PROCESS:
                check_places(step)
                check_folder(step)
