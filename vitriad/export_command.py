"""`vitriad export`: a checkpoint as a program for another engine."""

from __future__ import annotations

import json
from argparse import Namespace

from conversion.auto import architecture
from conversion.detect import open_source
from conversion.processors import find_processor
from vit_core.errors import InputError
from vitriad.auto import model_class
from vitriad.classify import image_paths
from vitriad.cli import reading_options
from vitriad.exporting import FORMATS, export
from vitriad.models import find


def run(arguments: Namespace) -> int:
    """Exports one checkpoint and prints its certificate."""
    path, options = find(arguments.source), reading_options(arguments)
    cls = options.pop("cls", None)
    config, name, parts = architecture(path, **options)
    chosen = model_class(cls or name, _backend(arguments))
    model, loading = chosen.from_pretrained(path, output_loading_info=True, **{**parts, **options})
    if missing := [each for each in loading["missing_keys"] if not each.startswith("pooler.")]:
        raise InputError(f"export: {path}: as {cls or name}, it lacks {missing[0]}: --class says for what to read it.")
    source = open_source(path, revision=config.hub_commit, verify=False)
    certificate = export(
        model,
        arguments.target,
        arguments.to,
        outputs=arguments.outputs,
        layers=arguments.layers,
        dynamic=arguments.dynamic,
        image_size=arguments.image_size,
        image_processor=find_processor(source, config).processor,
        preprocessing=arguments.with_preprocessing,
        pictures=[*image_paths(arguments.images)],
        force=arguments.force,
    )
    print(json.dumps(certificate.as_dict()) if arguments.json else certificate)
    return 0


def _backend(arguments: Namespace) -> str:
    """The backend that writes the format: the one that was asked for, else the usual one."""
    known = [*FORMATS[arguments.to].converters]
    if arguments.backend not in ("auto", *known):
        raise InputError(f"--backend: {arguments.to} is written from {' or '.join(known)}, got {arguments.backend}.")
    return known[0] if arguments.backend == "auto" else str(arguments.backend)
