"""The model card: the README.md of a repository on the hub that nobody has written one for."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_core.errors import CheckpointError
from vit_core.files.folders import open_weights
from vit_core.files.json import read_json

_TASKS = {"ViTForImageClassification": "image-classification"}  # the others give features
_PREFIXES = ("vit_torch.", "vit_tf.TF", "vit_flax.Flax")
_SHOWN_LABELS = 50


_TO_WRITE = "Still to be written: what it was trained on, what it is good for, and where it fails."


def model_card(config: Any, folder: Path, repo_id: str, variant: str | None = None, license: str | None = None) -> str:
    """The text of README.md for a saved model: what it is and how to load it.

    Args:
        config: of the model, a `vit_core.config.PretrainedConfig`.
        folder: as `save_pretrained` of a model wrote it.
        repo_id: "owner/name".
        variant: of the weights.
        license: such as "apache-2.0"; unset where None.
    """
    model = read_json(folder / "config.json", limit="config_bytes", error=CheckpointError)["architectures"][0]
    weights = open_weights(folder, variant=variant, verify=False)
    size = sum(math.prod(info.shape) for info in weights.infos.values())
    return card_text(config, model, size, repo_id, variant=variant, license=license)


def card_text(
    config: Any,
    model: str,
    size: int,
    repo_id: str,
    *,
    about: Sequence[str] = (_TO_WRITE,),
    variant: str | None = None,
    license: str | None = None,
) -> str:
    """The same of a model that need not be saved yet.

    Args:
        model: canonical name of its class.
        size: number of its parameters.
        repo_id: "owner/name", or a folder.
        about: lines on what it was trained on, what it is good for, and where it fails.
        variant, license: as for `model_card`.
    """
    facts = {
        "Class": model,
        "Parameters": f"{size:,}",
        "Image size": "{} x {} pixels".format(*_pair(config.image_size)),
        "Patch size": "{} x {} pixels".format(*_pair(config.patch_size)),
        "Channels": config.num_channels,
    }
    option = f', variant="{variant}"' if variant else ""
    return "\n".join(
        [
            *_front_matter(config, model, license),
            f"# {repo_id.split('/')[-1]}",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            *about,
            "",
            "## Loading it",
            "",
            "The same files serve all three frameworks:",
            "",
            "```python",
            *(f'model = {prefix}{model}.from_pretrained("{repo_id}"{option})' for prefix in _PREFIXES),
            "```",
            *_labels(config, model),
            "",
        ]
    )


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size of a configuration: one number, or both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _front_matter(config: Any, model: str, license: str | None) -> list[str]:
    """What the hub reads: YAML between two lines of dashes."""
    licensed = [f"license: {json.dumps(license)}"] if license else []  # a JSON string is one of YAML too
    task = _TASKS.get(model, "image-feature-extraction")
    tags = ["tags:", f"- {config.model_type}", "- vision-transformer"]
    return ["---", "library_name: vitriad", f"pipeline_tag: {task}", *licensed, *tags, "---", ""]


def _labels(config: Any, model: str) -> list[str]:
    """A classifier's labels, indented as code: whatever they hold is shown as it is."""
    if model != "ViTForImageClassification":
        return []
    labels = [f"    {index}: {json.dumps(label, ensure_ascii=False)}" for index, label in config.id2label.items()]
    more = len(labels) - _SHOWN_LABELS
    rest = [f"    ... and {more} more, in config.json"] if more > 0 else []
    return ["", "## Labels", "", *labels[:_SHOWN_LABELS], *rest]
