"""What pip recorded of this copy of vitriad: its version, and the command that adds an extra to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path


def install_command(*extras: str) -> str:
    """What to type so that this copy of vitriad gets extras, such as "torch".

    Where the checkout or wheel that it came from is gone, that is what the extras ask for, without vitriad.

    Source: direct_url.json of PEP 610, which is there unless the copy came from a package index.
    """
    from shlex import quote  # these modules, and those below, cost more than all of the core's own
    from urllib.parse import urlsplit

    wanted = f"[{','.join(extras)}]"
    found = _record()
    url, path = str(found.get("url", "")), _path(str(found.get("url", "")))
    if isinstance(vcs := found.get("vcs_info"), dict):
        url, path = _of_vcs(url, vcs), None
    if path is not None:
        folder = found.get("dir_info")
        is_editable = isinstance(folder, dict) and bool(folder.get("editable"))
        return f"pip install {'-e ' if is_editable else ''}{quote(f'{path}{wanted}')}"
    if urlsplit(url).scheme == "file" and (wishes := _requirements(extras)):
        return f"pip install {' '.join(map(quote, wishes))}"
    if urlsplit(url).scheme not in ("", "file"):
        return f"pip install {quote(f'vitriad{wanted} @ {url}')}"
    return f"pip install 'vitriad{wanted}'"


def own_source() -> str:
    """What pip is told to get this copy of vitriad again: a checkout, a wheel, an address, or a name and a version."""
    from shlex import quote

    found = _record()
    url = str(found.get("url", ""))
    if isinstance(vcs := found.get("vcs_info"), dict):
        return quote(_of_vcs(url, vcs))
    if (path := _path(url)) is not None:
        return quote(str(path))
    return quote(url) if url and not url.startswith("file:") else f"vitriad=={own_version()}"


def _of_vcs(url: str, vcs: Mapping[str, object]) -> str:
    """A commit of a repository, as pip takes it."""
    commit = f"@{vcs['commit_id']}" if vcs.get("commit_id") else ""
    return f"{vcs.get('vcs', 'git')}+{url}{commit}".replace(" ", "%20")  # pip quotes no URL of git


def own_version() -> str:
    """The version of this copy; "unknown" for a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vitriad")
    except PackageNotFoundError:
        return "unknown"


def _record() -> dict[str, object]:
    """Where pip says this copy came from: for a source tree that was never installed, the tree; {} for an index."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution("vitriad").read_text("direct_url.json")
    except PackageNotFoundError:
        root = Path(__file__).parent.parent
        return {"url": root.as_uri(), "dir_info": {"editable": True}} if (root / "pyproject.toml").exists() else {}
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _requirements(extras: Collection[str]) -> list[str]:
    """What extras ask for, as the metadata of this copy says, in which hatchling has resolved extras of extras."""
    from importlib.metadata import requires

    lines = [[part.strip() for part in line.split(";")] for line in requires("vitriad") or ()]
    markers = {f"extra == {mark}{extra}{mark}" for extra in extras for mark in "'\""}
    return [line[0] for line in lines if line[-1] in markers]


def _path(url: str) -> Path | None:
    """The local folder or wheel of a record, where it is still there."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    return path if parts.scheme == "file" and path.exists() else None
