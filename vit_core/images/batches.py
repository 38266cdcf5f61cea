"""One call of an image processor: every image through every step, on several threads, into one array."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from vit_core.errors import ImageError, InputError
from vit_core.images import steps
from vit_core.images.options import CHECKS, ChannelDimension, height_width, layout
from vit_core.images.pictures import each_image, inferred_layout, is_drawn, read
from vit_core.images.pixel_budget import PixelBudget
from vit_core.images.steps import Parts, Picture
from vit_core.limits import Limits, check_limits
from vit_core.plain_values import short
from vit_core.tensors import Array, framework_of

_logger = logging.getLogger("vitriad")


@dataclass(frozen=True)
class _Job:
    index: int
    image: Any
    layout: str | None
    lock: Lock  # against decoding an image that is given twice in two threads at a time


class Batch:
    """One call: its options, and the array that results go straight into where all of them have one shape."""

    def __init__(self, options: Mapping[str, Any], wanted: str | None, given: str | None) -> None:
        self.options, self.wanted, self.given = options, wanted, given
        self.sides = height_width("size", options["size"]) if options["do_resize"] else None
        self.crop_sides = height_width("crop_size", options["crop_size"]) if options["do_center_crop"] else None
        self.total: int | None = None
        self.rows: Array | None = None
        self.tables: dict[int, Array] = {}  # channels -> what becomes of each level
        self.lock = Lock()
        self.budget = PixelBudget()

    def process(self, images: Any, num_threads: int, limits: Limits) -> Array | list[Array]:
        """The results in order: rows of one array, or a list."""
        check_limits(limits)
        flat = _bounded(each_image(images, rank=2 if self.given == "none" else 3), limits)
        if not is_drawn(images):
            known = [*flat]
            flat, self.total = iter(known), len(known)
        num_threads = min(num_threads, self.total or 1)
        if num_threads == 1:  # also for what is drawn: the next image may be the same object with new contents
            results = [*map(self._one, self._jobs(flat))]
        else:
            with ThreadPoolExecutor(num_threads) as pool:
                results = [*pool.map(self._one, self._jobs(flat))]  # the first in order to fail is the one that raises
        if not results:
            raise ImageError("preprocess: expected at least one image, got none.")
        is_whole = self.rows is not None and all(result.base is self.rows for result in results)
        return self.rows if is_whole and self.rows is not None else results

    def _jobs(self, images: Iterable[Any]) -> Iterator[_Job]:
        layout_of_arrays, locks = None, defaultdict[int, Lock](Lock)
        for index, image in enumerate(images):
            layout_of_this = self.given
            if layout_of_this is None and len(getattr(image, "shape", ())) == 3:  # the first such array speaks for all
                with suppress(ImageError):  # said when its turn comes
                    layout_of_arrays = layout_of_this = layout_of_arrays or inferred_layout(tuple(image.shape))
            yield _Job(index, image, layout_of_this, locks[id(image)])

    def _one(self, job: _Job) -> Array:
        with self.budget.holding(_pixels_of(job.image)):
            return self._result(job)

    def _result(self, job: _Job) -> Array:
        index, image = job.index, job.image
        try:
            with job.lock:
                found = read(image, job.layout, self.options)
            if self.given is None and framework_of(image) is not None:
                _check_inferred(found.picture, found.layout)
            if index == 0 and self.options["do_rescale"] and getattr(image, "mode", "F") == "F":
                _warn_if_scaled(found.picture)
            picture = self._resized(found.picture)
            channels = 3 if found.is_spread else _channels(picture)
            return self._finished(index, picture, channels, self.wanted or found.layout)
        except (ImageError, MemoryError) as error:
            reason = "not enough memory for it." if isinstance(error, MemoryError) else error
            total = "" if self.total is None else f" of {self.total}"
            raise ImageError(f"image {index}{total}: {reason}") from None

    def _resized(self, picture: Picture | Parts) -> Picture:
        if isinstance(picture, Parts):
            sides = height_width("size", self.options["size"])  # only what is to be resized comes in parts
            picture = steps.resize_parts(picture, sides, self.options["resample"])
        elif self.sides:
            compatible = bool(self.options["compatible"])
            picture = steps.resize(picture, self.sides, self.options["resample"], compatible=compatible)
        if self.crop_sides:
            picture = steps.center_crop(steps.as_array(picture), self.crop_sides)
        return picture

    def _finished(self, index: int, picture: Picture, channels: int, layout: str) -> Array:
        """The picture through the last two steps, in its row; one channel where more are wanted is repeated."""
        if isinstance(picture, np.ndarray) and picture.dtype != np.uint8:
            picture = np.broadcast_to(picture, (*picture.shape[:2], channels))
            picture = steps.rescale_and_normalize(picture, self.options)
            result = self._row(index, _shape(picture, channels, layout), picture.dtype)
            _planes(result, layout)[...] = np.moveaxis(picture, -1, 0)
            return result
        if channels not in self.tables:
            self.tables[channels] = steps.levels(channels, self.options)
        table = self.tables[channels]
        result = self._row(index, _shape(picture, channels, layout), table.dtype)
        planes = [*steps.planes(picture)]
        planes *= channels // len(planes)
        for levels, plane, into in zip(table, planes, _planes(result, layout), strict=True):
            steps.look_up(levels, plane, into)
        return result

    def _row(self, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if self.total is None or not (self.sides or self.crop_sides):
            return np.empty(shape, dtype)
        with self.lock:
            if self.rows is None:
                self.rows = np.empty((self.total, *shape), dtype)
        fits = (self.rows.shape[1:], self.rows.dtype) == (shape, dtype)
        return self.rows[index] if fits else np.empty(shape, dtype)


def apply(step: Callable[[Array], Array], image: Any, data_format: object, input_data_format: object) -> Array:
    """One step on one image; `data_format` where None is the layout that it came in."""
    wanted = layout("data_format", data_format)
    as_it_is = dict.fromkeys(CHECKS) | {"do_convert_rgb": False}
    found = read(image, layout("input_data_format", input_data_format), as_it_is)
    picture = step(steps.as_array(found.picture))
    result = np.empty(_shape(picture, picture.shape[2], wanted or found.layout), picture.dtype)
    _planes(result, wanted or found.layout)[...] = np.moveaxis(picture, -1, 0)
    return result


def threads(num_threads: int | None) -> int:
    """How many images to work on at the same time; None is as many as there are CPUs for this process."""
    if num_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
        raise InputError(f"num_threads: expected a whole number of at least 1, or None, got {short(num_threads)}.")
    return num_threads


def _bounded(images: Iterator[Any], limits: Limits) -> Iterator[Any]:
    for index, image in enumerate(images):
        if index == limits.batch_images:
            raise ImageError(
                f"preprocess: more images in one call than {limits.bound('batch_images')}.\n"
                "Several calls give the same."
            )
        yield image


def _pixels_of(image: Any) -> int:
    """Pixels of a picture, decoded or not; of what is none, none."""
    if isinstance(image, Image.Image):
        return image.width * image.height
    return math.prod(shape) if isinstance(shape := getattr(image, "shape", None), tuple) else 0


def _channels(picture: Picture) -> int:
    return len(picture.getbands()) if isinstance(picture, Image.Image) else int(picture.shape[2])


def _check_inferred(picture: Picture | Parts, layout: str) -> None:
    if isinstance(picture, np.ndarray) and picture.shape[2] not in (1, 3, 4):
        raise ImageError(
            f"expected 1, 3 or 4 channels, got {picture.shape[2]} when read as {layout} like the first array.\n"
            "Use one layout for all, or pass input_data_format."
        )


def _warn_if_scaled(picture: Picture | Parts) -> None:
    if isinstance(picture, np.ndarray) and picture.dtype != np.uint8 and picture.min() >= 0 and picture.max() <= 1:
        _logger.warning("The first image holds 0..1 already and is rescaled again; pass do_rescale=False.")


def _shape(picture: Picture, channels: int, layout: str) -> tuple[int, ...]:
    """The shape of a picture of so many channels in a layout."""
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)
    if layout == ChannelDimension.FIRST:
        return channels, height, width
    if layout == ChannelDimension.LAST:
        return height, width, channels
    if channels != 1:
        raise ImageError(f"data_format 'none': expected 1 channel, got {channels}.")
    return height, width


def _planes(result: Array, layout: str) -> Array:
    """A view of an array of some layout as (channels, height, width)."""
    if layout == ChannelDimension.NONE:
        return result[None]
    return result if layout == ChannelDimension.FIRST else np.moveaxis(result, -1, 0)
