"""The two small models and the held-out digits that come with vitriad; README.md beside this file describes them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("digits-vit", "digits-vit-mae")


def find(name_or_path: str | Path) -> str | Path:
    """The folder of a shipped model, if it is named and no such folder is at hand; other names as they are."""
    return FOLDER / name_or_path if name_or_path in NAMES and not Path(name_or_path).exists() else name_or_path


def digit_files() -> list[Path]:
    """Two held-out scans of every digit; the file name begins with the true label."""
    return sorted(FOLDER.glob("digits/*.png"))
