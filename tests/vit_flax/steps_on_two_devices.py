"""Steps of training on two devices beside those on one: `... copies|shares one|all FOLDER [RANK PORT]`.

With RANK and PORT the two devices are those of two processes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from flax_models import BACKEND, make_model
from sameness import check_tensors
from training_steps import TRAINED, check_spread, make_batch, part_of

from vit_flax.sharding import data_mesh
from vit_flax.training import TrainStep

HOW, WHICH, FOLDER, *PROCESS = sys.argv[1:]
SHARDED = HOW == "shares"
SIZES = (5, 8, 1) if WHICH == "all" else (5,)


def make(name, dtype, recipe, on_two):
    where = {"mesh": data_mesh(2), "sharded": SHARDED} if on_two else {}
    return TrainStep(make_model(name, dtype), recipe, **where)


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
        check_spread(make, TRAINED[0], "float32", 1e-5)
    with BACKEND.doubles():
        for name in TRAINED if WHICH == "all" else TRAINED[:1]:
            step = check_spread(make, name, "float64", 1e-12, SIZES)
            if name == TRAINED[0] and not PROCESS:
                check_places(step)
                check_folder(step)
