"""`vitriad convert`: a checkpoint in another program's names, layout and container."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict

import conversion
from vit_core.errors import CheckpointError
from vitriad.models import find
from vitriad.option_groups import reading_options


def run(arguments: Namespace) -> int:
    """Converts one checkpoint and prints what was done."""
    options, src = reading_options(arguments), find(arguments.source)
    if arguments.from_dialect is not None:
        opening = {name: options[name] for name in ("weights", "allow", "revision") if name in options}
        found = conversion.detect(src, **opening)
        if found != arguments.from_dialect:
            raise CheckpointError(f"{src}: of the dialect {found!r}, not {arguments.from_dialect!r}. Delete --from.")
    report = conversion.convert(
        src,
        arguments.target,
        to=arguments.to,
        force=arguments.force,
        dry_run=arguments.dry_run,
        max_shard_size=arguments.max_shard_size,
        adapt=tuple(arguments.adapt),
        **options,
    )
    print(json.dumps(asdict(report)) if arguments.json else report)
    return 0
