"""What `vitriad finetune` and `vitriad pretrain` share: from options to a recipe, and from a recipe to a run."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conversion.auto import configuration
from vit_core.errors import InputError
from vit_core.training.devices import check_count, words_of
from vit_core.training.published import published
from vit_core.training.recipe import Recipe, check_values, read_recipe, recipe_of
from vitriad.auto import available_backends
from vitriad.models import NAMES, find
from vitriad.printing import print_table, shown
from vitriad.training.folder import RECIPE
from vitriad.training.memory import sizes_of
from vitriad.training.run import devices_there, open_devices, run, trained_names
from vitriad.training.setup import CLASSES, Setup, fresh_config, set_up
from vitriad.training.workers import reporting_faults, run_workers

_OPTIONS = ("data", "model", "config", "held_out", "epochs", "batch_size", "rate", "seed")


def run_training(arguments: Namespace, objective: str | None) -> int:
    """One command line; 3 if some images could not be used."""
    recipe = recipe_from(arguments, objective)
    count, is_sharded = arguments.devices, arguments.sharded
    if arguments.dry_run:
        _say(set_up(recipe), count or 1, is_sharded)
        return 0
    if recipe.backend == "torch" and (count or 1) > 1 and "RANK" not in os.environ:
        check_count(count, *devices_there("torch"))
        options = ["--devices", str(count), *(["--sharded"] if is_sharded else [])]
        return run_workers(recipe, arguments.out, count, options)
    devices = open_devices(recipe.backend, count, is_sharded=is_sharded)
    with closing(devices), reporting_faults(devices.rank), _quiet(devices.rank > 0):
        setup = set_up(recipe)
        _say(setup, devices.count, is_sharded)
        return run(setup, arguments.out, devices)


@contextmanager
def _quiet(is_quiet: bool) -> Iterator[None]:
    """Inside this block nothing is shown: another process says the same."""
    if not is_quiet:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def recipe_from(arguments: Namespace, objective: str | None) -> Recipe:
    """The recipe that options ask for: a recorded one, or the published settings, with what is given in their place.

    Raises:
        InputError: options that do not go together, or a field that there is not.
    """
    given = {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}
    given |= _set(arguments.set)
    if arguments.backend != "auto":
        given["backend"] = arguments.backend
    recorded = arguments.recipe
    begun = Path(arguments.out) / RECIPE
    if recorded is None and "data" not in given:
        raise InputError(f"{arguments.command}: expected DATA, or --recipe with a recorded one.")
    if recorded is not None:
        old = asdict(read_recipe(recorded))
        if objective not in (None, old["objective"]):
            raise InputError(
                f"{recorded}: a recipe of {old['objective']}; vitriad {arguments.command} is for {objective}."
            )
        return recipe_of({**old, **_start(given, old), **given})
    if objective is None:
        raise InputError("pretrain: expected --objective mae or mim, or --recipe with a recorded one.")
    if "model" not in given and "config" not in given:
        given["model" if objective == "classification" else "config"] = _default(objective)
    if "backend" not in given:
        begun_with = read_recipe(begun).backend if begun.is_file() else None
        given["backend"] = begun_with or next(available_backends(CLASSES[objective]))
    return recipe_of({**_published(objective, given), "objective": objective, **given})


def _default(objective: str) -> str:
    return {"classification": NAMES[0], "mae": "vit-mae-base", "mim": "vit-base-patch16-224"}[objective]


def _start(given: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Takes the old beginning away where another one is given."""
    return {
        name: None for name in ("model", "config") if {*given} & {"model", "config"} and name not in given and old[name]
    }


def _set(texts: list[str]) -> dict[str, Any]:
    """The fields of --set FIELD=VALUE, values as JSON or as plain text.

    Raises:
        InputError: no such field, or a value of another type.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, is_one, value = text.partition("=")
        if not is_one:
            raise InputError(f"--set {text[:80]}: expected FIELD=VALUE, such as mixup=0.8.")
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            read = value
        found[name] = tuple(read) if isinstance(read, list) else read
    check_values(found)
    return found


def _published(objective: str, given: dict[str, Any]) -> dict[str, Any]:
    """The published settings for what is trained and how large it is."""
    if given.get("model") is not None:
        return published(objective, configuration(find(given["model"])), is_fresh=False)
    probe = {"objective": objective, "data": "", "backend": "", "epochs": 1, "rate": 1.0, "config": given["config"]}
    return published(objective, fresh_config(recipe_of(probe)), is_fresh=True)


def _say(setup: Setup, devices: int, is_sharded: bool) -> None:
    """What will be trained on what, for how long, and what it takes."""
    recipe, feed = setup.recipe, setup.feed
    sizes = sizes_of(setup, trained_names(setup), devices, is_sharded=is_sharded)
    start = recipe.model if recipe.model is not None else f"fresh weights of {recipe.config}"
    if recipe.model is not None and setup.fresh:
        start = f"{start}; fresh: {', '.join(dict.fromkeys(name.split('.')[0] for name in setup.fresh))}"
    classes = f", {len(feed.data.classes)} classes" if feed.data.classes else ""
    rate, of_image = recipe.learning_rates(feed.steps).rate, _size(sizes.of_image)
    on = f", {words_of(devices, is_sharded)} devices" if devices > 1 or is_sharded else ""
    each, shown_images = " on each" if devices > 1 else "", len(feed.rows) * recipe.epochs
    rows: list[tuple[str, str]] = [
        ("model", f"{setup.cls} from {start}"),
        ("parameters", f"{sizes.parameters:,}, of which {sizes.trained:,} are trained"),
        ("images", f"{len(feed.rows):,} to learn from, {len(setup.judged):,} held out{classes}"),
        (
            "steps",
            f"{feed.steps:,}: {recipe.epochs} epochs of {feed.steps_of_epoch:,}, {recipe.batch_size} images each",
        ),
        ("learning rate", f"{rate:.3g} at most, for this batch"),
        ("backend", f"{recipe.backend}, {recipe.precision}{on}"),
        (
            "memory",
            f"about {_size(sizes.bytes())}{each}: {_size(sizes.fixed)}, and {of_image} for each of {sizes.images} "
            "images",
        ),
        ("work", f"{sizes.work / 1e9:,.3g} GFLOP for each image, {sizes.work * shown_images / 1e15:,.3g} PFLOP in all"),
        ("disk", f"about {_size(sizes.checkpoint + 4 * sizes.parameters)} for two checkpoints"),
    ]
    print_table([(name, shown(text)) for name, text in rows])


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
