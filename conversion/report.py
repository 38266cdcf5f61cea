"""The report of a load: what was renamed, initialised, left out or resized, in lines to read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from conversion.detecting import Source
from conversion.fitting import Fitted
from conversion.folds import LOSSY
from conversion.inference import is_of_transformers
from vit_core.config import OWN_TYPE, PretrainedConfig, patch_grid
from vit_core.plain_values import name_list

logger = logging.getLogger("vitriad")


@dataclass(frozen=True)
class Report:
    """The report of a load, in lines to read: `print(report)`.

    Attributes:
        source: what was loaded.
        dialect: whose names and layout it has.
        model: the class it was loaded for.
        commit: of a hub repository; None for local files.
        notes: one line for everything that is not plain copying.
    """

    source: str
    dialect: str
    model: str
    commit: str | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        at = f" at {self.commit}" if self.commit else ""
        return "\n".join([f"{self.source}{at} (dialect {self.dialect}) as {self.model}", *self.notes])


def report_of(source: Source, config: PretrainedConfig, model: str, fitted: Fitted) -> Report:
    """The report of one load."""
    notes = [*source.notes]
    prefix = source.dialect.prefix
    renamed = [f"{stored} for {name}" for name, stored in source.names.items() if stored.removeprefix(prefix) != name]
    if renamed and source.dialect.is_canonical:
        notes.append(f"{len(renamed)} names spelled otherwise, such as {renamed[0]}")
    if model == "ViTForImageClassification" and source.has_representation:
        notes.append(f"left out, as allowed: {LOSSY['pre_logits']}")
    said = source.config if source.config is not None and is_of_transformers(source.config) else {}
    found = said.get("model_type", config.model_type)
    if found not in (config.model_type, OWN_TYPE):
        notes.append(f"configuration: of model_type {found}, read as {config.model_type}")
    rows = {
        "resized to {} x {} patches".format(*patch_grid(config)): fitted.resized,
        "left out, the class has no such part": fitted.dropped,
        "left out, not known here": fitted.unexplained,
        "not in the file, initialised": fitted.missing,
        "of another shape, initialised": fitted.mismatched,
    }
    notes += fitted.adapted
    notes += [f"{what}: {name_list(names)}" for what, names in rows.items() if names]
    return Report(source.where, source.dialect.name, model, source.commit, tuple(notes))


def log(report: Report, fitted: Fitted, outside: Sequence[str]) -> None:
    """One line: a warning if the model is not all from the file."""
    if anew := [*fitted.missing, *fitted.mismatched]:
        logger.warning("%s from %s: initialised anew, so train it: %s", report.model, report.source, name_list(anew))
    if left := [*fitted.dropped, *fitted.unexplained, *outside]:
        logger.info("%s from %s: left out: %s", report.model, report.source, name_list(left))
