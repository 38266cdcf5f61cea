"""`vitriad export`: a checkpoint as a program for another engine."""

from __future__ import annotations

import json
from argparse import Namespace

from vit_core.errors import InputError
from vit_core.images.sources import image_paths
from vitriad.option_groups import reading_options
from vitriad.programs.exporting import export, loaded


def run(arguments: Namespace) -> int:
    """Exports one checkpoint and prints its certificate."""
    to, options = arguments.to, reading_options(arguments)
    if arguments.aoti and to not in ("pt2", "aoti"):
        raise InputError(f"--aoti: only of pt2, got --to {to}.")
    to = "aoti" if arguments.aoti else to
    model, processor = loaded(arguments.source, to, arguments.backend, options.pop("cls", None), **options)
    certificate = export(
        model,
        arguments.target,
        to,
        outputs=arguments.outputs,
        layers=arguments.layers,
        dynamic=arguments.dynamic,
        image_size=arguments.image_size,
        image_processor=processor,
        preprocessing=arguments.with_preprocessing,
        dtype=arguments.dtype,
        int8=arguments.int8,
        calibration=[*image_paths(arguments.calibration)],
        min_cosine=arguments.min_cosine,
        pictures=[*image_paths(arguments.images)],
        force=arguments.force,
    )
    print(json.dumps(certificate.as_dict()) if arguments.json else certificate)
    return 0
