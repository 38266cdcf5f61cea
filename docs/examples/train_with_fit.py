"""Trains a small classifier of handwritten digits by Keras' `fit`, with a recipe's optimizer and images.

    pip install -e '.[tf]' scikit-learn
    python docs/examples/train_with_fit.py --output out

Each epoch is judged with the average of the weights; OUTPUT/best loads with from_pretrained in every backend. For a
checkpoint of your own, load it in `make_model`; for your images, take `vit_core.training.data_files.read_data`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from vit_core.training.data import labelled, split
from vit_core.training.feeding import Feed
from vit_core.training.recipe import Recipe
from vit_tf import TFViTForImageClassification, ViTConfig, ViTImageProcessor
from vit_tf.training import optimizer

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
PROCESSOR = ViTImageProcessor(size=16, image_mean=[0.5], image_std=[0.5])
DIGITS = load_digits()
SCANS = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)


def make_recipe(**changes) -> Recipe:
    """What the run does."""
    settings = {"epochs": 12, "rate": 1.2e-2, "layer_decay": 0.9, "clip": 1.0, "average": 0.95, "smoothing": 0.1}
    pictures = {"area": (0.6, 1.0), "mirror": 0.0, "operations": 1, "mixup": 0.2}
    return Recipe("classification", "digits", "tf", config="made here", **{**settings, **pictures, **changes})


def make_model() -> TFViTForImageClassification:
    """A fresh classifier."""
    keras.utils.set_random_seed(0)
    config = ViTConfig(**SIZES, image_size=16, patch_size=4, num_channels=1, num_labels=10, initializer_range=0.1)
    return TFViTForImageClassification(config)


def make_feed(recipe: Recipe, model: TFViTForImageClassification) -> tuple[Feed, np.ndarray]:
    """The batches of the run, decoded and varied in threads, and the numbers of the images that are held out."""
    names = [f"{place:04}" for place in range(len(SCANS))]
    data = labelled("digits", names, SCANS.__getitem__, [str(label) for label in DIGITS.target])
    rows, held_out = split(data.labels, len(data), 0.2, recipe.seed)
    return Feed(recipe, model.config, PROCESSOR, data, rows), held_out


def batches(feed: Feed, first_epoch: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and soft targets of every step from an epoch on."""
    for fed in feed.training(first_epoch * feed.steps_of_epoch):
        yield fed.batch.pixel_values, fed.batch.targets


def train(recipe: Recipe, model: TFViTForImageClassification, output: Path) -> dict[str, list[float]]:
    """Runs the recipe by `fit`, and returns its history."""
    feed, held_out = make_feed(recipe, model)
    truth = np.eye(10, dtype=np.float32)[DIGITS.target[held_out]]
    pixels = PROCESSOR(list(SCANS[held_out]), input_data_format="none", return_tensors="np")["pixel_values"]
    model.compile(
        optimizer(model, recipe.optimisation(), recipe.learning_rates(feed.steps)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        SaveBest(output / "best"),
        keras.callbacks.CSVLogger(output / "log.csv"),
    ]
    settings = {"steps_per_epoch": feed.steps_of_epoch, "epochs": recipe.epochs, "verbose": 2, "shuffle": False}
    return model.fit(batches(feed), validation_data=(pixels, truth), callbacks=callbacks, **settings).history


class SaveBest(keras.callbacks.Callback):
    """Saves the model, as its average is while an epoch ends, where it judges the held-out images best."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.accuracy = folder, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if (accuracy := (logs or {})["val_accuracy"]) > self.accuracy:
            self.accuracy = accuracy
            self.model.save_pretrained(self.folder)
            PROCESSOR.save_pretrained(self.folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    history = train(make_recipe(), make_model(), arguments.output)
    print(f"held-out accuracy {max(history['val_accuracy']):.1%}")
