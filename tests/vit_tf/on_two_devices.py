"""Steps of training on two logical devices against those on one, in a process of its own."""

import sys
from pathlib import Path

import tensorflow as tf

cpu, device = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [device, device])
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402
from tf_models import make_model  # noqa: E402

from vit_core.training import Optimisation, TrainingBatch  # noqa: E402
from vit_tf.training import TrainStep  # noqa: E402

# Sizes of batches: shares of the devices differ, and there are fewer images than devices.
RUNS = {
    "TFViTForImageClassification": (Optimisation(layer_decay=0.6, clip=0.5, average=0.7, accumulate=2), (5, 1, 5)),
    "TFViTForMaskedImageModeling": (Optimisation(), (5, 5)),
    "TFViTMAEForPreTraining": (Optimisation(clip=0.1, recompute=True), (3, 3)),
}


def make_batch(name, images, number):
    random = np.random.default_rng(number)
    pixels = random.standard_normal((images, 3, 12, 20))
    return {
        "TFViTForImageClassification": TrainingBatch(pixels, targets=random.dirichlet(np.ones(5), images)),
        "TFViTForMaskedImageModeling": TrainingBatch(pixels, bool_masked_pos=random.random((images, 15)) < 0.5),
        "TFViTMAEForPreTraining": TrainingBatch(pixels, noise=random.random((images, 15), np.float32)),
    }[name]


def check(name, recipe, sizes):
    """Losses, norms, evaluation and states are those of one device; a state of one goes on on two."""
    one = TrainStep(make_model(name, "float64"), recipe)
    with mirrored.scope():
        model = make_model(name, "float64")
    two = TrainStep(model, recipe)
    for number, images in enumerate(sizes):
        batch = make_batch(name, images, number)
        for found, expected in zip(two(batch, 1e-3), one(batch, 1e-3), strict=True):
            np.testing.assert_allclose(float(found), float(expected), rtol=1e-12)
    expected = one.evaluate(batch)
    for key, array in two.evaluate(batch).items():
        np.testing.assert_allclose(array, expected[key], rtol=0, atol=1e-9, err_msg=key)
    state = one.state()
    for key, array in two.state().items():
        np.testing.assert_allclose(array, state[key], rtol=0, atol=1e-8, err_msg=key)
    two.restore(state)
    np.testing.assert_allclose(float(two(batch, 1e-3).loss), float(one(batch, 1e-3).loss), rtol=1e-12)


mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
if mirrored.num_replicas_in_sync != 2:
    raise SystemExit("there are no two devices")
for name, (recipe, sizes) in RUNS.items():
    check(name, recipe, sizes)
