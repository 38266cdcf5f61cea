"""What models are called by those who ask for them: a name that can stand in an address, and a version."""

from __future__ import annotations

import re
from pathlib import Path

from vit_core.errors import InputError
from vit_core.plain_values import short

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # NAME.TASK is for protocols


def named(given: str) -> tuple[str, str, str]:
    """Name, version and source of a model, of a text such as "digits@2=runs/digits-vit".

    Raises:
        InputError: a name that cannot stand in an address.
    """
    called, is_named, source = given.partition("=")
    if not is_named or Path(given).exists():
        called, source = Path(given).name.partition(".")[0] or "model", given
    name, _, version = called.partition("@")
    version = version or "1"
    if not _NAME.fullmatch(name) or not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise InputError(f"{short(given)}: expected NAME=MODEL or NAME@2=MODEL, of letters, digits, _ and -.")
    return name, version, source
