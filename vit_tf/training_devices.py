"""What a run in TensorFlow is computed on: one device, or several by `tf.distribute.MirroredStrategy`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vit_core.errors import BackendError, InputError
from vit_core.training import Optimisation
from vit_core.training.devices import check_count, cores, refuse_torchrun, words_of
from vit_tf.training import TrainStep


class Devices:
    """See `vit_core.training.devices.Devices`.

    Args:
        count: of devices, GPUs where there are some; None for one. A CPU is cut into as many logical ones.
        is_sharded: not here.

    Raises:
        InputError: shares of the weights, which this strategy has not, or several processes.
        BackendError: there are not so many devices.
    """

    rank = 0

    def __init__(self, count: int | None, *, is_sharded: bool = False) -> None:
        refuse_torchrun("tf")
        if is_sharded:
            raise InputError(
                "--sharded: tf.distribute.MirroredStrategy has copies alone.\nTake --backend torch or flax."
            )
        self.count = count or 1
        self.words = words_of(self.count, False)
        self.strategy = _mirrored(self.count) if self.count > 1 else None

    def train_step(self, make: Callable[[], Any], optimisation: Optimisation) -> TrainStep:
        """The step of a model on these devices."""
        if self.strategy is None:
            return TrainStep(make(), optimisation)
        with self.strategy.scope():
            model = make()
        return TrainStep(model, optimisation)

    def agreed(self, word: int) -> int:
        """What process 0 gave: there is no other."""
        return word

    def free_bytes(self) -> int | None:
        """Memory of a device that a run could still take; TensorFlow does not say."""
        return None

    def close(self) -> None:
        """Nothing is left open."""


def there() -> tuple[int, str]:
    """How many devices there are, and what they are."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    return (gpus, "GPUs") if gpus else (cores(), "CPU cores")


def _mirrored(count: int) -> tf.distribute.MirroredStrategy:
    check_count(count, *there())
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU":
        logical = [tf.config.LogicalDeviceConfiguration()] * count
        try:
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
        except RuntimeError:  # it is running, with the devices that it has
            check_logical(count)
    before = tf.get_logger().level
    tf.get_logger().setLevel("ERROR")  # not: that these are no GPUs
    try:
        return tf.distribute.MirroredStrategy([f"{kind}:{place}" for place in range(count)])
    finally:
        tf.get_logger().setLevel(before)


def check_logical(count: int) -> None:
    """Checks that a TensorFlow that runs has so many logical CPUs.

    Raises:
        BackendError: it has not.
    """
    if (found := len(tf.config.list_logical_devices("CPU"))) < count:
        raise BackendError(
            f"--devices {count}: TensorFlow runs in this process already, with {found} logical CPU.\n"
            "Start the command in a process of its own."
        )
