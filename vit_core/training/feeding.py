"""From a data set to the batches of a run: decoded ahead by threads, varied, mixed and masked, by seed and place."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from vit_core.config import PretrainedConfig, pair, patch_grid
from vit_core.errors import ImageError
from vit_core.images.decoding import in_order
from vit_core.images.files import image_pixels, open_image
from vit_core.images.pixel_budget import PixelBudget
from vit_core.images.processor import ViTImageProcessor
from vit_core.images.reading import pixel_values, plain_levels
from vit_core.masking import drop_path_mask, noise
from vit_core.tensors import Array
from vit_core.training.augmentation import Augmentation
from vit_core.training.batches import TrainingBatch
from vit_core.training.data import DataSet, class_weights
from vit_core.training.draws import Draws
from vit_core.training.mixing import mixed, soft_targets
from vit_core.training.recipe import Recipe

_JUDGED = 2**63  # where the noise of evaluation begins: no run has so many steps


class Fed(NamedTuple):
    """The images of one step, or of one batch of an evaluation.

    Attributes:
        number: of the step or the batch.
        names: of the images that could be used.
        batch: what the model takes; None where none could.
        labels: (images,), of what has classes.
        skipped: name and reason of the others.
    """

    number: int
    names: tuple[str, ...]
    batch: TrainingBatch | None
    labels: Array | None
    skipped: dict[str, str]


class _Place(NamedTuple):
    """An image in a run: in which batch, in which epoch (None: to be judged, as it is), and its number in the data."""

    number: int
    epoch: int | None
    row: int


@dataclass(frozen=True, eq=False)
class Feed:
    """The batches of a run.

    Attributes:
        recipe: of the run.
        config: of the model.
        processor: how images are prepared for it; it gives every image the size of the model.
        data: what is trained on.
        rows: numbers of its images that are.
    """

    recipe: Recipe
    config: PretrainedConfig
    processor: ViTImageProcessor
    data: DataSet
    rows: Array

    @property
    def steps_of_epoch(self) -> int:
        """Steps in which every image is seen once; the last one may have fewer images."""
        return math.ceil(len(self.rows) / self.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.steps_of_epoch * self.recipe.epochs

    def training(self, first: int = 0) -> Generator[Fed, None, None]:
        """What every step from `first` on is computed from: the same, wherever a run begins.

        An image that cannot be used is left out of its batch; the others stay in theirs.
        """
        weights = None
        if self.recipe.class_weights and self.data.labels is not None:
            weights = class_weights(self.data.labels[self.rows], len(self.data.classes))
        for number, rows, pixels, skipped in self._decoded(
            self.data, self._places(first), self.recipe.augmentation(self._size)
        ):
            labels = None if self.data.labels is None else self.data.labels[rows]
            batch = self._batch(number, pixels, labels, weights) if rows else None
            yield Fed(number, tuple(self.data.names[row] for row in rows), batch, labels, skipped)

    def judging(self, data: DataSet, rows: Array) -> Generator[Fed, None, None]:
        """Images as they are, in batches, without targets; masked the same in every evaluation."""
        size = self.recipe.batch_size
        places = (_Place(place // size, None, row) for place, row in enumerate(rows.tolist()))
        for number, found, pixels, skipped in self._decoded(data, places, None):
            labels = None if data.labels is None else data.labels[found]
            batch = TrainingBatch(np.stack(pixels), **self._masks(_JUDGED + number, len(found))) if found else None
            yield Fed(number, tuple(data.names[row] for row in found), batch, labels, skipped)

    @property
    def _size(self) -> tuple[int, int]:
        return pair(self.config.image_size)

    def _places(self, first: int) -> Iterator[_Place]:
        size = self.recipe.batch_size
        for epoch in range(first // self.steps_of_epoch, self.recipe.epochs):
            order = self.rows[Draws(self.recipe.seed, "order", epoch).order(len(self.rows))]
            for step in range(max(first - epoch * self.steps_of_epoch, 0), self.steps_of_epoch):
                for row in order[step * size : (step + 1) * size].tolist():
                    yield _Place(epoch * self.steps_of_epoch + step, epoch, row)

    def _decoded(
        self, data: DataSet, places: Iterable[_Place], augmentation: Augmentation | None
    ) -> Iterator[tuple[int, list[int], list[Array], dict[str, str]]]:
        """Number of a batch, the rows of its images, their pixel values, and which could not be used, and why."""
        budget = PixelBudget()

        def prepared(place: _Place) -> Array | ImageError:
            try:
                opened = data.opened(place.row)
                with budget.holding(opened.size if isinstance(opened, np.ndarray) else image_pixels(opened)):
                    return self._pixels(opened, place, augmentation)
            except ImageError as problem:
                return problem

        images = in_order(places, prepared, 2 * self.recipe.batch_size)
        for number, group in groupby(images, lambda found: found[0].number):
            rows, pixels, skipped = [], [], {}
            for place, found in group:
                if isinstance(found, ImageError):
                    skipped[data.names[place.row]] = str(found)
                else:
                    rows.append(place.row)
                    pixels.append(found)
            yield number, rows, pixels, skipped

    def _pixels(self, opened: Any, place: _Place, augmentation: Augmentation | None) -> Array:
        """(channels, height, width) of one image."""
        channels = self.config.num_channels
        image = opened if isinstance(opened, np.ndarray) else open_image(opened)
        height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
        least = pair(self.config.patch_size)
        if height < least[0] and width < least[1]:
            raise ImageError(f"{height}x{width} pixels, less than one patch of the model ({least[0]}x{least[1]}).")
        if augmentation is None or place.epoch is None:
            return pixel_values(image, self.processor, channels, expected=self._size)
        levels = augmentation(plain_levels(image, self.processor, channels), self.recipe.seed, place.epoch, place.row)
        done = self.processor(
            levels,
            do_resize=False,
            do_center_crop=False,
            num_threads=1,
            input_data_format="none" if levels.ndim == 2 else "channels_last",
        )
        pixels: Array = done["pixel_values"][0]
        return pixels

    def _batch(self, step: int, pixels: list[Array], labels: Array | None, weights: Array | None) -> TrainingBatch:
        images, targets = np.stack(pixels), None
        if self.recipe.objective == "classification" and labels is not None:
            targets = soft_targets(labels, self.config.num_labels, self.recipe.smoothing)
            strength = {"mixup": self.recipe.mixup, "cutmix": self.recipe.cutmix}
            images, targets = mixed(images, targets, self.recipe.seed, step, **strength)
            targets = targets if weights is None else targets * weights
        rates = self.config.drop_path_rates
        left_out = drop_path_mask(self.recipe.seed, len(images), rates, step) if any(rates) else None
        return TrainingBatch(images, targets, **self._masks(step, len(images)), drop_path_mask=left_out)

    def _masks(self, step: int, count: int) -> dict[str, Array]:
        """What hides patches, by field."""
        if self.recipe.objective == "classification":
            return {}
        patches = math.prod(patch_grid(self.config))
        drawn = noise(self.recipe.seed, count, patches, step)
        if self.recipe.objective == "mae":
            return {"noise": drawn}
        hidden = max(1, round(self.recipe.mask_ratio * patches))
        ranks = np.argsort(np.argsort(drawn, axis=1, kind="stable"), axis=1, kind="stable")
        return {"bool_masked_pos": ranks < hidden}
