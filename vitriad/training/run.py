"""A run of training: steps, an evaluation after each epoch, and checkpoints from which it goes on to the bit."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from vit_core.errors import InputError
from vit_core.hub.model_card import card_text
from vit_core.training.devices import Devices
from vit_core.training.feeding import Fed
from vit_core.training.metrics import Tally, wilson
from vit_core.training.steps import StepResult, TrainStep
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.printing import shown
from vitriad.training.events import Events
from vitriad.training.folder import BEST, HELD_OUT, LAST, Place, RunFolder, last_step
from vitriad.training.memory import free_bytes, sizes_of
from vitriad.training.pictures import draw_curves, draw_reconstructions
from vitriad.training.setup import Setup

logger = logging.getLogger("vitriad")

_STOP = 2  # to save the run and to end, where 1 is to save it
_EVERY = 600.0  # seconds after which the middle of an epoch is saved too
_BATCH_FILE = "failed-batch.txt"
_NO_MEMORY = ("out of memory", "resource_exhausted", "can't allocate memory", "resourceexhausted", "failed to allocate")


class Run:
    """A run in its folder, begun or to be gone on with.

    Args:
        setup: what its recipe stands for.
        folder: of the run.
        devices: what it is computed on. In every process of a group a run is made, and only one of them writes.

    Attributes:
        step: the model with its optimiser.
        done: steps that are done.
        went_by: the `words` of the devices that it was computed on before.
    """

    def __init__(self, setup: Setup, folder: RunFolder, devices: Devices) -> None:
        self.setup, self.recipe, self.feed, self.devices = setup, setup.recipe, setup.feed, devices
        self.folder, self.digest = folder, setup.digest()
        self._asked: _Asked | None = None
        self._read = time.monotonic()
        self.folder.begin(self.recipe)
        devices.agreed(0)  # the recipe is there, for all
        place = self.folder.place(self.digest)
        devices.agreed(0)  # all have seen the same place
        self.went_by = place.devices if place else devices.words
        self.step = new_step(setup, devices)
        self.done, self.best = (place.step, place.best) if place else (0, None)
        self.is_averaged = self.recipe.average is not None
        if place is not None:
            self.step.restore(self.folder.state(self.is_averaged))
        self.lines = self.folder.metrics(before=self.done)
        self.rates = self.recipe.learning_rates(self.feed.steps)
        self.events = Events(self.folder.path, self.done, writes=self.folder.writes)
        if place is None:
            classes = self.setup.held_out.classes
            labels = self.setup.held_out.labels
            rows = self.setup.judged.tolist()
            said = [classes[labels[row]] if labels is not None else "" for row in rows]
            names = [self.setup.held_out.names[row] for row in rows]
            self.folder.table(HELD_OUT, [("path", "label"), *zip(names, said, strict=True)])
            self._save(LAST)  # so that a place that cannot be saved to is found out now

    def train(self) -> dict[str, Any]:
        """Goes on to the end; returns what was measured of the best checkpoint.

        Raises:
            InputError: the loss is no number any more, or a batch does not fit the memory.
            CheckpointError: a checkpoint cannot be saved; the older ones stay.
            KeyboardInterrupt: by Ctrl-C, once the run is saved where it stands.
        """
        saved = time.monotonic()
        steps = closing(self.feed.training(self.done))
        with _stopping() as stop, closing(self.events), steps as feds, self._progress() as bar:
            for fed in feds:
                self._one(fed, bar)
                self.done = fed.number + 1
                is_over = self.done % self.feed.steps_of_epoch == 0
                if is_over:
                    self._settle(bar)
                    self._judge(bar)
                is_late = time.monotonic() - saved > _EVERY
                word = self.devices.agreed(_STOP if stop.is_set else int(is_over or is_late))
                if word:
                    self._settle(bar)
                    self._save(LAST)
                    saved = time.monotonic()
                if word == _STOP:
                    print(self._stopped(), file=sys.stderr)
                    raise KeyboardInterrupt
        if self.best is None:
            raise InputError(
                f"{self.folder.path}: no image that can be used, or none that is held out; skipped.jsonl says why."
            )
        return self.best

    def _stopped(self) -> str:
        return f"vitriad: stopped after step {self.done} of {self.feed.steps}; the same command goes on from there."

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        options = {"unit": "step", "file": sys.stderr, "disable": not sys.stderr.isatty() or self.devices.rank > 0}
        with tqdm(total=self.feed.steps, initial=self.done, **options) as bar:
            yield bar

    # --- a step ------------------------------------------------------------------------------------------------------

    def _one(self, fed: Fed, bar: Any) -> None:
        """One step, and what it could not use. What it measured is read while the next one computes."""
        self._skip(fed, bar)
        bar.update()
        if fed.batch is None:
            return
        rate = self.rates(fed.number)
        with self._memory(len(fed.names)):
            result = self.step(fed.batch, rate)
        self._settle(bar)
        self._asked = _Asked(fed.number, fed.names, rate, result)

    def _settle(self, bar: Any) -> None:
        """Reads what the last step measured, which waits for it.

        Raises:
            InputError: it is no number, or memory ran out.
        """
        asked, self._asked = self._asked, None
        if asked is None:
            return
        count = len(asked.names)
        with self._memory(count):
            loss, norm = float(asked.result.loss), float(asked.result.gradient_norm)
        if not math.isfinite(loss) or not (math.isfinite(norm) or self.recipe.precision == "float16"):
            raise InputError(self._not_finite(asked, loss))
        line = {"step": asked.number + 1, "loss": loss, "rate": asked.rate, "gradient_norm": norm, "images": count}
        self._measure(line)
        now = time.monotonic()
        speed, self._read = count / max(now - self._read, 1e-9), now
        bar.set_postfix_str(f"loss {loss:.4f}, rate {asked.rate:.2e}, {speed:.0f} images/s", refresh=False)

    @contextmanager
    def _memory(self, images: int) -> Iterator[None]:
        """Says which batch would fit where memory runs out inside."""
        try:
            yield
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            raise InputError(self._too_large(images)) from problem

    def _skip(self, fed: Fed, bar: Any) -> None:
        if fed.skipped and self.folder.skipped(fed.skipped):
            for name, problem in fed.skipped.items():
                said = problem if name in problem else f"{name}: {problem}"
                bar.write(f"vitriad: skipped: {said}", file=sys.stderr)

    def _measure(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.folder.measured(line)
        self.events.add(line)

    def _not_finite(self, asked: _Asked, loss: float) -> str:
        path = self.folder.path / _BATCH_FILE
        if self.folder.writes:
            path.write_text("".join(f"{name}\n" for name in asked.names), encoding="utf-8")
        return (
            f"step {asked.number + 1}: the loss is {loss}, or its gradient is no number, on "
            f"{', '.join(asked.names[:2])} ...; {path} names all {len(asked.names)} images.\n"
            f"The last good checkpoint is {self.folder.path / LAST}, of step {last_step(self.folder.path)}.\n"
            "Take another --out with a lower --rate, --set clip=1.0, or precision=float32."
        )

    def _too_large(self, images: int) -> str:
        parts = self.recipe.accumulate
        part = math.ceil(math.ceil(images / parts) / self.devices.count)
        is_sharded = self.devices.words.endswith("sharded")
        sizes = sizes_of(self.setup, trained_names(self.setup), self.devices.count, is_sharded=is_sharded)
        on_device = self.devices.free_bytes()
        free = free_bytes() if on_device is None else on_device
        room = max(1, min(part // 2, int((free - sizes.fixed) / max(sizes.of_image, 1)))) if free else max(1, part // 2)
        return (
            f"out of memory: {part} images at a time on a device, which take about {sizes.bytes(part) / 1e9:.1f} GB.\n"
            f"About {room} would fit: --set accumulate={math.ceil(images / (room * self.devices.count))} computes the "
            "batch in such parts.\n"
            "Or take a smaller --batch-size, or --set recompute=true, which keeps less of each image."
        )

    # --- after an epoch ----------------------------------------------------------------------------------------------

    def _judge(self, bar: Any) -> None:
        """Evaluates what is held out, and keeps the model where it is the best one yet."""
        epoch = self.done // self.feed.steps_of_epoch
        found = self._held_out(bar)
        first = self.done - self.feed.steps_of_epoch
        steps = [line for line in self.lines if "rate" in line and line["step"] > first]
        if not steps or found is None:
            return
        images = sum(line["images"] for line in steps)
        loss = sum(line["loss"] * line["images"] for line in steps) / images
        line = {"step": self.done, "epoch": epoch, "train_loss": loss, **found}
        self._measure(line)
        bar.write(self._said(line), file=sys.stdout)
        if self.devices.agreed(int(self.best is None or _score(line) > _score(self.best))):
            self.best = line
            self._save(BEST)
        if self.folder.writes:
            draw_curves(self.folder.path, self.lines)

    def _held_out(self, bar: Any) -> dict[str, Any] | None:
        """What is measured on the images that are held out; None where none can be used."""
        tally, total, count = Tally(max(1, self.setup.config.num_labels)), 0.0, 0
        with closing(self.feed.judging(self.setup.held_out, self.setup.judged)) as batches:
            for fed in batches:
                self._skip(fed, bar)
                if fed.batch is None:
                    continue
                output = self.step.evaluate(fed.batch, averaged=self.is_averaged)
                if self.recipe.objective == "classification" and fed.labels is not None:
                    tally.add(output["logits"], fed.labels)
                    continue
                total, count = total + float(output["loss"]) * len(fed.names), count + len(fed.names)
                if self.recipe.objective == "mae" and fed.number == 0 and self.folder.writes:
                    epoch = self.done // self.feed.steps_of_epoch
                    draw_reconstructions(self.folder.path, epoch, fed, output, self.setup)
        if count:
            return {"held_out_loss": total / count, "held_out": count}
        if not tally.count:
            return None
        classes = self.feed.data.classes
        rows = zip(classes, tally.confusion.tolist(), strict=True)
        self.folder.table("confusion.csv", [("true", *classes), *((name, *row) for name, row in rows)])
        low, high = wilson(tally.right, tally.count)
        top = {"accuracy": tally.accuracy, "low": low, "high": high, "accuracy_of_five": tally.accuracy_of_five}
        return {"held_out_loss": tally.cross_entropy, **top, "held_out": tally.count}

    def _said(self, line: dict[str, Any]) -> str:
        recipe = self.recipe
        blurred = recipe.objective == "classification" and (recipe.mixup or recipe.cutmix or recipe.smoothing)
        of = " of mixed or smoothed labels" if blurred else ""
        said = f"epoch {line['epoch']} of {recipe.epochs}: loss {line['train_loss']:.4f}{of}"
        said += f", held out {line['held_out_loss']:.4f}"
        if "accuracy" in line:
            said += f", accuracy {line['accuracy']:.2%} ({line['low']:.2%} to {line['high']:.2%})"
        return said

    def _save(self, name: str) -> None:
        place = Place(self.done, self.digest, self.best, self.devices.words) if name == LAST else None
        card, setup, state = self._card(self.best), self.setup, self.step.state()  # which all processes gather
        if bad := [each for each, array in state.items() if not np.isfinite(array).all()]:
            raise InputError(
                f"step {self.done}: {bad[0].partition('.')[2]} is no number any more; nothing was saved of it.\n"
                f"The last good checkpoint is {self.folder.path / LAST}, of step {last_step(self.folder.path)}.\n"
                "Take another --out with a lower --rate, or --set clip=1.0."
            )
        self.folder.save(name, setup.config, setup.cls, self.feed.processor, state, card, place)

    def _card(self, best: dict[str, Any] | None) -> str:
        recipe = self.recipe
        start = f"from `{recipe.model}`" if recipe.model else f"from fresh weights of `{recipe.config}`"
        images = f"{len(self.feed.rows):,} images, step {self.done} of {self.feed.steps}"
        about = [
            f"Trained by vitriad ({recipe.objective}, {recipe.backend}) {start} on `{recipe.data}`: {images}.",
            "recipe.toml beside this folder says how.",
        ]
        if best is not None:
            said = {"Held-out images": f"{best['held_out']:,}", "Held-out loss": f"{best['held_out_loss']:.4f}"}
            if "accuracy" in best:
                said["Accuracy"] = f"{best['accuracy']:.2%} (95 % interval {best['low']:.2%} to {best['high']:.2%})"
                said["Among the best five"] = f"{best['accuracy_of_five']:.2%}"
            about += [
                "",
                f"Best, after epoch {best['epoch']}:",
                "",
                *(f"- {name}: {text}" for name, text in said.items()),
            ]
        size = sum(array.size for array in self.setup.tensors.values())
        return card_text(self.setup.config, self.setup.cls, size, self.folder.path.resolve().name, about=about)


def open_devices(backend: str, count: int | None, *, is_sharded: bool) -> Devices:
    """What a run of a backend is computed on.

    Raises:
        BackendError: it is not installed, or there are not so many devices.
        InputError: it is not spread in this way.
    """
    found: Devices = _module(backend, "training_devices").Devices(count, is_sharded=is_sharded)
    return found


def devices_there(backend: str) -> tuple[int, str]:
    """How many devices a backend has here, and what they are."""
    there: tuple[int, str] = _module(backend, "training_devices").there()
    return there


def _module(backend: str, name: str) -> Any:
    model_class("ViTModel", backend)  # imports the package, and says so if that cannot be
    return import_module(f"{BACKENDS[backend].package}.{name}")


def new_step(setup: Setup, devices: Devices) -> TrainStep:
    """The model of a run with its optimiser, in the backend of its recipe."""
    model = model_class(setup.cls, setup.recipe.backend)
    return devices.train_step(lambda: model.from_tensors(setup.config, setup.tensors), setup.recipe.optimisation())


def trained_names(setup: Setup) -> set[str]:
    """The parameters that a run moves."""
    groups = setup.recipe.optimisation().groups(setup.config, setup.cls)
    return {name for group in groups for name in group.names}


def run(setup: Setup, out: str | Path, devices: Devices) -> int:
    """Runs a recipe and says what came out; 3 if some images could not be used."""
    folder = RunFolder(out, writes=devices.rank == 0)
    with warnings.catch_warnings(), closing(folder):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked before decoding
        found = Run(setup, folder, devices)
        if found.done:
            print(f"going on after step {found.done} of {found.feed.steps}")
        if found.done and found.went_by != devices.words:
            print(f"devices: {devices.words}, where it was {found.went_by}: the same within rounding, not to the bit")
        best = found.train()
    print(f"{shown(str(found.folder.path / BEST))}: epoch {best['epoch']}, {_result(best)}")
    return 3 if (found.folder.path / "skipped.jsonl").is_file() else 0


def _result(best: dict[str, Any]) -> str:
    if "accuracy" not in best:
        return f"held-out loss {best['held_out_loss']:.4f}"
    return f"accuracy {best['accuracy']:.2%} (95 % interval {best['low']:.2%} to {best['high']:.2%})"


def _score(line: dict[str, Any]) -> float:
    """The more the better."""
    score: float = line["accuracy"] if "accuracy" in line else -line["held_out_loss"]
    return score


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether a framework, or Python, had no memory left, by what each of them says then."""
    said = f"{type(problem).__name__} {problem}".lower()
    return isinstance(problem, MemoryError) or "outofmemory" in said or any(each in said for each in _NO_MEMORY)


class _Asked(NamedTuple):
    """A step that was asked for, and whose numbers are not read yet: of these images, at this rate."""

    number: int
    names: tuple[str, ...]
    rate: float
    result: StepResult


class _Stop:
    """Whether Ctrl-C was pressed."""

    is_set = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """Inside this block the first Ctrl-C only asks to stop after the step; the second one stops at once."""
    stop, before = _Stop(), signal.getsignal(signal.SIGINT)
    try:
        if before != signal.SIG_IGN:
            signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread, which alone gets signals
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
