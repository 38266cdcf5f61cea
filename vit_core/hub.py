"""Where a name points: a local folder as it is, or a hub snapshot with only the files that were asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_core.atomic_folder import finish_swap
from vit_core.errors import CheckpointError, MissingFileError

# Keywords of from_pretrained that say where and how to fetch, and nothing else.
HUB_OPTIONS = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "force_download")


def resolve(
    name_or_path: str | Path,
    files: Sequence[str],
    *,
    revision: str | None = None,
    subfolder: str = "",
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The local folder that holds the files of a checkpoint.

    Args:
        name_or_path: an existing folder, or "owner/name" on the hub.
        files: names or glob patterns of the files wanted; only these are requested from the hub.
        revision: branch, tag or commit on the hub (its default branch where None).
        subfolder: folder inside the repository or inside the local folder.
        cache_dir: where downloads are kept (huggingface_hub's own place where None).
        token: access token for private repositories; never logged.
        local_files_only: never open a connection.
        force_download: fetch again even if cached.

    Raises:
        MissingFileError: neither a folder nor a name of the hub's form, or nothing there.
        CheckpointError: the hub answered with an error, or the name leaves its folder.
    """
    if Path(subfolder).is_absolute() or ".." in Path(subfolder).parts:
        raise CheckpointError(f"subfolder {subfolder!r}: expected a path inside the checkpoint.")
    finish_swap(name_or_path)
    if os.path.isdir(name_or_path):
        return Path(name_or_path) / subfolder
    if os.path.isfile(name_or_path):
        raise CheckpointError(f"{name_or_path}: expected a folder or a hub name 'owner/name', got a file.")
    _check_hub_name(str(name_or_path))
    snapshot = _download(
        str(name_or_path),
        [f"{subfolder}/{name}" if subfolder else name for name in files],
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    return snapshot / subfolder


def _check_hub_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # imported there on purpose

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise MissingFileError(f"{name}: no such folder, and not a hub name of the form 'owner/name'.") from None


def _download(name: str, files: list[str], **options: Any) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files, **options))
    except RepositoryNotFoundError:
        raise MissingFileError(
            f"{name}: no such folder here and no such repository on the hub.\n"
            "Check the spelling; a private repository needs token=."
        ) from None
    except LocalEntryNotFoundError:
        raise MissingFileError(
            f"{name}: not in the local cache, and the hub cannot be reached (or local_files_only is set)."
        ) from None
    except HfHubHTTPError as error:
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise CheckpointError(f"{name}: the hub refused: {reason}") from None
