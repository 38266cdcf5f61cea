"""Uploading what was saved: one commit that adds the new files and removes the weights that they replace."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vit_core.errors import CheckpointError, InputError
from vit_core.files.json import json_text, read_json
from vit_core.files.manifest import MANIFEST_NAME
from vit_core.files.weight_files import weight_names
from vit_core.hub.download import Repository, check_hub_name, hub_errors
from vit_core.hub.model_card import model_card

CARD_NAME = "README.md"


class PushToHub:
    """Gives `push_to_hub` to a class that has a `save_pretrained(folder)`."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        endpoint: str | None = None,
        license: str | None = None,
        **save_options: Any,
    ) -> str:
        """Uploads what `save_pretrained` writes to a repository on the hub, as one commit.

        The weights that a repository had under the same variant are replaced. A model gets a model card (README.md)
        where the repository has none.

        Args:
            repo_id: "owner/name", made where missing; without an owner, the token's.
            commit_message: "Upload" and the name of the class unless given.
            private: of a repository that is made.
            token: access token that may write; never logged.
            revision: branch, made where missing ("main" where None).
            create_pr: leave the commit as a pull request.
            endpoint: address of another hub than huggingface.co (the environment's HF_ENDPOINT where None).
            license: for the model card, such as "apache-2.0".
            **save_options: of `save_pretrained`, such as max_shard_size and variant.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            CheckpointError: the hub refuses or fails; the branch is what it was.
            InputError: revision and create_pr are both given; only one is possible.
        """
        if revision and create_pr:
            raise InputError(f"{repo_id}: push_to_hub: expected revision= or create_pr=True, got both.")
        check_hub_name(repo_id)
        access = {"token": token, "endpoint": endpoint.rstrip("/") if endpoint else None}
        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / "saved"
            self.save_pretrained(folder, **save_options)  # type: ignore[attr-defined]
            with hub_errors(repo_id, revision):
                branch = _Branch(repo_id, revision, private, access)
                branch.add_card_and_records(folder, getattr(self, "config", None), save_options.get("variant"), license)
                return branch.commit(folder, commit_message or f"Upload {type(self).__name__}", create_pr)


class _Branch:
    """A branch of a repository on the hub, both made where missing.

    Attributes:
        files: the names of the files in it.
        replaced: those that a commit is to remove.
    """

    def __init__(self, repo_id: str, revision: str | None, private: bool | None, access: dict[str, Any]) -> None:
        from huggingface_hub import HfApi

        self._access, self.revision = access, revision
        self._api = HfApi(**access, library_name="vitriad")
        self.name = self._api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision:
            self._api.create_branch(self.name, branch=revision, exist_ok=True)
        self.files = {entry.path for entry in self._api.list_repo_tree(self.name, revision=revision)}
        self.replaced: set[str] = set()

    def add_card_and_records(self, folder: Path, config: Any, variant: str | None, license: str | None) -> None:
        """Adds what a saved model lacks to be uploaded here: a card, and the records of weights that stay."""
        new = {path.name for path in folder.iterdir()}
        if MANIFEST_NAME not in new:  # no model
            return
        of_variant = weight_names(variant)
        self.replaced = {file for file in self.files - new if any(fnmatchcase(file, name) for name in of_variant)}
        if CARD_NAME not in self.files:
            card = model_card(config, folder, self.name, variant, license)
            (folder / CARD_NAME).write_text(card, encoding="utf-8", errors="backslashreplace")
        if MANIFEST_NAME in self.files:
            self._keep_records(folder / MANIFEST_NAME, self.files - self.replaced)

    def _keep_records(self, manifest: Path, staying: Collection[str]) -> None:
        """Adds to a new manifest what the repository's says of the weights that stay (those of other variants)."""
        repository = Repository(self.name, revision=self.revision, cache_dir=manifest.parent.parent, **self._access)
        found = repository.fetch(manifest.name)
        try:
            known = read_json(found, limit="index_bytes", error=CheckpointError).get("files") if found else None
        except CheckpointError:  # damaged; what it said is lost with it
            return
        mine = read_json(manifest, limit="index_bytes", error=CheckpointError)
        kept = {file: record for file, record in known.items() if file in staying} if isinstance(known, dict) else {}
        manifest.write_text(json_text({**mine, "files": {**kept, **mine["files"]}}), encoding="utf-8")

    def commit(self, folder: Path, message: str, create_pr: bool) -> str:
        """Uploads the files of a folder; returns the address of the commit or of the pull request."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        added = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        removed = [CommitOperationDelete(file) for file in sorted(self.replaced)]
        made = self._api.create_commit(
            self.name, [*removed, *added], commit_message=message, revision=self.revision, create_pr=create_pr
        )
        return str(made.pr_url or made.commit_url)
