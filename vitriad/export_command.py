"""`vitriad export`: a checkpoint as a program for another engine."""

from __future__ import annotations

import json
from argparse import Namespace

from vitriad.classify import image_paths
from vitriad.cli import reading_options
from vitriad.exporting import export, loaded


def run(arguments: Namespace) -> int:
    """Exports one checkpoint and prints its certificate."""
    options = reading_options(arguments)
    model, processor = loaded(arguments.source, arguments.to, arguments.backend, options.pop("cls", None), **options)
    certificate = export(
        model,
        arguments.target,
        arguments.to,
        outputs=arguments.outputs,
        layers=arguments.layers,
        dynamic=arguments.dynamic,
        image_size=arguments.image_size,
        image_processor=processor,
        preprocessing=arguments.with_preprocessing,
        pictures=[*image_paths(arguments.images)],
        force=arguments.force,
    )
    print(json.dumps(certificate.as_dict()) if arguments.json else certificate)
    return 0
