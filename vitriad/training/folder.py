"""The folder of a run: its recipe, what was measured, and checkpoints, to be loaded and to go on from."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from conversion.saving import save_pretrained
from vit_core.errors import CheckpointError, InputError
from vit_core.files.atomic_folder import finds_folder, write_file
from vit_core.files.folders import open_weights
from vit_core.files.json import json_text, read_json
from vit_core.files.safetensors import open_file, serialised
from vit_core.files.saving import write_pieces
from vit_core.files.targets import check_target
from vit_core.images.processor import ViTImageProcessor
from vit_core.tensors import Array
from vit_core.training.recipe import Recipe, read_recipe

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

RECIPE, METRICS, SKIPPED, HELD_OUT = "recipe.toml", "metrics.jsonl", "skipped.jsonl", "held-out.csv"
BEST, LAST, INSIDE = "best", "last", "training"  # INSIDE: in a checkpoint, what only going on needs
_STATE, _PLACE, _LOCK = "state.safetensors", "place.json", ".lock"
State = dict[str, Array]


class Place(NamedTuple):
    """Where a run stands.

    Attributes:
        step: how many steps are done.
        digest: of the data.
        best: what was measured of the best checkpoint; None before the first evaluation.
        devices: the `words` of what it was computed on.
    """

    step: int
    digest: str
    best: dict[str, Any] | None
    devices: str = "1"


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder; made where missing.
        writes: whether this process is the one that writes to it; to the others it is what that one has written.
    """

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path, self.writes = Path(path), writes
        self._lock: TextIO | None = None

    def begin(self, recipe: Recipe) -> None:
        """Takes the folder, which no other process does until `close`; writes the recipe, or finds the same one there.

        Raises:
            InputError: another recipe is there, something else is, another run is in work there, or it cannot be
                written.
        """
        if not self.writes:
            return
        check_target(self.path, is_folder=True, error=InputError)
        is_run = (self.path / RECIPE).is_file()
        if not is_run and self.path.is_dir() and {*os.listdir(self.path)} - {_LOCK}:
            raise InputError(f"{self.path}: something is there that is no run; take another --out.")
        try:
            self._take()
            self._check(recipe)
        except BaseException:
            self.close()
            raise

    def _check(self, recipe: Recipe) -> None:
        if not (self.path / RECIPE).is_file():
            write_file(self.path / RECIPE, recipe.text(), error=InputError)
        elif differing := recipe.differing(read_recipe(self.path / RECIPE)):
            raise InputError(
                f"{self.path}: a run of another recipe is there, which differs in {', '.join(differing)}.\n"
                "Take another --out, or leave these options as they were to go on with it."
            )

    def _take(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / _LOCK).open("a+", encoding="utf-8")
            self._lock.seek(0)
        except OSError as problem:
            raise InputError(f"{self.path}: cannot be written to: {problem.strerror}.") from None
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self._lock.read(200) or "another process"
            raise InputError(
                f"{self.path}: {holder} runs there right now.\nWait for it, stop it, or take another --out."
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def close(self) -> None:
        """Lets others run there; the system does so too when this process ends, however that is."""
        if self._lock is not None:
            self._lock.close()

    def place(self, digest: str) -> Place | None:
        """Where the last checkpoint stands; None where there is none.

        Raises:
            InputError: the data are others than then.
        """
        if not finds_folder(self.path / LAST):
            return None
        said = read_json(self.path / LAST / INSIDE / _PLACE, limit="config_bytes", error=CheckpointError)
        place = Place(**said)
        if place.digest != digest:
            raise InputError(
                f"{self.path}: the images, their labels or their files are others than when this run began.\n"
                "Take another --out for a run with these."
            )
        return place

    def state(self, is_averaged: bool) -> State:
        """The state of the last checkpoint, for `TrainStep.restore`."""
        folder = self.path / LAST
        weights = "average" if is_averaged else "model"
        state = dict(open_file(folder / INSIDE / _STATE).tensors)
        found = {f"{weights}.{name}": array for name, array in open_weights(folder).items()}
        return {**found, **{name: array.read() for name, array in state.items()}}

    def save(
        self,
        name: str,
        config: Any,
        cls: str,
        processor: ViTImageProcessor,
        state: Mapping[str, Array],
        card: str,
        place: Place | None = None,
    ) -> None:
        """Writes a checkpoint, as a whole or not at all; the one that was there stays until then.

        Args:
            name: BEST or LAST.
            config, cls, processor: of the model.
            state: of `TrainStep`. The model is its average where there is one.
            card: text of README.md.
            place: to go on from; None for a checkpoint that is only a model.

        Raises:
            CheckpointError: it cannot be written, as on a full disk.
        """
        if not self.writes:
            return
        weights = "average." if any(each.startswith("average.") for each in state) else "model."
        tensors = {each.removeprefix(weights): array for each, array in state.items() if each.startswith(weights)}
        rest = {each: array for each, array in state.items() if not each.startswith(weights)}

        def fill(folder: Path) -> None:
            folder.mkdir()
            write_pieces(folder / _STATE, serialised(rest, lambda _: None))
            (folder / _PLACE).write_text(json_text(place._asdict() if place else {}), encoding="utf-8")

        save_pretrained(
            self.path / name,
            config,
            tensors,
            class_name=cls,
            beside={"preprocessor_config.json": processor.to_json_string(), "README.md": card},
            folders={INSIDE: fill} if place else None,
        )

    def metrics(self, before: int | None = None) -> list[dict[str, Any]]:
        """What was measured, line by line.

        Args:
            before: keep only what was measured up to this step, on the disk too: a run goes on from there.
        """
        try:
            lines = (self.path / METRICS).read_text(encoding="utf-8").split("\n")[:-1]  # the last one may be torn
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        if before is not None:
            found = [line for line in found if line["step"] <= before]
        if before is not None and self.writes:
            write_file(self.path / METRICS, "".join(f"{json.dumps(line)}\n" for line in found), error=InputError)
        return found

    def measured(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the metrics."""
        if not self.writes:
            return
        with open(self.path / METRICS, "a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")

    def skipped(self, found: Mapping[str, str]) -> int:
        """Records images that cannot be used, each once; returns how many are new."""
        if not self.writes:
            return 0
        path = self.path / SKIPPED
        known = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        lines = [json.dumps({"name": name, "error": error}) for name, error in found.items()]
        new = [line for line in lines if line not in known]
        if new:
            write_file(path, "".join(f"{line}\n" for line in [*known, *new]), error=InputError)
        return len(new)

    def table(self, name: str, rows: Iterable[Iterable[Any]]) -> None:
        """Writes a file of values with commas between them."""
        if not self.writes:
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_file(self.path / name, text.getvalue(), error=InputError)


def last_step(path: str | Path) -> int | None:
    """How many steps the last checkpoint of a run has done; None where there is none."""
    folder = Path(path) / LAST
    if not finds_folder(folder):
        return None
    step: int = read_json(folder / INSIDE / _PLACE, limit="config_bytes", error=CheckpointError)["step"]
    return step
