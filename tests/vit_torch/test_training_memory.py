"""The arithmetic of `--dry-run` beside what torch was seen to take: peaks of memory, and operations."""

from types import SimpleNamespace

import numpy as np
import pytest
from live_memory import peak_of
from torch.utils.flop_counter import FlopCounterMode

from vit_core import ViTConfig, ViTMAEConfig
from vit_core.parameters import draw
from vit_core.training import TrainingBatch
from vit_core.training.recipe import recipe_of
from vit_torch import ViTForImageClassification, ViTMAEForPreTraining
from vit_torch.training import TrainStep
from vitriad.training.memory import sizes_of

SIZES = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
SIZES |= {"image_size": 96, "patch_size": 8}
DECODER = {"decoder_hidden_size": 64, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4}
CLASSES = {"classification": (ViTForImageClassification, ViTConfig), "mae": (ViTMAEForPreTraining, ViTMAEConfig)}


def made(objective, images, attention="sdpa", **fields):
    """A step, a batch, and what stands for the set-up of a run."""
    given = {"objective": objective, "data": "", "backend": "torch", "epochs": 1, "rate": 1.0, "config": ""}
    recipe = recipe_of({**given, "batch_size": images, **fields})
    cls, kind = CLASSES[objective]
    config = kind(
        **SIZES, **(DECODER | {"decoder_intermediate_size": 256} if objective == "mae" else {"num_labels": 10})
    )
    config.attn_implementation = attention
    tensors = draw(config, cls.__name__, 0)
    random = np.random.default_rng(0)
    pixels = random.standard_normal((images, 3, 96, 96), np.float32)
    more = {"noise": random.random((images, 144), np.float32)}
    if objective == "classification":
        more = {"targets": np.full((images, 10), 0.1, np.float32)}
    step = TrainStep(cls.from_tensors(config, tensors), recipe.optimisation())
    return step, TrainingBatch(pixels, **more), SimpleNamespace(recipe=recipe, config=config, tensors=tensors)


@pytest.mark.every_day(
    "classification-float32-True-sdpa", "classification-bfloat16-False-eager", "mae-float32-False-sdpa"
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("objective", ["classification", "mae"])
def test_memory_is_what_a_step_was_seen_to_take(objective, precision, recompute, attention):
    step, batch, setup = made(objective, 12, attention, precision=precision, recompute=recompute)
    step(batch, 1e-3)
    held = sum(array.nbytes for name, array in step.state().items() if not name.startswith("steps"))
    with peak_of() as peak:
        step(batch, 1e-3)
    sizes = sizes_of(setup, {*step.trained})
    share = sizes.bytes() / (held + peak[0])
    np.testing.assert_array_less([0.93, share], [share, 1.35])  # too little is worse than too much


@pytest.mark.parametrize("objective", [*CLASSES])
def test_work_is_what_torch_counts(objective):
    step, batch, setup = made(objective, 2, "eager")  # torch does not count fused attention on a CPU
    with FlopCounterMode(display=False) as counted:
        step(batch, 1e-3)
    np.testing.assert_allclose(sizes_of(setup, {*step.trained}).work, counted.get_total_flops() / 2, rtol=0.05)


def test_shares_copies_and_parts_are_what_each_device_holds():
    _, _, setup = made("classification", 12, accumulate=2)
    names = {*setup.tensors}
    one, copies, shares = (sizes_of(setup, names, count, is_sharded=is_) for count, is_ in ((1, 0), (4, 0), (4, 1)))
    numbers = sum(array.size for array in setup.tensors.values())
    layer = sum(array.size for name, array in setup.tensors.items() if "layer.0." in name)
    assert (one.fixed, copies.fixed) == (16 * numbers, 20 * numbers)
    assert shares.fixed == 4 * numbers + 8 * layer
    assert (one.images, copies.images, shares.images) == (6, 2, 2)
