"""Where a name points: a local folder as it is, or one commit of a repository on the hub.

Only the files that are needed are downloaded, all from one commit. The size and SHA-256 that the hub announces for a
file are compared with what arrives. For a local folder no connection is opened and no client imported.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from vit_core.errors import CheckpointError, InputError, MissingFileError, UnsafeFileError, VitError
from vit_core.files.atomic_folder import finds_folder, finish_swap
from vit_core.files.weight_files import SUFFIXES, is_weights
from vit_core.keywords import HubKeywords
from vit_core.limits import LIMITS
from vit_core.plain_values import short

# Keywords of from_pretrained that say where and how to fetch, and nothing else.
HUB_OPTIONS = (*HubKeywords.__annotations__,)

logger = logging.getLogger("vitriad")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 300  # characters of a name in a message
_TRANSIENT = (408, 429)  # and every 5xx: worth another try, or what the cache holds
_MEANINGS = {
    401: ", the token is missing or wrong; pass token=",
    403: ", the token does not allow this",
    404: ", nothing there",
    429: ", too many requests; wait a while",
}


def resolve(name_or_path: str | Path, files: Iterable[str], **options: Any) -> Path:
    """The local folder that holds the files of a checkpoint.

    Args:
        name_or_path: an existing folder, a weight file in one, or "owner/name" on the hub.
        files: names of the files wanted; only these are requested from the hub.
        **options: as for `Repository`; of a local folder only `subfolder` counts.

    Raises:
        MissingFileError: neither a folder nor a name of the hub's form, or none of the files is there.
        CheckpointError: the hub's answer cannot be used, or the name leaves its folder.
    """
    if folder := local_folder(name_or_path, options.get("subfolder") or ""):
        return folder
    repository = Repository(str(name_or_path), **options)
    found = [path for file in files if (path := repository.fetch(file))]
    if not found:
        repository.fail(*files)
    return found[0].parent


def local_folder(name_or_path: str | Path, subfolder: str = "") -> Path | None:
    """The folder of this name on this machine, an interrupted save finished first; None for what may be on the hub.

    Of a weight file or an index, it is the folder that it lies in: what belongs to it stands beside it.

    Raises:
        MissingFileError: there is none, and the name cannot be one of the hub's.
        CheckpointError: it is another file, or the subfolder leaves the folder.
    """
    if Path(subfolder).is_absolute() or ".." in Path(subfolder).parts:
        raise CheckpointError(f"subfolder {subfolder!r}: expected a path inside the checkpoint.")
    if os.path.isfile(name_or_path):
        if is_weights(Path(name_or_path).name) and not subfolder:
            return Path(name_or_path).parent
        raise CheckpointError(f"{name_or_path}: expected a folder or a hub name 'owner/name', got a file.")
    if subfolder:
        finish_swap(Path(name_or_path) / subfolder)
    if finds_folder(name_or_path):
        return Path(name_or_path) / subfolder
    _check_not_local(str(name_or_path))
    return None


def _check_not_local(name: str) -> None:
    """Raises for names that mean something on this machine, such as a broken link: asking the hub would not help."""
    try:
        os.lstat(name)
    except PermissionError as problem:
        raise CheckpointError(f"{name}: cannot be looked at: {problem.strerror}.") from None
    except (OSError, ValueError):  # not there, or no file can have this name
        pass
    if os.path.islink(name):
        raise MissingFileError(f"{name}: a link to {os.readlink(name)}, which is not there.")
    if os.path.lexists(name):
        raise CheckpointError(f"{name}: expected a folder or a weight file, got something else.")
    if name.endswith(SUFFIXES):
        raise MissingFileError(f"{name}: no such file here. (No repository ends in {Path(name).suffix}.)")


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache is a snapshot of, or lies in."""
    places = [place for place in (folder, *folder.parents) if place.parent.name == "snapshots"]
    return next((place.name for place in places if _COMMIT.fullmatch(place.name)), None)


# --- downloading -----------------------------------------------------------------------------------------------------


class Repository:
    """One commit of a repository on the hub, of which files are fetched one by one.

    The first file found settles the commit, and every other file is of that commit, whatever happens to the branch.
    Where the hub cannot be reached, the files are those in the cache.

    Args:
        name: "owner/name".
        revision: branch, tag or commit (the branch "main" where None).
        subfolder: folder inside the repository.
        cache_dir: where downloads are kept (huggingface_hub's own place where None).
        token: access token for private repositories; never logged.
        local_files_only: never open a connection.
        force_download: fetch again even if cached.
        endpoint: address of another hub than huggingface.co (the environment's HF_ENDPOINT where None).

    Raises:
        MissingFileError: not a name of the hub's form.
        InputError: a revision or subfolder that cannot be one, or options that contradict each other.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        subfolder: str = "",
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        endpoint: str | None = None,
    ) -> None:
        from huggingface_hub import is_offline_mode

        check_hub_name(name)
        for what, value in (("revision", revision), ("subfolder", subfolder)):
            if value and not (isinstance(value, str) and is_inside(value)):
                raise InputError(f"{name}: {what}: expected a name like 'main' or 'a/b', got {short(value)}.")
        self._is_offline = local_files_only or is_offline_mode()
        if force_download and self._is_offline:
            raise InputError(
                f"{name}: force_download needs the hub, and local_files_only or HF_HUB_OFFLINE forbids it."
            )
        self.name = name
        self.revision = revision or "main"
        self.commit = self.revision if _COMMIT.fullmatch(self.revision) else None
        self._subfolder = f"{subfolder.strip('/')}/" if subfolder else ""
        self._force = force_download
        self._cache = None if cache_dir is None else Path(cache_dir).expanduser().absolute()
        self._access: dict[str, Any] = {"token": token, "endpoint": endpoint.rstrip("/") if endpoint else None}

    def fetch(self, file: str) -> Path | None:
        """The local copy of one file; None where the repository (offline: the cache) does not have it.

        Raises:
            MissingFileError: no such repository or revision.
            UnsafeFileError: the copy would lie, or lies, outside the cache.
            CheckpointError: the hub fails, refuses, or sends something else than it promised.
        """
        path = self._subfolder + file
        known = self._known(path)
        found = cached = Path(known) if isinstance(known, str) else None
        if not self._is_offline and (known is None or self.commit is None or self._force):
            with hub_errors(self.name, self.revision, self._hub):
                found = self._download(path, cached)
        if found:
            self.commit = self._checked(found, path)
        return found

    def names(self) -> list[str]:
        """The names of all files in the folder, of those in the cache where the hub is not to be asked."""
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        if self._is_offline:
            revision = self.commit or self.revision
            try:
                cached = snapshot_download(self.name, revision=revision, cache_dir=self._cache, local_files_only=True)
                return os.listdir(Path(cached) / self._subfolder)
            except (LocalEntryNotFoundError, FileNotFoundError):
                return []
        api, folder = HfApi(**self._access, library_name="vitriad"), self._subfolder.rstrip("/") or None
        with hub_errors(self.name, self.revision, self._hub):
            try:
                tree = [*api.list_repo_tree(self.name, folder, revision=self.commit or self.revision)]
            except RemoteEntryNotFoundError:
                return []
        return [name for entry in tree if is_inside(name := entry.path.removeprefix(self._subfolder))]

    def fail(self, *files: str) -> NoReturn:
        """Raises MissingFileError: none of these files is there."""
        wanted = " nor ".join(f"{self._subfolder}{file}" for file in files)
        if self._is_offline:
            raise MissingFileError(
                f"{self.name}: no folder {self.name} here; not in the hub's local cache, and the hub cannot be reached "
                "(or local_files_only is set)."
            )
        raise MissingFileError(f"{self.name} on the hub, revision {self.revision}: no {wanted}.")

    @property
    def _hub(self) -> str:
        """What errors call the hub: until a file is found, the name could be meant for a folder."""
        return "the hub" if self.commit else f"no folder {self.name} here; the hub"

    def _known(self, path: str, commit: str | None = None) -> Any:
        """What the cache knows: the place of the file, the client's mark for one that the commit lacks, or None."""
        from huggingface_hub import try_to_load_from_cache

        revision = commit or self.commit or self.revision
        return try_to_load_from_cache(self.name, path, cache_dir=self._cache, revision=revision)

    def _download(self, path: str, cached: Path | None) -> Path | None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

        url = hf_hub_url(self.name, path, revision=self.commit or self.revision, endpoint=self._access["endpoint"])
        is_dispensable = cached is not None and not self._force
        try:
            promised = get_hf_file_metadata(
                url, **self._access, library_name="vitriad", retry_on_errors=not is_dispensable
            )
        except RemoteEntryNotFoundError:
            return self._into_cache(path, size=0)
        except Exception as error:
            if not is_dispensable or (isinstance(error, HfHubHTTPError) and not _is_transient(error)):
                raise
            logger.warning("%s: the hub cannot be reached; taken from the cache.", self.name)
            self._is_offline = True
            return cached
        size, etag = self._check_promise(path, promised)
        here = self._known(path, promised.commit_hash)
        if is_dispensable and here == str(cached):
            return cached
        found = self._into_cache(path, size=None if promised.xet_file_data else size)
        if found and (here is None or self._force):
            self._check_digest(found, path, etag)
        return found

    def _into_cache(self, path: str, size: int | None) -> Path | None:
        """The client's own download, of at most `size` bytes (None: by a protocol that checks itself).

        Its cache notes what a branch is, and which files a commit does not have, so that none is asked for twice.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        try:
            found: Any = hf_hub_download(
                self.name,
                path,
                revision=self.commit or self.revision,
                cache_dir=self._cache,
                force_download=self._force,
                tqdm_class=None if size is None else _bounded_bar(self.name, path, size),
                library_name="vitriad",
                **self._access,
            )
        except RemoteEntryNotFoundError:
            return None
        return Path(found)

    def _check_promise(self, path: str, promised: Any) -> tuple[int, str]:
        """Size and ETag of a file; what cannot be true is refused before anything is written."""
        size, etag, commit = promised.size, promised.etag, promised.commit_hash
        if size is None and path.endswith(".json"):  # some proxies leave it out
            size = LIMITS.index_bytes
        for what, value in (("commit", commit), ("ETag", etag), ("size", size)):
            if value is None:
                raise CheckpointError(f"{self.name}: {path}: the answer names no {what}: is this a hub?")
        if not _COMMIT.fullmatch(commit):
            raise CheckpointError(f"{self.name}: expected a commit of 40 hexadecimal digits, got {short(commit)}.")
        if "/" in etag or not is_inside(etag):
            raise UnsafeFileError(f"{self.name}: {path}: its ETag cannot be a file name: {short(etag)}.")
        if path.endswith(".json") and size > LIMITS.index_bytes:
            raise CheckpointError(f"{self.name}: {path}: {size} bytes, above the limit of {LIMITS.index_bytes}.")
        return size, etag

    def _check_digest(self, found: Path, path: str, etag: str) -> None:
        """Compares a new file with the SHA-256 that the hub gives for large files; removes it where they differ."""
        if not _SHA256.fullmatch(etag):
            return
        with open(found, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != etag:
            Path(os.path.realpath(found)).unlink()
            found.unlink(missing_ok=True)
            raise CheckpointError(
                f"{self.name}: {path}: expected SHA-256 {etag}, got {digest}.\n"
                "Damaged on its way, so it was not kept: load again."
            )

    def _checked(self, found: Path, path: str) -> str:
        """The commit of a file in the cache, which really lies there: in its repository's folder or the shared blobs.

        Raises:
            UnsafeFileError: it lies elsewhere.
        """
        snapshot = found.parents[path.count("/")]
        folder, cache = snapshot.parents[1], snapshot.parents[2]
        target = Path(os.path.realpath(found))
        homes = [Path(os.path.realpath(home)) for home in (folder, cache / "blobs")]
        is_home = any(target.is_relative_to(home) for home in homes)
        if not is_home or snapshot.parent.name != "snapshots" or snapshot.name != (self.commit or commit_of(snapshot)):
            raise UnsafeFileError(f"{self.name}: {path}: lies outside its folder of the cache: {found}.")
        return snapshot.name


def check_hub_name(name: str) -> None:
    """Raises MissingFileError: not a name of the hub's form."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # imported there on purpose

    try:
        validate_repo_id(name)
    except HFValidationError:
        short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
        raise MissingFileError(f"{short}: no such folder, and not a hub name of the form 'owner/name'.") from None


def is_inside(name: str) -> bool:
    """Whether a relative name stays where it is put, on every system."""
    parts = name.rstrip("/").split("/")
    return not any(part in ("", ".", "..") for part in parts) and not {*name} & {*"\\:\0\n\r"}


def _bounded_bar(name: str, path: str, size: int) -> Any:
    """The client's progress bar for one file, which also ends a body that goes on after the promised size."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # imported there on purpose

    class BoundedBar(tqdm):
        received = 0

        def update(self, n: Any = 1) -> Any:
            self.received += n
            if self.received > size:
                raise CheckpointError(f"{name}: {path}: expected {size} bytes, got more: the hub promised no more.")
            return super().update(n)

    return BoundedBar


def _is_transient(error: Any) -> bool:
    return error.response.status_code in _TRANSIENT or error.response.status_code >= 500


# --- errors ----------------------------------------------------------------------------------------------------------


@contextmanager
def hub_errors(name: str, revision: str | None, who: str = "the hub") -> Iterator[None]:
    """Turns whatever the client raises inside the block into errors of ours: its own texts can hold headers.

    Args:
        name: of the repository.
        revision: branch, tag or commit.
        who: what did not do it; where the name could be a folder's too, that there is none.
    """
    try:
        yield
    except VitError:
        raise
    except Exception as error:  # answers of a server cannot be foreseen, nor what they do to the client
        raise _our_error(name, revision, error, who) from None


def _our_error(name: str, revision: str | None, error: Exception, who: str) -> VitError:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{name}: its owner restricts access.\nAccept the terms on the hub, and pass token= of that account."
        )
    if isinstance(error, RepositoryNotFoundError):
        return MissingFileError(
            f"{name}: no such folder here and no such repository on the hub.\n"
            "Check the spelling; a private repository needs token=."
        )
    if isinstance(error, RevisionNotFoundError):
        return MissingFileError(f"{name} on the hub: no branch, tag or commit {short(revision)}.")
    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        return CheckpointError(f"{name}: {who} refused: HTTP {code}{_MEANINGS.get(code, '')}.")
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(f"{name}: {os.strerror(error.errno)}: {error.filename}.")
    if isinstance(error, OSError) and "Consistency check" in str(error):
        return CheckpointError(f"{name}: a file came with another size than the hub promised: load again.")
    return CheckpointError(
        f"{name}: {who} cannot be reached, or its answer cannot be used ({type(error).__name__}).\n"
        "Check the connection; local_files_only=True loads what is in the cache."
    )
